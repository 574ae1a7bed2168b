"""A page that shows a run in any number of browsers, by viser: the map, and a panel with image, depth and confidence.

Viser serves on threads of its own. Whatever a browser asks for is posted to the one thread that runs `show`.
"""

import html
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np
import rich
import viser

from slam.errors import ViewerError
from slam.viewer.clouds import Clouds
from slam.viewer.controls import CONFIDENCE_STEP, KEYS, POINT_SIZES, Command, Controls, Key
from slam.viewer.driver import RenderThreads
from slam.viewer.panel_images import panel_tiles
from slam.viewer.saver import Saver
from slam.viewer.shapes import Viewpoint, behind, overview
from slam.viewer.view_state import Feed, ViewState
from slam.viewer.web_address import Address
from slam.viewer.web_guard import guarded_servers
from slam.viewer.web_scene import WebScene

log = logging.getLogger(__name__)

MAX_POINTS = 200_000  # in the scene at once
REDRAW_PERIOD_S = 0.2
REST_RATIO = 4.0  # beside tracking, drawing rests so many times as long as it has worked
TICK_S = 0.1
FAREWELL_S = 0.3  # for browsers to hear of the end
FOLLOW_RATIO = 0.5  # distance behind the followed camera, times the median depth
TURN_RATIO = 1e-3  # times the median depth: a view farther from where it was sent was turned by hand
SENT_VIEWS = 50  # that a browser may still be about to take
RENDER_TIMEOUT_S = 20.0  # of a browser that is asked for a screenshot
BACKGROUND = 18  # gray level of screenshots
STATUS = '<pre style="margin: 0 1em; white-space: pre-wrap">{}</pre>'


class Order(IntEnum):
    """The panel from top to bottom."""

    STATUS = 0
    IMAGE = 1
    FOLLOW = 2
    SWITCH = 3
    SLIDER = 4
    BUTTON = 5
    QUIT = 6


class Server(viser.ViserServer):
    """Viser as we want it: it never opens a tunnel to the internet, whatever a browser asks for."""

    thread_id = 0  # native, of the thread that serves

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Refused."""
        return None


class Browser:
    """One that looks at the page: where it looks from, and whether it follows the camera."""

    def __init__(self, client: viser.ClientHandle, follows: bool) -> None:
        self._client = client
        self._follows: Any = client.gui.add_checkbox("follow the camera", follows, order=Order.FOLLOW)
        self._is_placed = self._was_following = self._has_arrived = False
        self._eyes: deque[np.ndarray] = deque(maxlen=SENT_VIEWS)  # where it was sent to follow
        self._reported = client.camera.position  # by the browser, which is behind
        client.camera.on_update(self._hear)

    @property
    def follows(self) -> bool:
        """True while it is led behind the camera."""
        return bool(self._follows.value)

    def point(self, shown: ViewState, median_depth: float) -> None:
        """Look at the map as a whole at first, or follow the camera until somebody turns the view."""
        if not shown.keyframes:
            return
        if self._follows.value and not self._was_following:
            self._eyes.clear()
            self._has_arrived = False
        elif self._follows.value and self._was_turned(median_depth):
            self._follows.value = False
        self._was_following = self._follows.value
        if self._follows.value and shown.T_wc is not None:
            view = behind(shown.T_wc, FOLLOW_RATIO * median_depth)
            self._eyes.append(view.eye)
            self._look(view)
        elif not self._is_placed:
            self._look(overview(shown))

    def reset(self, shown: ViewState) -> None:
        """Look at the map as a whole."""
        self._follows.value = False
        if shown.keyframes:
            self._look(overview(shown))

    async def _hear(self, camera: viser.CameraHandle) -> None:
        """Viser's thread."""
        self._reported = camera.position

    def _was_turned(self, median_depth: float) -> bool:
        """True if it had arrived where it was sent to, and has now left."""
        distances = [float(np.linalg.norm(eye - self._reported)) for eye in self._eyes]
        is_there = min(distances, default=np.inf) <= TURN_RATIO * median_depth
        self._has_arrived = self._has_arrived or is_there
        return self._has_arrived and not is_there

    def _look(self, view: Viewpoint) -> None:
        camera = self._client.camera
        self._is_placed = True
        with self._client.atomic():
            camera.position, camera.look_at, camera.up_direction = view.eye, view.center, view.up


class WebPage:
    """One page on one run; `show` returns when somebody closes it there."""

    def __init__(self, feed: Feed, address: Address = Address()) -> None:
        """Serve the page.

        Raises:
            ViewerError: if it cannot be served at that address.
        """
        self.feed = feed
        self.controls = Controls(follows=feed.is_live)
        self.note = ""
        self._server = serve(address, feed.title)
        self.url = address.url(self._server.get_port())
        log.info("the run is shown at %s", address.where(self._server.get_port()))
        self.clouds = Clouds(MAX_POINTS)
        self._scene = WebScene(self._server.scene)
        self._saver = Saver(feed.folder)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._browsers: dict[int, Browser] = {}
        self._drawn: tuple[ViewState, Controls, str, dict[int, bool]] | None = None
        self._is_over = False
        self._build()

    def show(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Serve until the page is closed; what is being saved then is still written.

        Args:
            stopped: asked many times a second; the page is closed when it says so.
        """
        threads = RenderThreads({self._server.thread_id, threading.get_native_id()})
        drawn_s, work_s = 0.0, threads.seconds()
        try:
            while not (self._is_over or stopped()):
                self._do_jobs()
                worked_s = threads.seconds() - work_s if self.feed.is_live else 0.0
                if time.monotonic() - drawn_s >= max(REDRAW_PERIOD_S, (1 + REST_RATIO) * worked_s):
                    drawn_s, work_s = time.monotonic(), threads.seconds()
                    self.refresh()
            self.note = "this page has ended"
            self.refresh()
            if self._browsers:
                time.sleep(FAREWELL_S)
        finally:
            self.clouds.close()
            self._saver.close()
            quietly(self._server.stop)

    def refresh(self) -> None:
        """Send what the feed has and the controls say; nothing while nobody looks."""
        self._meet_browsers()
        for note in self._saver.results():
            self.note = note
        shown, controls = self.feed.shown(), self.controls
        now = (shown, controls, self.note, {i: browser.follows for i, browser in self._browsers.items()})
        if not self._browsers or (now == self._drawn and not self.clouds.is_busy):
            return
        changed = self.clouds.update(shown, controls.min_confidence)
        with self._server.atomic():
            self._scene.draw(shown, controls, self.clouds.points, changed)
            if self._drawn is None or shown is not self._drawn[0]:
                self._image.image = panel_tiles(shown)
            points = sum(len(one.cloud) for one in self.clouds.points.values())
            words = f"{shown.words}\npoints {points}, browsers {len(self._browsers)}\n{self.note}".rstrip()
            self._status.content = STATUS.format(html.escape(words))
        for browser in self._browsers.values():
            browser.point(shown, self._scene.median_depth)
        self._drawn = now

    def _meet_browsers(self) -> None:
        """Those that came, and those that left."""
        clients = self._server.get_clients()
        self._browsers = {i: browser for i, browser in self._browsers.items() if i in clients}
        for i, client in clients.items():
            if i not in self._browsers:
                self._browsers[i] = Browser(client, self.controls.follows)

    def _do_jobs(self) -> None:
        """What browsers ask for, waiting a tick for it."""
        try:
            self._jobs.get(timeout=TICK_S)()
            while True:
                self._jobs.get_nowait()()
        except queue.Empty:
            return

    def _build(self) -> None:
        gui = self._server.gui
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()  # beside the scene, which it would hide
        self._status = gui.add_html("", order=Order.STATUS)
        self._image = gui.add_image(panel_tiles(self.feed.shown()), label="image, depth, confidence", order=Order.IMAGE)
        for key in KEYS:
            if key.command is not None:
                self._add_button(key, key.command)
            elif key.switch is not None and key.switch not in ("follows", "shows_help"):  # one by browser; no keys here
                box = gui.add_checkbox(key.words, getattr(self.controls, key.switch), order=Order.SWITCH)
                box.on_update(self._setter(key.switch))
        sliders: dict[str, Any] = {
            "point_size": gui.add_slider("point size", *POINT_SIZES, 1, self.controls.point_size, order=Order.SLIDER),
            "min_confidence": gui.add_slider(
                "confidence from", 0.0, 1.0, CONFIDENCE_STEP, self.controls.min_confidence, order=Order.SLIDER
            ),
        }
        for name, slider in sliders.items():
            slider.on_update(self._setter(name))

    def _add_button(self, key: Key, command: Command) -> None:
        words, color = key.words, None
        if command is Command.QUIT:
            words, color = "stop the run" if self.feed.is_live else "close the page", (200, 50, 50)
        order = Order.QUIT if command is Command.QUIT else Order.BUTTON
        button = self._server.gui.add_button(words, color=color, order=order)
        if command is Command.SAVE_SCREENSHOT:
            button.on_click(self._take_screenshot)
        else:
            button.on_click(lambda event: self._jobs.put(lambda: self._obey(command, event.client_id)))

    def _setter(self, name: str) -> Callable[[Any], None]:
        """What a box or a slider does when it is changed."""

        def change(event: Any) -> None:
            value = event.target.value
            self._jobs.put(lambda: self._set(**{name: value}))

        return change

    def _set(self, **values: Any) -> None:
        self.controls = replace(self.controls, **values)

    def _obey(self, command: Command, browser: int | None) -> None:
        if command is Command.PLAY:
            self.feed.play()
        elif command is Command.STEP:
            self.feed.step()
        elif command is Command.QUIT:
            self._is_over = True
        elif command is Command.RESET_VIEW and browser in self._browsers:
            self._browsers[browser].reset(self.feed.shown())
        elif command is Command.SAVE_CLOUD:
            self.note = self._saver.save_cloud(self.feed.shown(), self.controls.min_confidence)

    def _take_screenshot(self, event: Any) -> None:
        """Ask the browser for what it shows (viser's thread: it waits)."""
        client: viser.ClientHandle | None = event.client
        if client is None:
            return
        size = client.camera.image_height, client.camera.image_width
        try:
            pixels = client.get_render(*size, transport_format="png", timeout=RENDER_TIMEOUT_S)
        except (RuntimeError, TimeoutError) as error:  # it has gone, or cannot
            note = f"no screenshot: {error}"
            self._jobs.put(lambda: self._say(note))
        else:
            self._jobs.put(lambda: self._say(self._saver.save_image(on_background(pixels))))

    def _say(self, note: str) -> None:
        self.note = note


def serve(address: Address, title: str) -> Server:
    """Start viser, closed to other pages.

    Raises:
        ViewerError: if the port is not, or no longer, free, or viser starts its server in a way that cannot be guarded.
    """
    port = address.free_port()
    with guarded_servers(address.host) as guarded:
        server = quietly(lambda: Server(address.host, port, label=title, verbose=False))
    if not guarded:
        quietly(server.stop)
        raise ViewerError(f"viser {viser.__version__} would let any page look at the run: pip install 'viser==1.1.*'")
    server.thread_id = guarded[-1]
    if port not in (0, server.get_port()) and address.port is not None:
        quietly(server.stop)
        raise ViewerError(f"port {port} of {address.host} was taken meanwhile; ask for another one")
    return server


def quietly(job: Callable[[], Any]) -> Any:
    """Do a job of viser's without what it prints about it: standard output belongs to the program."""
    console = rich.get_console()
    was_quiet, console.quiet = console.quiet, True
    try:
        return job()
    finally:
        console.quiet = was_quiet


def on_background(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with transparency -> (H, W, 3) uint8 on dark gray."""
    share = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(share * rgba[..., :3] + (1 - share) * BACKGROUND).astype(np.uint8)

"""The window that shows a run: the map, and a panel with image, depth and confidence. It owns the main thread.

Open3D must be told everything from callbacks that it runs itself (`post_to_main_thread`), and not too often: what is
posted on every tick of its loop swamps it. It draws after the callback, on threads of its own.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import open3d as o3d
from open3d.visualization import gui, rendering

from slam.viewer.clouds import Clouds
from slam.viewer.controls import HELP, KEYS, Command, Controls, pressed
from slam.viewer.driver import RenderThreads, check_display, check_driver, threads
from slam.viewer.painter import Painter
from slam.viewer.panel_images import panel_image
from slam.viewer.saver import Saver
from slam.viewer.shapes import Viewpoint, behind, overview, poses
from slam.viewer.view_state import Feed, ViewState

FIELD_OF_VIEW_DEG = 60.0
MAX_POINTS = 300_000  # drawn at once
REDRAW_PERIOD_S = 0.1
REST_RATIO = 4.0  # beside tracking, a renderer rests so many times as long as it has worked
FOLLOW_RATIO = 0.5  # distance behind the followed camera, times the median depth
BOUNDS_MARGIN = 1.5  # the camera is set up for a map larger by so much than the present one
PANEL_EM = 18.0  # width of the panel, in heights of its letters
SPECIAL_KEYS = {gui.KeyName.SPACE: " ", gui.KeyName.PLUS: "+", gui.KeyName.EQUALS: "=", gui.KeyName.MINUS: "-"}
BRACKETS = {gui.KeyName.LEFT_BRACKET: "[", gui.KeyName.RIGHT_BRACKET: "]"}
LETTERS = {getattr(gui.KeyName, key.name): key.character for key in KEYS if key.character.isalpha()}
CHARACTERS = {int(key): character for key, character in (SPECIAL_KEYS | BRACKETS | LETTERS).items()}


class Window:
    """One window on one run; `show` returns when it is closed."""

    def __init__(self, feed: Feed, width: int = 1280, height: int = 800) -> None:
        """Open the window.

        Raises:
            ViewerError: if there is no display or no graphics driver.
        """
        check_display()
        before = threads()
        check_driver()
        self.feed = feed
        self.controls = Controls(follows=feed.is_live)
        self.note = "H: help"
        self._drawn: tuple[ViewState, Controls, str] | None = None
        self._is_posted = False  # a callback is under way
        self._redrawn_s = 0.0
        self._reach = 0.0  # of the points of a keyframe
        self._bounds: tuple[np.ndarray, np.ndarray] | None = None  # that the camera is set up for
        self._error: Exception | None = None
        self._images: list[o3d.geometry.Image] = []
        self.clouds = Clouds(MAX_POINTS)
        self._saver = Saver(feed.folder)
        self._app = gui.Application.instance
        self._app.initialize()
        self._window = self._app.create_window(feed.title, width, height)
        self._safely(self._build)()
        self.renderer = RenderThreads(threads() - before)
        if feed.is_live:
            self.renderer.stand_back()
        self._work_s = self.renderer.seconds()

    def show(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Run the loop until the window is closed; what is being saved then is still written.

        Args:
            stopped: asked many times a second; the window is closed when it says so.

        Raises:
            Exception: what a callback died of; the window is closed then, too.
        """
        try:
            while self._app.run_one_tick():
                if stopped() or self._error is not None:
                    self._window.close()
                elif not self._is_posted and self._is_due() and self._safely(self._has_news)():
                    self._redrawn_s, self._work_s = time.monotonic(), self.renderer.seconds()
                    self._post(self.refresh)
        finally:
            self.clouds.close()
            self._saver.close()
        if self._error is not None:
            raise self._error

    def _safely(self, job: Callable[..., Any]) -> Callable[..., Any]:
        """A callback that Open3D may call: an exception through it would end the process."""

        def guarded(*arguments: Any) -> Any:
            try:
                return job(*arguments)
            except Exception as error:  # raised by `show`
                self._error = self._error or error
                return False

        return guarded

    def _post(self, job: Callable[[], None]) -> None:
        self._is_posted = True
        self._app.post_to_main_thread(self._window, self._safely(job))

    def _is_due(self) -> bool:
        """True if the last redraw is long enough ago, measured by what it has cost."""
        work_s = self.renderer.seconds() - self._work_s if self.feed.is_live else 0.0
        return time.monotonic() - self._redrawn_s >= max(REDRAW_PERIOD_S, (1 + REST_RATIO) * work_s)

    def _has_news(self) -> bool:
        for note in self._saver.results():
            self.note = note
        return (
            self.clouds.is_busy or self._drawn is None or self._drawn != (self.feed.shown(), self.controls, self.note)
        )

    def refresh(self) -> None:
        """Draw what the feed has and the controls say."""
        self._is_posted = False
        shown, controls = self.feed.shown(), self.controls
        before = self._drawn[:2] if self._drawn is not None else (None, None)
        changed = self.clouds.update(shown, controls.min_confidence)
        self._painter.draw_points(shown, self.clouds.points, changed, controls.point_size)
        for i in changed:
            points = self.clouds.points[i].cloud.points
            self._reach = max(self._reach, float(np.linalg.norm(points, axis=1).max(initial=0.0)))
        if before != (shown, controls):
            self._painter.draw_lines(shown, controls)
            self._update_panel(shown, controls)
        if shown.keyframes:
            self._point_camera(shown, controls)
        self._status.text = f"{shown.words}\n{self.note}"
        self._window.set_needs_layout()
        self._drawn = (shown, controls, self.note)

    def _update_panel(self, shown: ViewState, controls: Controls) -> None:
        self._images = [*self._images[-1:], o3d.geometry.Image(panel_image(shown))]  # kept: read after this returns
        self._panel_image.update_image(self._images[-1])
        self._settings.text = f"confidence from {controls.min_confidence:.1f}, points {controls.point_size} px"
        self._help.visible = controls.shows_help
        for number, key in enumerate(KEYS):
            if key.switch is not None:
                self._app.menubar.set_checked(number, getattr(controls, key.switch))

    def _point_camera(self, shown: ViewState, controls: Controls) -> None:
        """Follow the camera, or keep the view; make room for what has grown."""
        positions = np.concatenate([poses(shown.keyframes)[:, :3, 3], shown.path])
        reach = max(self._reach, self._painter.median_depth)
        low, high = positions.min(0) - reach, positions.max(0) + reach
        is_first, view = self._bounds is None, self._view()
        if self._bounds is None or (low < self._bounds[0]).any() or (high > self._bounds[1]).any():
            room = (BOUNDS_MARGIN - 1) / 2 * (high - low)
            self._bounds = low - room, high + room
            box = o3d.geometry.AxisAlignedBoundingBox(*self._bounds)
            self._scene.setup_camera(FIELD_OF_VIEW_DEG, box, box.get_center())  # near and far; it moves the camera too
            self._look(overview(shown) if is_first else view)
        if controls.follows and shown.T_wc is not None:
            self._look(behind(shown.T_wc, FOLLOW_RATIO * self._painter.median_depth))

    def _view(self) -> Viewpoint:
        T = np.asarray(self._scene.scene.camera.get_model_matrix(), dtype=np.float64)  # z backward, y up
        return Viewpoint(T[:3, 3], T[:3, 3] - T[:3, 2] * max(self._painter.median_depth, 1e-3), T[:3, 1])

    def _look(self, view: Viewpoint) -> None:
        self._scene.look_at(view.center, view.eye, view.up)

    def _build(self) -> None:
        em = self._window.theme.font_size
        self._scene = gui.SceneWidget()
        self._scene.scene = rendering.Open3DScene(self._window.renderer)
        self._painter = Painter(self._scene.scene)
        if self.feed.is_live:
            self._scene.scene.view.set_antialiasing(False)  # a third of the time of a software renderer
        self._panel: Any = gui.Vert(0.3 * em, gui.Margins(0.5 * em, 0.5 * em, 0.5 * em, 0.5 * em))
        self._status, self._settings = gui.Label(""), gui.Label("")
        self._panel.add_child(self._status)
        self._panel.add_child(self._settings)
        self._panel.add_child(gui.Label("image, depth, confidence"))
        self._images = [o3d.geometry.Image(np.zeros_like(panel_image(self.feed.shown())))]
        self._panel_image: Any = gui.ImageWidget(self._images[0])  # one: several widgets mix up their images
        self._panel.add_child(self._panel_image)
        self._help: Any = gui.Vert(0, gui.Margins(em, em, em, em))  # over the map
        self._help.background_color = gui.Color(0, 0, 0, 0.7)
        self._help.add_child(gui.Label(HELP))
        self._help.visible = False
        for widget in (self._scene, self._panel, self._help):
            self._window.add_child(widget)
        self._build_menu()
        self._scene.set_on_mouse(self._safely(self._on_mouse))
        self._window.set_on_layout(self._safely(self._lay_out))
        self._window.set_on_key(self._safely(self._on_key))

    def _build_menu(self) -> None:
        menus: dict[str, Any] = {}
        for number, key in enumerate(KEYS):
            menus.setdefault(key.menu, gui.Menu()).add_item(f"{key.name}  {key.words}", number)
        bar = gui.Menu()
        for name, menu in menus.items():
            bar.add_menu(name, menu)
        self._app.menubar = bar
        for number, key in enumerate(KEYS):
            act = self._safely(lambda character=key.character: self._press(character))
            self._window.set_on_menu_item_activated(number, act)

    def _lay_out(self, context: gui.LayoutContext) -> None:
        area = self._window.content_rect
        width = min(int(PANEL_EM * self._window.theme.font_size), area.width // 2)
        self._scene.frame = gui.Rect(area.x, area.y, area.width - width, area.height)
        self._panel.frame = gui.Rect(area.get_right() - width, area.y, width, area.height)
        size = self._help.calc_preferred_size(context, gui.Widget.Constraints())
        self._help.frame = gui.Rect(area.x, area.y, size.width, size.height)

    def _on_key(self, event: gui.KeyEvent) -> bool:
        """Act on a key; True if it was one of ours."""
        character = CHARACTERS.get(int(event.key))
        if character is not None and event.type == gui.KeyEvent.Type.DOWN:
            self._press(character)
        return character is not None

    def _on_mouse(self, event: gui.MouseEvent) -> gui.Widget.EventCallbackResult:
        """Whoever turns the view does not want to follow any longer."""
        if event.type in (gui.MouseEvent.Type.DRAG, gui.MouseEvent.Type.WHEEL):
            self.controls = replace(self.controls, follows=False)
        return gui.Widget.EventCallbackResult.IGNORED

    def _press(self, character: str) -> None:
        self.controls, command = pressed(self.controls, character)
        self._work_s = self.renderer.seconds()  # whoever presses a key is not kept waiting
        if command is Command.PLAY:
            self.feed.play()
        elif command is Command.STEP:
            self.feed.step()
        elif command is Command.QUIT:
            self._window.close()
        elif command is Command.RESET_VIEW:
            self.controls = replace(self.controls, follows=False)
            self._post(self._reset)
        elif command is Command.SAVE_CLOUD:
            self.note = self._saver.save_cloud(self.feed.shown(), self.controls.min_confidence)
        elif command is Command.SAVE_SCREENSHOT:
            self._scene.scene.scene.render_to_image(self._safely(self._save_screenshot))

    def _reset(self) -> None:
        self._is_posted = False
        shown = self.feed.shown()
        if shown.keyframes:
            self._look(overview(shown))

    def _save_screenshot(self, image: o3d.geometry.Image) -> None:
        self.note = self._saver.save_image(np.array(image)[..., :3].copy())

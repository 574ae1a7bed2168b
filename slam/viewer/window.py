"""The window that shows a run: the map, and a panel with the current keyframe. It owns the main thread.

Open3D must be told everything from callbacks that it runs itself (`post_to_main_thread`), and not too often: what is
posted on every tick of its loop swamps it.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open3d as o3d
from open3d.visualization import gui, rendering

from slam.errors import OutputError
from slam.io.images import write_color
from slam.io.ply import write_ply
from slam.viewer.controls import HELP, Command, Controls, pressed
from slam.viewer.driver import check_display, check_driver
from slam.viewer.painter import Painter
from slam.viewer.run import ViewedKeyframe, ViewedRun
from slam.viewer.shapes import Viewpoint, behind, overview

log = logging.getLogger(__name__)

FIELD_OF_VIEW_DEG = 60.0
REDRAW_PERIOD_S = 0.1
PLAY_PERIOD_S = 0.25  # a keyframe, when played
FOLLOW_RATIO = 0.5  # distance behind the followed camera, times the median depth
PANEL_EM = 20.0  # width of the panel, in heights of its letters
SPECIAL_KEYS = {gui.KeyName.SPACE: " ", gui.KeyName.PLUS: "+", gui.KeyName.EQUALS: "=", gui.KeyName.MINUS: "-"}
BRACKETS = {gui.KeyName.LEFT_BRACKET: "[", gui.KeyName.RIGHT_BRACKET: "]"}
LETTERS = {getattr(gui.KeyName, letter): letter.lower() for letter in "NFKGTPSRHQ"}
CHARACTERS = {int(key): character for key, character in (SPECIAL_KEYS | BRACKETS | LETTERS).items()}


class Window:
    """One window on one run; `show` returns when it is closed."""

    def __init__(self, run: ViewedRun, width: int = 1280, height: int = 800) -> None:
        """Open the window.

        Raises:
            ViewerError: if there is no display or no graphics driver.
        """
        check_display()
        check_driver()
        self.run = run
        self.controls = Controls(len(run.keyframes), len(run.keyframes))
        self.note = ""
        self._app = gui.Application.instance
        self._app.initialize()
        self._window = self._app.create_window(f"v2d-view {run.path}", width, height)
        self._scene = gui.SceneWidget()
        self._scene.scene = rendering.Open3DScene(self._window.renderer)
        self._painter = Painter(self._scene.scene, run)
        self._median_depth = run.median_depth()
        self._drawn: tuple[Controls, str] | None = None
        self._redrawn_s = self._played_s = time.monotonic()
        self._is_posted = False  # a callback is under way
        self._build_panel()
        self._window.add_child(self._scene)
        self._window.add_child(self._panel)
        self._window.add_child(self._help)
        self._window.set_on_layout(self._lay_out)
        self._window.set_on_key(self._on_key)

    def show(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Run the loop until the window is closed.

        Args:
            stopped: asked many times a second; the window is closed when it says so.
        """
        self._post(self._begin)
        while self._app.run_one_tick():
            if stopped():
                self._window.close()
                continue
            now_s = time.monotonic()
            if self.controls.is_playing and now_s - self._played_s >= PLAY_PERIOD_S:
                self._played_s = now_s
                self.controls = self.controls.advanced()
            is_due = now_s - self._redrawn_s >= REDRAW_PERIOD_S
            if is_due and not self._is_posted and self._drawn != (self.controls, self.note):
                self._redrawn_s = now_s
                self._post(self._refresh)

    def _post(self, job: Callable[[], None]) -> None:
        self._is_posted = True
        self._app.post_to_main_thread(self._window, job)

    def _begin(self) -> None:
        self._refresh()
        bounds = self._scene.scene.bounding_box
        self._scene.setup_camera(FIELD_OF_VIEW_DEG, bounds, bounds.get_center())  # near and far, from the geometry
        self._look(overview(self.run))

    def _refresh(self) -> None:
        """Draw what the controls say."""
        self._is_posted = False
        controls, before = self.controls, self._drawn
        self._painter.draw(controls)
        keyframe = self.run.keyframes[controls.shown - 1]
        if before is None or before[0].shown != controls.shown:
            for widget, pixels in zip(self._pictures, pictures(keyframe), strict=True):
                widget.update_image(o3d.geometry.Image(pixels))
        if controls.follows:
            self._look(behind(keyframe.T_wc, FOLLOW_RATIO * self._median_depth))
        self._status.text = status_words(self.run, controls, self.note)
        self._help.visible = controls.shows_help
        self._window.set_needs_layout()
        self._drawn = (controls, self.note)

    def _look(self, view: Viewpoint) -> None:
        self._scene.look_at(view.center, view.eye, view.up)

    def _build_panel(self) -> None:
        em = self._window.theme.font_size
        self._panel = gui.Vert(0.4 * em, gui.Margins(0.5 * em, 0.5 * em, 0.5 * em, 0.5 * em))
        self._pictures = []
        for title, pixels in zip(("image", "depth", "confidence"), pictures(self.run.keyframes[-1]), strict=True):
            self._pictures.append(gui.ImageWidget(o3d.geometry.Image(pixels)))
            self._panel.add_child(gui.Label(title))
            self._panel.add_child(self._pictures[-1])
        self._status = gui.Label("")
        self._panel.add_child(self._status)
        self._help = gui.Vert(0, gui.Margins(em, em, em, em))  # over the map
        self._help.background_color = gui.Color(0, 0, 0, 0.7)
        self._help.add_child(gui.Label(HELP))
        self._help.visible = False

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
        if character is None:
            return False
        if event.type == gui.KeyEvent.Type.DOWN:
            self.controls, command = pressed(self.controls, character)
            if command is not None:
                self._obey(command)
        return True

    def _obey(self, command: Command) -> None:
        if command is Command.QUIT:
            self._window.close()
        elif command is Command.RESET_VIEW:
            self._post(self._reset)
        elif command is Command.SAVE_CLOUD:
            path = free_path(self.run.path, "view", ".ply")
            cloud = self.run.cloud(self.controls.min_confidence, self.controls.shown)
            self._save(path, lambda: write_ply(path, cloud))
        elif command is Command.SAVE_SCREENSHOT:
            self._scene.scene.scene.render_to_image(self._save_screenshot)

    def _reset(self) -> None:
        self._is_posted = False
        self._look(overview(self.run))

    def _save_screenshot(self, image: o3d.geometry.Image) -> None:
        path = free_path(self.run.path, "view", ".png")
        pixels = np.ascontiguousarray(np.asarray(image)[..., :3])
        self._save(path, lambda: write_color(path, pixels))

    def _save(self, path: Path, writer: Callable[[], None]) -> None:
        """Write a file; a refusal is shown and the window stays."""
        try:
            writer()
        except OutputError as error:
            self.note = str(error)
            log.error("%s", error)
        else:
            self.note = f"saved {path.name}"
            log.info("wrote %s", path)


def pictures(keyframe: ViewedKeyframe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, depth and confidence of a keyframe, each (h, w, 3) uint8 RGB."""
    return keyframe.image, keyframe.depth_picture(), keyframe.confidence_picture()


def status_words(run: ViewedRun, controls: Controls, note: str) -> str:
    """The text below the pictures."""
    keyframe = run.keyframes[controls.shown - 1]
    mode = "playing" if controls.is_playing else "paused" if controls.shown < controls.total else "all shown"
    lines = [
        f"keyframe {controls.shown} of {controls.total}, {mode}",
        f"time {(keyframe.time_ns - run.keyframes[0].time_ns) / 1e9:.2f} s",
        f"frames with a pose {len(run.trajectory)}",
        f"confidence from {controls.min_confidence:.1f}, points {controls.point_size} px",
        note or "H: help",
    ]
    return "\n".join(lines)


def free_path(folder: Path, stem: str, suffix: str) -> Path:
    """`stem_001` and so on: the first name that is not taken."""
    number = 1
    while (path := folder / f"{stem}_{number:03d}{suffix}").exists():
        number += 1
    return path

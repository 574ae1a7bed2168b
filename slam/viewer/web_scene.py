"""Draws a run into the scene of a page (viser), which all browsers share.

One geometry per keyframe, in its camera frame and placed by a transform: what does not change is not sent again.
"""

import numpy as np
import viser

from slam.io.quaternion import quat_xyzw_from_matrix
from slam.viewer.clouds import KeyframePoints
from slam.viewer.controls import Controls
from slam.viewer.shapes import Lines, drawings, median_depth
from slam.viewer.view_state import ViewState

LINE_WIDTH_PX = 2.0
PIXEL_RATIO = 1 / 800  # size of a pixel at the median depth, times that: a page is about so many pixels high


class WebScene:
    """Keeps the scene up to date; used by one thread."""

    def __init__(self, scene: viser.SceneApi) -> None:
        self.median_depth = 0.0  # of the first keyframes seen; 0 until then
        self._scene = scene
        self._clouds: dict[int, viser.PointCloudHandle] = {}
        self._lines: dict[str, viser.LineSegmentsHandle] = {}
        scene.set_up_direction("-y")  # of the first camera

    def draw(self, shown: ViewState, controls: Controls, points: dict[int, KeyframePoints], changed: set[int]) -> None:
        """Bring points, cameras, trajectory and graph up to date; points are sent where `changed`, else only placed."""
        if not shown.keyframes:
            return
        self.median_depth = self.median_depth or median_depth(shown.keyframes)
        for i in changed:
            self._send(i, points.get(i))
        drawn = {keyframe.id: keyframe for keyframe in shown.drawn}
        for i, handle in self._clouds.items():
            handle.visible = i in drawn
            if i in drawn:
                T_wc = drawn[i].T_wc.numpy()
                x, y, z, w = quat_xyzw_from_matrix(T_wc[None, :3, :3])[0]
                handle.wxyz, handle.position = (w, x, y, z), T_wc[:3, 3]
                handle.scale = points[i].stretch(drawn[i])
                handle.point_size = controls.point_size * PIXEL_RATIO * self.median_depth
        for name, (lines, color) in drawings(shown, controls, self.median_depth).items():
            self._draw_lines(name, lines, color)

    def _send(self, i: int, found: KeyframePoints | None) -> None:
        """Points in the place of those that the keyframe had."""
        if i in self._clouds:
            self._clouds.pop(i).remove()
        if found is not None and len(found.cloud):
            assert found.cloud.colors is not None
            self._clouds[i] = self._scene.add_point_cloud(
                f"/clouds/{i}",
                found.cloud.points,
                found.cloud.colors,
                precision="float32",  # the unit of a map may be anything
                point_shading="flat",
            )

    def _draw_lines(self, name: str, lines: Lines, color: tuple[float, float, float]) -> None:
        segments = lines.points[lines.edges].astype(np.float32)  # (M, 2, 3)
        if name in self._lines:
            self._lines[name].visible = len(segments) > 0
            if len(segments):
                self._lines[name].points = segments
        elif len(segments):
            self._lines[name] = self._scene.add_line_segments(
                f"/{name}", segments, color, thickness=LINE_WIDTH_PX, thickness_units="screen"
            )

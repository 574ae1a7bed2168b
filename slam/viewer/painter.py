"""Draws a run into an Open3D scene, in a window and off screen alike.

One geometry per keyframe, in its camera frame and placed by a transform: what does not change is not sent again.
"""

from typing import Any

import numpy as np
import open3d as o3d
from open3d.visualization import rendering

from slam.frames import Keyframe
from slam.io.ply import PointCloud
from slam.viewer.clouds import KeyframePoints
from slam.viewer.controls import Controls
from slam.viewer.shapes import Lines, drawings, median_depth
from slam.viewer.view_state import ViewState

BACKGROUND = (0.07, 0.08, 0.10, 1.0)
LINE_WIDTH_PX = 2.0
NO_POINTS = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
SCREEN_GAMMA = 2.2  # the renderer takes colours of lines as linear light


class Painter:
    """Keeps an Open3D scene up to date; call it on the thread that owns the scene."""

    def __init__(self, scene: rendering.Open3DScene) -> None:
        self.scene = scene
        self.median_depth = 0.0  # of the first keyframes seen; 0 until then
        self._placed: dict[int, Keyframe] = {}  # clouds that are shown, as they were placed
        self._point_size = Controls.point_size
        scene.set_background(BACKGROUND)
        scene.show_skybox(False)
        scene.scene.enable_sun_light(False)
        scene.scene.enable_indirect_light(False)
        scene.view.set_ambient_occlusion(False)
        scene.view.set_shadowing(False)
        quality, mapping = rendering.ColorGrading.Quality.HIGH, rendering.ColorGrading.ToneMapping.LINEAR
        scene.view.set_color_grading(rendering.ColorGrading(quality, mapping))  # colours as they are in the images

    def draw_points(
        self, shown: ViewState, points: dict[int, KeyframePoints], changed: set[int], point_size: int
    ) -> None:
        """Bring the keyframes' points up to date: sent where `changed`, else only moved or hidden."""
        drawn = {keyframe.id: keyframe for keyframe in shown.drawn}
        if point_size != self._point_size:
            self._point_size = point_size
            for i in points:
                if self.scene.has_geometry(f"cloud {i}"):
                    self.scene.modify_geometry_material(f"cloud {i}", point_material(point_size))
        for i in changed:
            self._placed.pop(i, None)
            self.draw_cloud(f"cloud {i}", points[i].cloud if i in points else NO_POINTS)
            if i not in drawn and self.scene.has_geometry(f"cloud {i}"):
                self.scene.show_geometry(f"cloud {i}", False)
        for i in points:
            before, now = self._placed.get(i), drawn.get(i)
            if before is now or not self.scene.has_geometry(f"cloud {i}"):
                continue
            self.scene.show_geometry(f"cloud {i}", now is not None)
            if now is None:
                del self._placed[i]
            else:
                self.scene.set_geometry_transform(f"cloud {i}", T_w_cloud(now, points[i]))
                self._placed[i] = now

    def draw_cloud(self, name: str, cloud: PointCloud) -> None:
        """Send points, in the place of those of the same name."""
        if self.scene.has_geometry(name):
            self.scene.remove_geometry(name)
        if len(cloud) == 0:
            return
        points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.points.astype(np.float64)))
        if cloud.colors is not None:
            points.colors = o3d.utility.Vector3dVector(cloud.colors / 255.0)
        self.scene.add_geometry(name, points, point_material(self._point_size))

    def draw_lines(self, shown: ViewState, controls: Controls) -> None:
        """Cameras, trajectory and graph: few lines, sent anew at each change."""
        if not shown.keyframes:
            return
        self.median_depth = self.median_depth or median_depth(shown.keyframes)
        for name, (lines, color) in drawings(shown, controls, self.median_depth).items():
            self._draw(name, lines, color)

    def _draw(self, name: str, lines: Lines, color: tuple[float, float, float]) -> None:
        if self.scene.has_geometry(name):
            self.scene.remove_geometry(name)
        if len(lines.edges) == 0:
            return
        line_set = o3d.geometry.LineSet(
            o3d.utility.Vector3dVector(lines.points), o3d.utility.Vector2iVector(lines.edges.astype(np.int32))
        )
        line_set.paint_uniform_color(np.array(color) ** SCREEN_GAMMA)
        material = rendering.MaterialRecord()
        material.shader = "unlitLine"
        material.line_width = LINE_WIDTH_PX
        self.scene.add_geometry(name, line_set, material)


def T_w_cloud(keyframe: Keyframe, cloud: KeyframePoints) -> np.ndarray:
    """(4, 4) world from points: the keyframe's pose, and its depth's change of scale since they were made."""
    stretch = cloud.stretch(keyframe)
    return keyframe.T_wc.numpy() @ np.diag([stretch, stretch, stretch, 1.0])


def point_material(size_px: int) -> Any:
    """Points in their own colours."""
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    material.point_size = float(size_px)
    material.sRGB_color = True  # as images have them, not linear light
    return material

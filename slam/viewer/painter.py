"""Draws a run into an Open3D scene, in a window and off screen alike.

One geometry per keyframe, in its camera frame and placed by a transform: what does not change is not sent again.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import open3d as o3d
from open3d.visualization import rendering

from slam.io.ply import PointCloud
from slam.viewer.controls import Controls
from slam.viewer.run import ViewedRun
from slam.viewer.shapes import Lines, frustum, graph, path

BACKGROUND = (0.07, 0.08, 0.10, 1.0)
FRUSTUM_COLOR = (0.35, 0.75, 1.0)
CURRENT_COLOR = (1.0, 0.85, 0.2)
PATH_COLOR = (1.0, 0.25, 0.25)
GRAPH_COLOR = (0.4, 1.0, 0.5)
LINE_WIDTH_PX = 2.0
SCREEN_GAMMA = 2.2  # the renderer takes colours of lines as linear light
FRUSTUM_RATIO = 0.07  # length of a frustum, times the median depth


class Painter:
    """Keeps an Open3D scene like the controls say; call it on the thread that owns the scene."""

    def __init__(self, scene: rendering.Open3DScene, run: ViewedRun, fused: PointCloud | None = None) -> None:
        """Prepare the scene.

        Args:
            fused: drawn instead of the keyframes' own points.
        """
        self.scene = scene
        self.run = run
        self.fused = fused
        self._size = FRUSTUM_RATIO * run.median_depth()
        self._clouds: set[str] = set()  # keyframes without any point have none
        self._drawn: Controls | None = None
        scene.set_background(BACKGROUND)
        scene.show_skybox(False)
        scene.scene.enable_sun_light(False)
        scene.scene.enable_indirect_light(False)
        scene.view.set_ambient_occlusion(False)
        scene.view.set_shadowing(False)
        quality, mapping = rendering.ColorGrading.Quality.HIGH, rendering.ColorGrading.ToneMapping.LINEAR
        scene.view.set_color_grading(rendering.ColorGrading(quality, mapping))  # colours as they are in the pictures

    def draw(self, controls: Controls) -> None:
        """Bring the scene up to date with the controls."""
        before = self._drawn
        if before is None or before.min_confidence != controls.min_confidence:
            self._add_clouds(controls)
        if before is None:
            self._add_frusta()
        if before is not None and before.point_size != controls.point_size:
            for name in self._clouds:
                self.scene.modify_geometry_material(name, point_material(controls.point_size))
        if before is None or replace(before, is_playing=False) != replace(controls, is_playing=False):
            self._show(controls)
            self._add_lines(controls)
        self._drawn = controls

    def _add_clouds(self, controls: Controls) -> None:
        for name in self._clouds:
            self.scene.remove_geometry(name)
        self._clouds.clear()
        material = point_material(controls.point_size)
        if self.fused is not None:
            self._add_cloud("cloud", self.fused, np.eye(4), material)
            return
        for keyframe in self.run.keyframes:
            cloud = keyframe.cloud(controls.min_confidence, self.run.stride)
            self._add_cloud(f"cloud {keyframe.id}", cloud, keyframe.T_wc, material)

    def _add_cloud(self, name: str, cloud: PointCloud, T_wc: np.ndarray, material: Any) -> None:
        if len(cloud) == 0:
            return
        points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.points.astype(np.float64)))
        if cloud.colors is not None:
            points.colors = o3d.utility.Vector3dVector(cloud.colors / 255.0)
        self.scene.add_geometry(name, points, material)
        self.scene.set_geometry_transform(name, T_wc)
        self._clouds.add(name)

    def _add_frusta(self) -> None:
        for keyframe in self.run.keyframes:
            name = f"frustum {keyframe.id}"
            self._add_line_set(name, frustum(keyframe, self._size), FRUSTUM_COLOR)
            self.scene.set_geometry_transform(name, keyframe.T_wc)

    def _show(self, controls: Controls) -> None:
        for n, keyframe in enumerate(self.run.keyframes):
            is_shown = n < controls.shown
            if f"cloud {keyframe.id}" in self._clouds:
                self.scene.show_geometry(f"cloud {keyframe.id}", is_shown)
            self.scene.show_geometry(f"frustum {keyframe.id}", is_shown and controls.shows_keyframes)

    def _add_lines(self, controls: Controls) -> None:
        """Trajectory, graph and the current keyframe: few lines, sent anew at each change."""
        shown = self.run.keyframes[: controls.shown]
        current, trajectory = shown[-1], self.run.trajectory
        until_ns = trajectory.time_ns[-1] if controls.shown == controls.total else current.time_ns
        positions = trajectory.T_wc[trajectory.time_ns <= until_ns, :3, 3]
        nothing = Lines(np.zeros((0, 3)), np.zeros((0, 2), dtype=np.int64))
        self._add_line_set("trajectory", path(positions) if controls.shows_trajectory else nothing, PATH_COLOR)
        self._add_line_set("graph", graph(shown) if controls.shows_graph else nothing, GRAPH_COLOR)
        self._add_line_set("current", frustum(current, 1.3 * self._size), CURRENT_COLOR)
        self.scene.set_geometry_transform("current", current.T_wc)

    def _add_line_set(self, name: str, lines: Lines, color: tuple[float, float, float]) -> None:
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


def point_material(size_px: int) -> Any:
    """Points in their own colours."""
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    material.point_size = float(size_px)
    material.sRGB_color = True  # as pictures have them, not linear light
    return material

"""An image of a finished run, without display or window (Vulkan; a software driver will do)."""

import numpy as np
from open3d.visualization import rendering

from slam.viewer.controls import Controls
from slam.viewer.driver import check_driver
from slam.viewer.painter import Painter
from slam.viewer.run import FinishedRun
from slam.viewer.shapes import Viewpoint, overview

FIELD_OF_VIEW_DEG = 60.0


def render(run: FinishedRun, width: int = 1280, height: int = 800, viewpoint: Viewpoint | None = None) -> np.ndarray:
    """The fused map, all keyframes and the trajectory.

    Args:
        viewpoint: from where; None for an overview from behind the cameras.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        SourceError: if the run has no map.
        ViewerError: if there is no Vulkan driver.
    """
    fused = run.fused_cloud()
    check_driver()
    renderer = rendering.OffscreenRenderer(width, height)
    shown = run.until(len(run.keyframes), "")
    painter = Painter(renderer.scene)
    painter.draw_cloud("map", fused)
    painter.draw_lines(shown, Controls(shows_graph=True))
    view = viewpoint or overview(shown)
    renderer.setup_camera(FIELD_OF_VIEW_DEG, view.center, view.eye, view.up)  # after the geometry: near and far
    return np.ascontiguousarray(np.asarray(renderer.render_to_image())[..., :3])

"""Real-time dense monocular SLAM: video to depth with differentiable structure from motion.

The names below are the library; they are loaded when they are first used, so that `import slam` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slam.build import build_slam
    from slam.config import SlamConfig, load_config
    from slam.errors import SlamError
    from slam.experiment import run_and_score
    from slam.frames import Estimate, Frame, Keyframe, Status, Trajectory, View
    from slam.geometry.camera import Camera
    from slam.inv_depth import InvDepth
    from slam.io.calibration import read_calibration
    from slam.io.map_file import load_map, save_map
    from slam.io.ply import PointCloud, write_ply
    from slam.io.run import Run
    from slam.io.trajectory import write_tum
    from slam.mapping.fusion import FusionConfig, fused_cloud
    from slam.mapping.store import KeyframeStore
    from slam.sources import SourceSpec, open_source
    from slam.system import Slam
    from slam.viewer.notebook import run_figure, web_view

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Estimate",
    "Frame",
    "FusionConfig",
    "InvDepth",
    "Keyframe",
    "KeyframeStore",
    "PointCloud",
    "Run",
    "Slam",
    "SlamConfig",
    "SlamError",
    "SourceSpec",
    "Status",
    "Trajectory",
    "View",
    "build_slam",
    "fused_cloud",
    "load_config",
    "load_map",
    "open_source",
    "read_calibration",
    "run_and_score",
    "run_figure",
    "save_map",
    "web_view",
    "write_ply",
    "write_tum",
]

_HOMES = {
    "slam.build": ("build_slam",),
    "slam.config": ("SlamConfig", "load_config"),
    "slam.errors": ("SlamError",),
    "slam.experiment": ("run_and_score",),
    "slam.frames": ("Estimate", "Frame", "Keyframe", "Status", "Trajectory", "View"),
    "slam.geometry.camera": ("Camera",),
    "slam.inv_depth": ("InvDepth",),
    "slam.io.calibration": ("read_calibration",),
    "slam.io.map_file": ("load_map", "save_map"),
    "slam.io.ply": ("PointCloud", "write_ply"),
    "slam.io.run": ("Run",),
    "slam.io.trajectory": ("write_tum",),
    "slam.mapping.fusion": ("FusionConfig", "fused_cloud"),
    "slam.mapping.store": ("KeyframeStore",),
    "slam.sources": ("SourceSpec", "open_source"),
    "slam.system": ("Slam",),
    "slam.viewer.notebook": ("run_figure", "web_view"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'slam' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

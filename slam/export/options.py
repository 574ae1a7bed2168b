"""What a user may say of an export."""

import math
from dataclasses import dataclass

from slam.errors import UsageError
from slam.io.images import DEPTH_SCALE
from slam.mapping.fusion import FusionConfig

FORMATS = ("ply", "glb", "obj")
MIN_SIZE = 16


@dataclass(frozen=True)
class ExportOptions:
    """Settings of all targets."""

    format: str = "ply"  # of the mesh
    voxel: float | None = None  # side, map units; None: by the depth
    max_size: int | None = None  # longer side of full-size pictures, pixels; None: as they are
    depth_scale: float = DEPTH_SCALE  # value of one map unit in 16-bit depth
    fusion: FusionConfig = FusionConfig()
    conventions: tuple[str, ...] = ()  # units and axes in words, for every file that can hold them

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"--format is one of {', '.join(FORMATS)}, got {self.format}")
        if self.voxel is not None and not 0 < self.voxel < math.inf:
            raise UsageError(f"--voxel is the side of a voxel in map units, above 0, got {self.voxel:g}")
        if self.max_size is not None and self.max_size < MIN_SIZE:
            raise UsageError(f"--max-size is the longer side in pixels, at least {MIN_SIZE}, got {self.max_size}")
        if not 0 < self.depth_scale < math.inf:
            raise UsageError(f"--depth-scale is the value of one map unit, above 0, got {self.depth_scale:g}")

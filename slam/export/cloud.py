"""The fused cloud: one point with colour and normal for each voxel, the mean of what falls into it."""

from dataclasses import replace
from pathlib import Path

from slam.errors import SourceError
from slam.export.keyframes import KeyframesOnDisk, typical_depth
from slam.export.options import ExportOptions
from slam.io.ply import PointCloud, write_ply
from slam.io.run import Run
from slam.mapping.fusion import FusionConfig, fused_cloud

FILE = "cloud.ply"


def fused(run: Run, options: ExportOptions, ratio: float = FusionConfig.voxel_ratio) -> PointCloud:
    """The cloud of a run, world frame.

    Args:
        ratio: side of a voxel, times the median depth, unless the options name the side.

    Raises:
        SourceError: if the map is empty or damaged.
        UsageError: if the voxels are too small for the map.
    """
    cloud = fused_cloud(KeyframesOnDisk(run), replace(options.fusion, voxel_ratio=ratio), options.voxel)
    if not len(cloud):
        typical_depth(run, options.fusion)  # raises where no depth is confident
        raise SourceError(f"the map of {run.path} is empty: no two keyframes agree on any point of it")
    return cloud


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`cloud.ply`."""
    cloud = fused(run, options)
    write_ply(folder / FILE, cloud, tuple(options.conventions))
    return f"{len(cloud)} points"

"""The dense map: points that several keyframes agree on.

A pixel enters the map if its confidence passes and enough other keyframes see a surface at the same depth there:
`|z - z'| / (z + z') < 0.05`, the depth inconsistency of Bian et al., SC-Depth, IJCV 2021.
"""

from dataclasses import dataclass

import numpy as np

from slam.errors import check_range
from slam.frames import Keyframe
from slam.geometry import se3
from slam.io.ply import PointCloud
from slam.kernels.depth_votes import depth_votes


@dataclass(frozen=True)
class FusionConfig:
    """What enters the map."""

    min_confidence: float = 0.5
    min_agreeing: int = 2  # other keyframes; fewer where fewer exist
    max_inconsistency: float = 0.05  # |z - z'| / (z + z')
    neighbours: int = 6  # keyframes asked, nearest in time
    stride: int = 2  # pixels of the network size between points
    voxel_ratio: float = 0.004  # side of a voxel of the fused cloud, times the median depth

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "min_confidence", "max_inconsistency")
        check_range(self, 0, 1000, "min_agreeing")
        check_range(self, 1, 1000, "neighbours", "stride")
        check_range(self, 1e-4, 1, "voxel_ratio")


def agreement(keyframe: Keyframe, others: list[Keyframe], config: FusionConfig = FusionConfig()) -> np.ndarray:
    """(h, w) int32: how many of the other keyframes confirm each pixel's depth."""
    inv_depth = keyframe.dense.value
    T_jk = [se3.inverse(other.T_wc) @ keyframe.T_wc for other in others]
    theirs = [other.dense.value.to(inv_depth.device) for other in others]
    return depth_votes(inv_depth, T_jk, keyframe.view.K, theirs, config.max_inconsistency).cpu().numpy()


def keyframe_cloud(keyframe: Keyframe, others: list[Keyframe], config: FusionConfig = FusionConfig()) -> PointCloud:
    """The confirmed points of one keyframe, in its camera frame."""
    enough = min(config.min_agreeing, len(others))
    dense = keyframe.dense.on_host()
    known = dense.known.numpy() & (dense.confidence.numpy() >= config.min_confidence)
    good = known & (agreement(keyframe, others, config) >= enough)
    v, u = (a * config.stride for a in np.nonzero(good[:: config.stride, :: config.stride]))
    K, z = keyframe.view.K.numpy(), 1 / dense.value.numpy()[v, u]
    points = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], -1)
    return PointCloud(points.astype(np.float32), keyframe.view.image.rgb[v, u])


def nearest_keyframes(keyframes: tuple[Keyframe, ...], index: int, count: int) -> list[Keyframe]:
    """The `count` keyframes nearest in order to the one at `index`, without it."""
    order = sorted(range(len(keyframes)), key=lambda n: (abs(n - index), n))
    return [keyframes[n] for n in order[1 : count + 1]]


def fused_cloud(keyframes: tuple[Keyframe, ...], config: FusionConfig = FusionConfig()) -> PointCloud:
    """The points of all keyframes in the world frame, one in each voxel."""
    points, colors, depths = [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.uint8)], [np.zeros(0, np.float32)]
    for n, keyframe in enumerate(keyframes):
        cloud = keyframe_cloud(keyframe, nearest_keyframes(keyframes, n, config.neighbours), config)
        assert cloud.colors is not None
        T_wc = keyframe.T_wc.numpy()
        points.append((cloud.points @ T_wc[:3, :3].T + T_wc[:3, 3]).astype(np.float32))
        colors.append(cloud.colors)
        depths.append(cloud.points[:, 2])
    p, c, z = np.concatenate(points), np.concatenate(colors), np.concatenate(depths)
    if len(p) == 0:
        return PointCloud(p, c)
    first = first_in_voxels(p, config.voxel_ratio * float(np.median(z)))
    return PointCloud(p[first], c[first])


def first_in_voxels(points: np.ndarray, side: float) -> np.ndarray:
    """Indices, increasing, of the first of the points (N, 3) in each voxel of a side."""
    voxel = np.floor(points / side).astype(np.int64)
    return np.sort(np.unique(voxel, axis=0, return_index=True)[1])

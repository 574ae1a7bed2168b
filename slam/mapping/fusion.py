"""The dense map: points that several keyframes agree on.

A pixel enters the map if its confidence passes, if it lies on no occlusion edge, and if enough other keyframes see a
surface at the same depth there: `|z - z'| / (z + z') < 0.03`, the depth inconsistency of Bian et al., SC-Depth, IJCV
2021. Its depth is then the mean of all that agree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from slam.errors import check_range
from slam.frames import Keyframe
from slam.geometry import se3
from slam.io.ply import PointCloud
from slam.kernels.depth_agreement import depth_agreement
from slam.mapping.voxels import VoxelMeans

BEND = 0.04  # of the inverse depth: a plane has none, an occlusion edge has more
STEPS = (1, 2)  # pixels between those compared: edges of networks are up to four wide
PROBED, PROBED_STRIDE = 64, 4  # keyframes, and pixels of them, whose median depth is taken


@dataclass(frozen=True)
class FusionConfig:
    """What enters the map."""

    min_confidence: float = 0.5
    min_agreeing: int = 1  # other keyframes; fewer where fewer exist
    max_inconsistency: float = 0.03  # |z - z'| / (z + z')
    neighbours: int = 6  # keyframes asked, nearest in time
    stride: int = 2  # pixels of the network size between points of a keyframe's own cloud
    voxel_ratio: float = 0.003  # side of a voxel of the fused cloud, times the median depth

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "min_confidence", "max_inconsistency")
        check_range(self, 0, 1000, "min_agreeing")
        check_range(self, 1, 1000, "neighbours", "stride")
        check_range(self, 1e-4, 1, "voxel_ratio")


@dataclass(frozen=True, eq=False)
class AgreedView:
    """A keyframe and the depth that may enter the map."""

    keyframe: Keyframe
    depth: np.ndarray  # (h, w) float32 z-depth, map units, 0 where it is left out

    @property
    def T_wc(self) -> np.ndarray:
        """(4, 4) float64."""
        return self.keyframe.T_wc.numpy()

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 of the depth's size."""
        return self.keyframe.view.K.numpy()

    @property
    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8."""
        return self.keyframe.view.image.rgb


def agreed_views(keyframes: Sequence[Keyframe], config: FusionConfig = FusionConfig()) -> Iterator[AgreedView]:
    """Every keyframe with its agreed depth. Of a sequence that reads them when they are asked for, at most
    `config.neighbours + 1` are in memory."""
    held: dict[int, Keyframe] = {}
    for n in range(len(keyframes)):
        near = [n, *nearest(n, len(keyframes), config.neighbours)]
        held = {m: held[m] if m in held else keyframes[m] for m in near}
        keyframe, *others = held.values()
        yield AgreedView(keyframe, agreed_depth(keyframe, others, config))


def agreed_depth(keyframe: Keyframe, others: Sequence[Keyframe], config: FusionConfig = FusionConfig()) -> np.ndarray:
    """(h, w) float32 depth, the mean of what this keyframe and those that confirm it measured, weighted by their
    variances; 0 where it is unconfident, unconfirmed or on an occlusion edge."""
    dense = keyframe.dense
    T_jk = [se3.inverse(other.T_wc) @ keyframe.T_wc for other in others]
    theirs = [other.dense.to(dense.device) for other in others]
    mean, votes = depth_agreement(
        (dense.value, dense.sigma),
        T_jk,
        keyframe.view.K,
        [(d.value, d.sigma) for d in theirs],
        config.max_inconsistency,
    )
    good = is_reliable(keyframe, config) & (votes.cpu().numpy() >= min(config.min_agreeing, len(others)))
    return np.where(good, 1 / np.maximum(mean.cpu().numpy(), 1e-9), 0).astype(np.float32)


def is_reliable(keyframe: Keyframe, config: FusionConfig = FusionConfig()) -> np.ndarray:
    """(h, w) bool: known, sure enough, and on no occlusion edge."""
    dense = keyframe.dense.on_host()
    known = dense.known.numpy() & (dense.confidence.numpy() >= config.min_confidence)
    return known & ~occlusion_edges(dense.value.numpy())


def reliable_depth(keyframe: Keyframe, config: FusionConfig = FusionConfig()) -> np.ndarray:
    """(h, w) float32 depth as the keyframe alone has it; 0 where it is unconfident or on an occlusion edge."""
    return np.where(is_reliable(keyframe, config), keyframe.dense.on_host().depth().numpy(), 0).astype(np.float32)


def occlusion_edges(inv_depth: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels beside a jump of depth, and the "flying" ones in between.

    The inverse depth of a plane is linear in the pixels, however it is slanted: the second difference is that of jumps.

    Args:
        inv_depth: (h, w), 0 unknown, which is no jump.
    """
    bent = np.zeros(inv_depth.shape, bool)
    for axis in (0, 1):
        for step in STEPS:
            here, before, after = (np.moveaxis(inv_depth, axis, 0)[part] for part in _parts(step))
            known = (here > 0) & (before > 0) & (after > 0)
            is_bent = np.abs(before - 2 * here + after) > BEND * here * step
            np.moveaxis(bent, axis, 0)[step:-step] |= known & is_bent
    return ndimage.grey_closing(bent.astype(np.uint8), 3, mode="nearest") > 0  # the middle of a ramp is straight


def _parts(step: int) -> tuple[slice, slice, slice]:
    return slice(step, -step), slice(None, -2 * step), slice(2 * step, None)


def nearest(index: int, total: int, count: int) -> list[int]:
    """The `count` indices below `total` that are nearest to `index`, without it."""
    around = range(max(index - count, 0), min(index + count + 1, total))
    return sorted(around, key=lambda m: (abs(m - index), m))[1 : count + 1]


def nearest_keyframes(keyframes: Sequence[Keyframe], index: int, count: int) -> list[Keyframe]:
    """The `count` keyframes nearest in order to the one at `index`, without it."""
    return [keyframes[n] for n in nearest(index, len(keyframes), count)]


def keyframe_cloud(keyframe: Keyframe, others: Sequence[Keyframe], config: FusionConfig = FusionConfig()) -> PointCloud:
    """The agreed points of one keyframe, in its camera frame."""
    depth = agreed_depth(keyframe, others, config)
    v, u = (a * config.stride for a in np.nonzero(depth[:: config.stride, :: config.stride]))
    points = points_of(depth, keyframe.view.K.numpy())[v, u]
    return PointCloud(points.astype(np.float32), keyframe.view.image.rgb[v, u])


def fused_cloud(
    keyframes: Sequence[Keyframe], config: FusionConfig = FusionConfig(), side: float | None = None
) -> PointCloud:
    """The map in the world frame: for each voxel the mean of the agreed points in it, with colour and normal.

    Args:
        side: of a voxel, map units; None: `config.voxel_ratio` of the median depth.

    Raises:
        UsageError: if voxels of the side that was given are too small for the map.
    """
    voxels = VoxelMeans(side or config.voxel_ratio * median_depth(keyframes, config) or 1.0, side is not None)
    for view in agreed_views(keyframes, config):
        R_wc, p_w = view.T_wc[:3, :3], view.T_wc[:3, 3]
        points, known = points_of(view.depth, view.K), view.depth > 0
        voxels.add(points[known] @ R_wc.T + p_w, view.rgb[known], normals_of(points)[known] @ R_wc.T)
    return voxels.cloud()


def median_depth(keyframes: Sequence[Keyframe], config: FusionConfig = FusionConfig()) -> float:
    """Of the confident pixels of keyframes all over the map, map units; 0 if there are none."""
    medians = []
    for n in range(0, len(keyframes), -(-len(keyframes) // PROBED) or 1):
        dense = keyframes[n].dense.on_host().subsampled(PROBED_STRIDE)
        depth = dense.depth()[dense.known & (dense.confidence >= config.min_confidence)].numpy()
        medians += [float(np.median(depth))] if len(depth) else []
    return float(np.median(medians)) if medians else 0.0


def points_of(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(h, w, 3) points in the camera frame of a depth map (h, w), of its type."""
    h, w = depth.shape
    x = ((np.arange(w) - K[0, 2]) / K[0, 0]).astype(depth.dtype)
    y = ((np.arange(h) - K[1, 2]) / K[1, 1]).astype(depth.dtype)
    return np.stack([x * depth, y[:, None] * depth, depth], -1)


def normals_of(points: np.ndarray) -> np.ndarray:
    """(h, w, 3) unit normals in the camera frame that face the camera; towards the camera where neighbours are unknown.

    Args:
        points: (h, w, 3) of the pixels, camera frame; z is 0 where it is unknown.
    """
    towards = -points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    inner = np.cross(down, across)
    length = np.linalg.norm(inner, axis=-1)
    is_known = points[..., 2] > 0
    known = is_known[1:-1, 2:] & is_known[1:-1, :-2] & is_known[2:, 1:-1] & is_known[:-2, 1:-1] & (length > 0)
    facing = np.sign((inner * towards[1:-1, 1:-1]).sum(-1))
    towards[1:-1, 1:-1][known] = inner[known] * (facing[known] / length[known])[:, None]
    return towards

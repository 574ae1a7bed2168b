"""The fused cloud: one point with colour and normal for each voxel, the mean of what falls into it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slam.errors import SourceError, UsageError
from slam.export.keyframes import AgreedView, agreed_views, median_depth, points_of
from slam.export.options import ExportOptions
from slam.io.ply import PointCloud, write_ply
from slam.io.run import Run

VOXEL_RATIO = 0.003  # side of a voxel, times the median depth
BITS = 21  # of a voxel's index along an axis
MERGED = 2_000_000  # voxels that wait to be merged
FILE = "cloud.ply"
EPS = 1e-3  # of a voxel's side: means stay this far within


@dataclass(eq=False)
class VoxelMeans:
    """Sums of what falls into each voxel of a grid; the voxel of a point is `floor(point / side)`, exactly."""

    side: float
    _keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) sorted
    _sums: np.ndarray = field(default_factory=lambda: np.zeros((0, 10), np.float32))  # within, colour, normal, count
    _waiting: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, points: np.ndarray, colors: np.ndarray, normals: np.ndarray) -> None:
        """Take points (N, 3), world frame, with colours (N, 3) uint8 and normals (N, 3).

        Raises:
            UsageError: if the grid has too many voxels along an axis.
        """
        cell = np.floor(points / self.side)
        if len(cell) and np.abs(cell).max() >= 2 ** (BITS - 1):
            raise UsageError(f"--voxel {self.side:g} is too small for a map of this extent; give a larger one")
        values = np.column_stack([points / self.side - cell, colors, normals, np.ones(len(points))]).astype(np.float32)
        self._waiting.append(_summed(_packed(cell.astype(np.int64)), values))
        if sum(len(keys) for keys, _ in self._waiting) > max(MERGED, len(self._keys) // 2):
            self._merge()

    def _merge(self) -> None:
        parts = [(self._keys, self._sums), *self._waiting]
        self._waiting = []
        self._keys, self._sums = _summed(np.concatenate([k for k, _ in parts]), np.concatenate([s for _, s in parts]))

    def cloud(self) -> PointCloud:
        """One point for each voxel, inside it."""
        self._merge()
        means = self._sums / self._sums[:, 9:]
        points = (_unpacked(self._keys) + means[:, :3].astype(np.float64).clip(EPS, 1 - EPS)) * self.side
        length = np.linalg.norm(means[:, 6:9], axis=-1, keepdims=True)
        normals = np.where(length > 0, means[:, 6:9] / np.maximum(length, 1e-12), [0, 0, -1])
        return PointCloud(
            points.astype(np.float32), np.rint(means[:, 3:6]).astype(np.uint8), normals.astype(np.float32)
        )


def _packed(cell: np.ndarray) -> np.ndarray:
    shifted = cell + 2 ** (BITS - 1)
    return (shifted[:, 0] << (2 * BITS)) | (shifted[:, 1] << BITS) | shifted[:, 2]


def _unpacked(keys: np.ndarray) -> np.ndarray:
    low = 2**BITS - 1
    return np.stack([keys >> (2 * BITS), (keys >> BITS) & low, keys & low], -1) - 2 ** (BITS - 1)


def _summed(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of equal keys added; keys increasing."""
    if not len(keys):
        return keys, values
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(values[order], first, axis=0)


def normals_of(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(h, w, 3) unit normals in the camera frame that face the camera; towards the camera where neighbours are unknown.

    Args:
        depth: (h, w), 0 unknown.
    """
    points = points_of(depth, K)
    normals = -points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    inner = np.cross(down, across)
    length = np.linalg.norm(inner, axis=-1)
    known = (
        (depth[1:-1, 2:] > 0) & (depth[1:-1, :-2] > 0) & (depth[2:, 1:-1] > 0) & (depth[:-2, 1:-1] > 0) & (length > 0)
    )
    inner = inner / np.maximum(length, 1e-12)[..., None]
    inner *= np.where((inner * points[1:-1, 1:-1]).sum(-1) > 0, -1, 1)[..., None]
    normals[1:-1, 1:-1][known] = inner[known]
    return normals


def add_view(voxels: VoxelMeans, view: AgreedView) -> None:
    """Put the points of a keyframe into a grid."""
    known = view.depth > 0
    R_wc, p_w = view.T_wc[:3, :3], view.T_wc[:3, 3]
    points, normals = points_of(view.depth, view.K)[known], normals_of(view.depth, view.K)[known]
    voxels.add(points @ R_wc.T + p_w, view.rgb[known], normals @ R_wc.T)


def fused(run: Run, options: ExportOptions, ratio: float = VOXEL_RATIO) -> PointCloud:
    """The cloud of a run, world frame.

    Args:
        ratio: side of a voxel, times the median depth, unless the options name the side.

    Raises:
        SourceError: if the map is empty or damaged.
    """
    voxels = VoxelMeans(options.voxel or ratio * median_depth(run, options.fusion))
    for view in agreed_views(run, options.fusion):
        add_view(voxels, view)
    cloud = voxels.cloud()
    if not len(cloud):
        raise SourceError(f"the map of {run.path} is empty: no two keyframes agree on any point of it")
    return cloud


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`cloud.ply`."""
    cloud = fused(run, options)
    write_ply(folder / FILE, cloud, tuple(options.conventions))
    return f"{len(cloud)} points"

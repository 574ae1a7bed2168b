"""A grid of voxels that averages what falls into them. The voxel of a point is `floor(point / side)`, exactly."""

from dataclasses import dataclass, field

import numpy as np

from slam.io.ply import PointCloud

BITS = 21  # of a voxel's index along an axis
MERGED = 2_000_000  # voxels that wait to be merged
EPS = 1e-3  # of a voxel's side: means stay this far within


@dataclass(eq=False)
class VoxelMeans:
    """Sums of what falls into each voxel of a grid."""

    side: float
    outside: int = 0  # points that are too far for the grid, a million voxels from its middle
    _keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) sorted
    _sums: np.ndarray = field(default_factory=lambda: np.zeros((0, 10), np.float32))  # within, colour, normal, count
    _waiting: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, points: np.ndarray, colors: np.ndarray, normals: np.ndarray) -> None:
        """Take points (N, 3), world frame, with colours (N, 3) uint8 and normals (N, 3); those outside are counted."""
        place = points / self.side
        inside = (np.abs(place) < 2 ** (BITS - 1) - 1).all(-1)
        self.outside += len(inside) - int(inside.sum())
        cell = np.floor(place[inside])
        values = np.column_stack([place[inside] - cell, colors[inside], normals[inside], np.ones(len(cell))])
        self._waiting.append(_summed(packed(cell.astype(np.int64)), values.astype(np.float32)))
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
        points = (unpacked(self._keys) + means[:, :3].astype(np.float64).clip(EPS, 1 - EPS)) * self.side
        length = np.linalg.norm(means[:, 6:9], axis=-1, keepdims=True)
        normals = np.where(length > 0, means[:, 6:9] / np.maximum(length, 1e-12), [0, 0, -1])
        return PointCloud(
            points.astype(np.float32), np.rint(means[:, 3:6]).astype(np.uint8), normals.astype(np.float32)
        )


def first_in_voxels(points: np.ndarray, side: float) -> np.ndarray:
    """Indices, increasing, of the first of the points (N, 3) in each voxel of a side."""
    voxel = np.floor(points / side).astype(np.int64)
    return np.sort(np.unique(voxel, axis=0, return_index=True)[1])


def packed(cell: np.ndarray) -> np.ndarray:
    """(N,) int64 keys of voxels (N, 3), whose indices are below 2^20 in size."""
    shifted = cell + 2 ** (BITS - 1)
    return (shifted[:, 0] << (2 * BITS)) | (shifted[:, 1] << BITS) | shifted[:, 2]


def unpacked(keys: np.ndarray) -> np.ndarray:
    """(N, 3) int64 voxels of keys (N,)."""
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

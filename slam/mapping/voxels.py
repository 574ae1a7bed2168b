"""A grid of voxels that averages what falls into them. The voxel of a point is `floor(point / side)`, exactly."""

import numpy as np

from slam.errors import UsageError
from slam.io.ply import PointCloud

BITS = 21  # of a voxel's index along an axis
WAITING = 2_000_000  # points that wait to be added
MAX_VOXELS = 4_000_000  # half a gigabyte while they are added to
EPS = 1e-3  # of a voxel's side: means stay this far within


class VoxelMeans:
    """Sums of what falls into each voxel of a grid."""

    def __init__(self, side: float, is_fixed: bool = False, max_voxels: int = MAX_VOXELS) -> None:
        """`side` of a voxel; unless it is fixed, voxels too many for the memory are doubled in size."""
        self.side, self.is_fixed, self.max_voxels = side, is_fixed, max_voxels
        self._keys, self._sums = np.zeros(0, np.int64), np.zeros((10, 0), np.float32)  # within, colour, normal, count
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, points: np.ndarray, colors: np.ndarray, normals: np.ndarray) -> None:
        """Take points (N, 3), world frame, with colours (N, 3) uint8 and normals (N, 3).

        Points outside of the grid are left out.

        Raises:
            UsageError: if the side is fixed and too small, now or for what was taken before.
        """
        place = points / self.side
        inside = in_grid(points, self.side)
        if self.is_fixed and not inside.all():
            raise too_small(self.side)
        cell = np.floor(place[inside])
        values = (place[inside] - cell, colors[inside], normals[inside], np.ones((len(cell), 1)))
        self._waiting.append((packed(cell.astype(np.int64)), np.vstack([v.T.astype(np.float32) for v in values])))
        if sum(len(keys) for keys, _ in self._waiting) > WAITING:
            self._merge()

    def _merge(self) -> None:
        self._keys, self._sums = _summed([(self._keys, self._sums), *self._waiting])
        self._waiting = []
        while len(self._keys) > self.max_voxels:  # eight voxels become one
            if self.is_fixed:
                raise too_small(self.side)
            cell = unpacked(self._keys)
            self._sums[:3] = (self._sums[:3] + (cell & 1).T * self._sums[9]) / 2
            self._keys, self._sums = _summed([(packed(cell >> 1), self._sums)])
            self.side *= 2

    def cloud(self) -> PointCloud:
        """One point for each voxel, inside it; raises UsageError as `add` does."""
        self._merge()
        within, colors, normals = (self._sums[n : n + 3].T / self._sums[9, :, None] for n in (0, 3, 6))
        points = (unpacked(self._keys) + within.clip(EPS, 1 - EPS)) * self.side
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.where(length > 0, normals / np.maximum(length, 1e-12), [0, 0, -1])
        return PointCloud(points.astype(np.float32), np.rint(colors).astype(np.uint8), normals.astype(np.float32))


def first_in_voxels(points: np.ndarray, side: float) -> np.ndarray:
    """Indices, increasing, of the first of the points (N, 3) in each voxel of a side."""
    voxel = np.floor(points / side).astype(np.int64)
    return np.sort(np.unique(voxel, axis=0, return_index=True)[1])


def in_grid(points: np.ndarray, side: float) -> np.ndarray:
    """(N,) bool: points (N, 3) less than a million voxels from the middle of a grid."""
    return (np.abs(points / side) < 2 ** (BITS - 1) - 1).all(-1)


def too_small(side: float) -> UsageError:
    """What is wrong with a side that a user gave."""
    return UsageError(f"voxels of {side:g} are too small for a map of this extent; give larger ones")


def packed(cell: np.ndarray) -> np.ndarray:
    """(N,) int64 keys of voxels (N, 3), whose indices are below 2^20 in size."""
    shifted = cell + 2 ** (BITS - 1)
    return (shifted[:, 0] << (2 * BITS)) | (shifted[:, 1] << BITS) | shifted[:, 2]


def unpacked(keys: np.ndarray) -> np.ndarray:
    """(N, 3) int64 voxels of keys (N,)."""
    low = 2**BITS - 1
    return np.stack([keys >> (2 * BITS), (keys >> BITS) & low, keys & low], -1) - 2 ** (BITS - 1)


def _summed(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Columns (C, N) of equal keys (N,) added, keys increasing; row by row, as they may fill the memory."""
    keys = np.concatenate([k for k, _ in parts])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    sums = np.empty((len(parts[0][1]), len(first)), np.float32)
    for n, row in enumerate(sums):
        values = np.concatenate([columns[n] for _, columns in parts])
        row[:] = np.add.reduceat(values[order], first) if len(first) else 0
    return keys[first], sums

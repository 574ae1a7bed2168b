"""Lines and view points as plain arrays: camera frusta, trajectory, keyframe graph, where to look from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slam.viewer.run import ViewedKeyframe, ViewedRun

FRUSTUM_EDGES = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1], [1, 5], [5, 2]])


@dataclass(frozen=True)
class Lines:
    """Line segments."""

    points: np.ndarray  # (N, 3) float64
    edges: np.ndarray  # (M, 2) int, indices of points


@dataclass(frozen=True)
class Viewpoint:
    """Where the observer is, world frame."""

    eye: np.ndarray  # (3,)
    center: np.ndarray  # (3,) looked at
    up: np.ndarray  # (3,)


def frustum(keyframe: ViewedKeyframe, depth: float) -> Lines:
    """The pyramid of a camera, `depth` map units long, in its own frame; the peak marks the top of the picture."""
    H, W = keyframe.depth.shape
    corners = np.array([[-0.5, -0.5], [W - 0.5, -0.5], [W - 0.5, H - 0.5], [-0.5, H - 0.5], [(W - 1) / 2, -0.22 * H]])
    K = keyframe.K
    x, y = (corners[:, 0] - K[0, 2]) / K[0, 0], (corners[:, 1] - K[1, 2]) / K[1, 1]
    points = np.concatenate([np.zeros((1, 3)), depth * np.stack([x, y, np.ones_like(x)], -1)])
    return Lines(points, FRUSTUM_EDGES)


def path(positions: np.ndarray) -> Lines:
    """(N, 3) positions joined in order."""
    n = len(positions)
    return Lines(positions.astype(np.float64), np.stack([np.arange(n - 1), np.arange(1, n)], -1).reshape(-1, 2))


def graph(keyframes: Sequence[ViewedKeyframe]) -> Lines:
    """Each keyframe joined to the one that it was tracked against, where that is among them."""
    row = {keyframe.id: n for n, keyframe in enumerate(keyframes)}
    edges = [(n, row[k.parent_id]) for n, k in enumerate(keyframes) if k.parent_id in row]
    positions = np.array([keyframe.T_wc[:3, 3] for keyframe in keyframes]).reshape(-1, 3)
    return Lines(positions, np.array(edges, dtype=np.int64).reshape(-1, 2))


def behind(T_wc: np.ndarray, distance: float) -> Viewpoint:
    """Over the shoulder of a camera: `distance` behind and half of that above it, looking where it looks."""
    eye = T_wc @ np.array([0.0, -0.5 * distance, -distance, 1.0])  # camera axes: y is down
    center = T_wc @ np.array([0.0, 0.0, distance, 1.0])
    return Viewpoint(eye[:3], center[:3], -T_wc[:3, 1])


def overview(run: ViewedRun) -> Viewpoint:
    """From behind the cameras, far enough to have their path and the map in view."""
    positions = run.trajectory.T_wc[:, :3, 3]
    spread = float(np.linalg.norm(np.ptp(positions, axis=0)))
    T_wc = run.keyframes[len(run.keyframes) // 2].T_wc.copy()
    T_wc[:3, 3] = positions.mean(0)
    return behind(T_wc, max(0.7 * run.median_depth(), 0.8 * spread))

"""Lines and view points as plain arrays: camera frusta, trajectory, keyframe graph, where to look from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slam.frames import Keyframe
from slam.viewer.controls import Controls
from slam.viewer.view_state import ViewState

MAX_PATH = 5000  # about so many pieces of a path
FRUSTUM_EDGES = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1], [1, 5], [5, 2]])
FRUSTUM_RATIO = 0.07  # length of a frustum, times the median depth
FRUSTUM_COLOR = (0.35, 0.75, 1.0)
CURRENT_COLOR = (1.0, 0.85, 0.2)
PATH_COLOR = (1.0, 0.25, 0.25)
GRAPH_COLOR = (0.4, 1.0, 0.5)


@dataclass(frozen=True, eq=False)
class Lines:
    """Line segments."""

    points: np.ndarray  # (N, 3) float64
    edges: np.ndarray  # (M, 2) int, indices of points


NOTHING = Lines(np.zeros((0, 3)), np.zeros((0, 2), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """Where the observer is, world frame."""

    eye: np.ndarray  # (3,)
    center: np.ndarray  # (3,) looked at
    up: np.ndarray  # (3,)


Drawing = tuple[Lines, tuple[float, float, float]]  # and their colour, RGB in [0, 1]


def drawings(shown: ViewState, controls: Controls, median_depth: float) -> dict[str, Drawing]:
    """Cameras, trajectory and graph by name, empty where they are not wanted; needs a keyframe."""
    size = FRUSTUM_RATIO * median_depth
    pyramid, larger = frustum(shown.keyframes[0], size), frustum(shown.keyframes[0], 1.3 * size)
    frusta = placed(pyramid, poses(shown.drawn)) if controls.shows_keyframes else NOTHING
    current = NOTHING if shown.T_wc is None else placed(larger, shown.T_wc[None])
    return {
        "frusta": (frusta, FRUSTUM_COLOR),
        "trajectory": (path(shown.path) if controls.shows_trajectory else NOTHING, PATH_COLOR),
        "graph": (graph(shown.drawn) if controls.shows_graph else NOTHING, GRAPH_COLOR),
        "current": (current, CURRENT_COLOR),
    }


def frustum(keyframe: Keyframe, depth: float) -> Lines:
    """The pyramid of a camera, `depth` map units long, in its own frame; the peak marks the top of the image."""
    H, W = keyframe.dense.size
    corners = np.array([[-0.5, -0.5], [W - 0.5, -0.5], [W - 0.5, H - 0.5], [-0.5, H - 0.5], [(W - 1) / 2, -0.22 * H]])
    K = keyframe.view.K.numpy()
    x, y = (corners[:, 0] - K[0, 2]) / K[0, 0], (corners[:, 1] - K[1, 2]) / K[1, 1]
    points = np.concatenate([np.zeros((1, 3)), depth * np.stack([x, y, np.ones_like(x)], -1)])
    return Lines(points, FRUSTUM_EDGES)


def placed(lines: Lines, T_wcs: np.ndarray) -> Lines:
    """The same lines at each of (N, 4, 4) poses, world frame."""
    points = lines.points @ T_wcs[:, :3, :3].transpose(0, 2, 1) + T_wcs[:, None, :3, 3]  # (N, P, 3)
    first = len(lines.points) * np.arange(len(T_wcs))
    return Lines(points.reshape(-1, 3), (lines.edges + first[:, None, None]).reshape(-1, 2))


def path(positions: np.ndarray) -> Lines:
    """(N, 3) positions joined in order, of very many every few."""
    positions = positions[:: max(1, len(positions) // MAX_PATH)]
    n = len(positions)
    return Lines(positions.astype(np.float64), np.stack([np.arange(n - 1), np.arange(1, n)], -1).reshape(-1, 2))


def graph(keyframes: Sequence[Keyframe]) -> Lines:
    """Each keyframe joined to the one that it was tracked against, where that is among them."""
    row = {keyframe.id: n for n, keyframe in enumerate(keyframes)}
    edges = [(n, row[k.parent_id]) for n, k in enumerate(keyframes) if k.parent_id in row]
    return Lines(poses(keyframes)[:, :3, 3], np.array(edges, dtype=np.int64).reshape(-1, 2))


def poses(keyframes: Sequence[Keyframe]) -> np.ndarray:
    """T_wc of keyframes, (N, 4, 4)."""
    return np.array([keyframe.T_wc.numpy() for keyframe in keyframes]).reshape(-1, 4, 4)


def median_depth(keyframes: Sequence[Keyframe]) -> float:
    """Median of the confident depths, of all depths where none is; 1 where there is no depth at all."""
    for minimum in (0.5, 0.0):
        known = [k.dense.value[k.dense.known & (k.dense.confidence >= minimum)].cpu().numpy() for k in keyframes]
        inv_depth = np.concatenate([np.zeros(0, np.float32), *known])
        if len(inv_depth):
            return 1 / float(np.median(inv_depth))
    return 1.0


def behind(T_wc: np.ndarray, distance: float) -> Viewpoint:
    """Over the shoulder of a camera: `distance` behind and half of that above it, looking where it looks."""
    eye = T_wc @ np.array([0.0, -0.5 * distance, -distance, 1.0])  # camera axes: y is down
    center = T_wc @ np.array([0.0, 0.0, distance, 1.0])
    return Viewpoint(eye[:3], center[:3], -T_wc[:3, 1])


def overview(shown: ViewState) -> Viewpoint:
    """From behind the cameras, far enough to have their path and the map in view; needs a keyframe."""
    T_wcs, z = poses(shown.keyframes), median_depth(shown.keyframes)
    positions = np.concatenate([T_wcs[:, :3, 3], shown.path])
    spread = float(np.linalg.norm(np.ptp(positions, axis=0)))
    T_wc = T_wcs[len(T_wcs) // 2].copy()
    T_wc[:3, 3] = positions.mean(0)
    return behind(T_wc, max(0.7 * z, 0.8 * spread))

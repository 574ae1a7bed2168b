"""Points of the map with their places in the full-size pictures: corners, followed from keyframe to keyframe.

The agreed depth says where a corner of one picture must lie in the next ones, and which of them see it; Lucas-Kanade
measures the place there, both ways. The point is then placed anew by all its measurements, with the poses as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from slam.mapping.fusion import AgreedView

REFINEMENTS = 5  # Gauss-Newton steps of a point


@dataclass(frozen=True)
class TrackConfig:
    """How points are chosen and followed."""

    window: int = 6  # later keyframes in which a point is looked for
    per_image: int = 800  # points that are new in an image, at most
    spacing: float = 0.01  # between points of an image, of its diagonal
    quality: float = 0.003  # of a corner, of the best one's
    patch_px: int = 15  # side of what Lucas-Kanade compares
    return_px: float = 1.0  # there and back
    shift: float = 0.02  # between the place by the map and that measured, of the diagonal
    max_inconsistency: float = 0.05  # |z - z'| / (z + z') of a keyframe that sees the point
    depth_sigma: float = 0.05  # relative, of the map's depth where measurements tell little
    huber_px: float = 1.5
    max_error_px: float = 4.0  # of a measurement that is kept


@dataclass(frozen=True, eq=False)
class PointBatch:
    """Points first seen in one picture."""

    points: np.ndarray  # (N, 3) float64, world frame
    colors: np.ndarray  # (N, 3) uint8
    errors: np.ndarray  # (N,) mean reprojection error, pixels
    image: np.ndarray  # (O,) int32 index of the picture of each measurement
    point: np.ndarray  # (O,) int32 index among the points, increasing
    uv: np.ndarray  # (O, 2) float64 pixels of the full-size pictures


class _Seen:
    """A picture that others are still compared with, and the points that are new in it."""

    def __init__(
        self, index: int, gray: np.ndarray, T_cw: np.ndarray, uv: np.ndarray, p_w: np.ndarray, rgb: np.ndarray
    ):
        self.index, self.gray, self.T_cw, self.rgb = index, gray, T_cw, rgb
        self.p_w = p_w  # (N, 3)
        self.images, self.T = [index], [T_cw]
        self.uv, self.has = [uv], [np.ones(len(uv), bool)]


class Tracks:
    """Takes the pictures in order; gives the points of a picture when no later one can see them in its window."""

    def __init__(self, K: np.ndarray, config: TrackConfig = TrackConfig()) -> None:
        """`K` (3, 3) of the full-size pictures."""
        self.K, self.config = K, config
        self._window: list[_Seen] = []

    def add(self, index: int, picture: np.ndarray, view: AgreedView) -> Iterator[PointBatch]:
        """The next picture (H, W, 3) uint8 RGB with its keyframe, which is numbered `index`."""
        gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        T_cw = np.linalg.inv(view.T_wc)
        taken = []
        for earlier in self._window:
            uv, found = self._followed(earlier, gray, T_cw, view)
            earlier.images.append(index)
            earlier.T.append(T_cw)
            earlier.uv.append(uv)
            earlier.has.append(found)
            taken.append(uv[found])
        self._window.append(self._new(index, picture, gray, T_cw, view, np.concatenate([np.zeros((0, 2)), *taken])))
        if len(self._window) > self.config.window:
            yield self._finished(self._window.pop(0))

    def rest(self) -> Iterator[PointBatch]:
        """The points of the last pictures."""
        while self._window:
            yield self._finished(self._window.pop(0))

    def _new(
        self, index: int, picture: np.ndarray, gray: np.ndarray, T_cw: np.ndarray, view: AgreedView, taken: np.ndarray
    ) -> _Seen:
        """Corners where the depth is agreed and no point is followed to already."""
        c, (H, W) = self.config, gray.shape
        spacing = c.spacing * np.hypot(H, W)
        free = cv2.resize((view.depth > 0).astype(np.uint8), (W, H), interpolation=cv2.INTER_NEAREST_EXACT)
        for u, v in np.rint(taken).astype(int).tolist():
            cv2.circle(free, (u, v), max(round(spacing), 1), 0, -1)
        corners = cv2.goodFeaturesToTrack(gray, c.per_image, c.quality, spacing, mask=free)
        uv = np.zeros((0, 2)) if corners is None else corners[:, 0].astype(np.float64)
        z = depth_at(view.depth, view_uv(uv, view.depth.shape, gray.shape))
        uv, z = uv[z > 0], z[z > 0]
        p_c = np.column_stack([(uv - self.K[:2, 2]) / self.K[[0, 1], [0, 1]], np.ones(len(uv))]) * z[:, None]
        p_w = p_c @ view.T_wc[:3, :3].T + view.T_wc[:3, 3]
        u, v = np.rint(uv).astype(int).T
        return _Seen(index, gray, T_cw, uv, p_w, picture[v, u])

    def _followed(
        self, seen: _Seen, gray: np.ndarray, T_cw: np.ndarray, view: AgreedView
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the points of an earlier picture lie in this one (N, 2), and which were found (N,)."""
        c, (H, W) = self.config, gray.shape
        guess, z = projected(seen.p_w, T_cw, self.K)
        found = (z > 0) & (guess > 0).all(-1) & (guess < [W - 1, H - 1]).all(-1)
        own = depth_at(view.depth, view_uv(guess, view.depth.shape, gray.shape))
        found &= (own > 0) & (np.abs(own - z) < c.max_inconsistency * (own + z))
        uv = np.where(found[:, None], guess, 0.0)
        if not found.any():
            return uv, found
        start, there = seen.uv[0][found].astype(np.float32), guess[found].astype(np.float32)
        options = {"winSize": (c.patch_px, c.patch_px), "maxLevel": 2, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
        there, ok, _ = cv2.calcOpticalFlowPyrLK(seen.gray, gray, start, there.copy(), **options)
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(gray, seen.gray, there, start.copy(), **options)
        ok = (ok[:, 0] > 0) & (ok_back[:, 0] > 0) & (np.linalg.norm(back - start, axis=-1) < c.return_px)
        ok &= np.linalg.norm(there - guess[found], axis=-1) < c.shift * np.hypot(H, W)
        uv[found] = there
        found[found] = ok
        return uv, found

    def _finished(self, seen: _Seen) -> PointBatch:
        """The points placed by all their measurements; those with fewer than two are left out."""
        uv, has, T_cw = np.stack(seen.uv), np.stack(seen.has), np.stack(seen.T)
        points = placed(seen.p_w, uv, has, T_cw, self.K, self.config)
        error = reprojection_errors(points, uv, T_cw, self.K)
        kept = has & (error <= self.config.max_error_px)
        kept &= kept.sum(0) >= 2
        good = kept.any(0)
        kept, uv, error = kept[:, good], uv[:, good], error[:, good]
        point, n = np.nonzero(kept.T)
        mean = (error * kept).sum(0) / np.maximum(kept.sum(0), 1)
        image = np.array(seen.images, np.int32)[n]
        return PointBatch(points[good], seen.rgb[good], mean, image, point.astype(np.int32), uv[n, point])


def view_uv(uv: np.ndarray, view: tuple[int, ...], picture: tuple[int, ...]) -> np.ndarray:
    """Pixels (N, 2) of a picture of (rows, columns) -> of a view of the same image resized."""
    scale = np.array([view[1] / picture[1], view[0] / picture[0]])
    return scale * (uv + 0.5) - 0.5


def depth_at(depth: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N,) depth at pixels (N, 2), its inverse interpolated; 0 where one of the four around is unknown or outside."""
    if not len(uv):
        return np.zeros(0)
    known = (depth > 0).astype(np.float32)
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-9), 0).astype(np.float32)
    places = np.nan_to_num(uv, nan=-9, posinf=-9, neginf=-9).clip(-9, 1e5).astype(np.float32)[:, None]
    weight, value = (cv2.remap(m, places, None, cv2.INTER_LINEAR, borderValue=0)[:, 0] for m in (known, inverse))
    return np.where(weight > 0.999, 1 / np.maximum(value, 1e-9), 0).astype(np.float64)


def projected(p_w: np.ndarray, T_cw: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (..., 2) and depths (...,) of points (..., 3); behind the camera pixels are far outside."""
    p_c = p_w @ np.swapaxes(T_cw[..., :3, :3], -1, -2) + T_cw[..., None, :3, 3]
    z = p_c[..., 2]
    uv = p_c[..., :2] / np.where(z > 1e-9, z, 1e-9)[..., None] * K[[0, 1], [0, 1]] + K[:2, 2]
    return np.where((z > 1e-9)[..., None], uv, -1e6), z


def reprojection_errors(points: np.ndarray, uv: np.ndarray, T_cw: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(M, N) pixels between points (N, 3), as M cameras (M, 4, 4) see them, and measurements (M, N, 2)."""
    return np.linalg.norm(projected(points, T_cw, K)[0] - uv, axis=-1)


def placed(
    points: np.ndarray, uv: np.ndarray, has: np.ndarray, T_cw: np.ndarray, K: np.ndarray, config: TrackConfig
) -> np.ndarray:
    """Points (N, 3) moved to where their measurements (M, N, 2), of those that there are (M, N), meet; Gauss-Newton
    with Huber's weights. A weak prior holds them at their places in the map, which matters where rays are parallel."""
    if not len(points):
        return points
    focal, start = K[[0, 1], [0, 1]], points
    prior = 1 / (config.depth_sigma * np.maximum(projected(points, T_cw[0], K)[1], 1e-9)) ** 2
    for _ in range(REFINEMENTS):
        p_c = points @ np.swapaxes(T_cw[:, :3, :3], -1, -2) + T_cw[:, None, :3, 3]  # (M, N, 3)
        z = np.maximum(p_c[..., 2], 1e-6)
        residual = p_c[..., :2] / z[..., None] * focal + K[:2, 2] - uv
        weight = has * np.minimum(1, config.huber_px / np.maximum(np.linalg.norm(residual, axis=-1), 1e-9))
        J_c = np.zeros((*z.shape, 2, 3))
        J_c[..., 0, 0], J_c[..., 1, 1] = focal[0] / z, focal[1] / z
        J_c[..., 0, 2], J_c[..., 1, 2] = -focal[0] * p_c[..., 0] / z**2, -focal[1] * p_c[..., 1] / z**2
        J = np.einsum("mnab,mbc->mnac", J_c, T_cw[:, :3, :3])
        A = np.einsum("mn,mnai,mnaj->nij", weight, J, J) + prior[:, None, None] * np.eye(3)
        b = np.einsum("mn,mnai,mna->ni", weight, J, residual) + prior[:, None] * (points - start)
        points = points - np.linalg.solve(A, b[..., None])[..., 0]
    return points

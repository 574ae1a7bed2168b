"""Dense inverse depth of a keyframe from neighbours with known poses, without training.

It stands where the stereo network stands and is the yardstick for it:

1. sweep a quarter of the size over the whole range, to learn where the surfaces are;
2. place the hypotheses of the full sweep more densely there;
3. match by ZNCC (blind to exposure), drop the worst view of each pixel, smooth semi-globally, refine by a parabola;
4. derive standard deviation and confidence from the sharpness of the minimum, the parallax and the agreement
   with the surroundings.

References: Collins, A space-sweep approach to true multi-image matching, CVPR 1996; Hirschmüller, Stereo processing
by semiglobal matching and mutual information, PAMI 2008; Kang, Szeliski & Chai, Handling occlusions in dense
multi-view stereo, CVPR 2001 (dropping views).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from slam.errors import ConfigError
from slam.kernels.plane_sweep import fuse_views, parallax, project, semi_global, window_means, winners, zncc_cost

UNSEEN_COST = 0.5  # as of a window without any similarity
COARSE_DIVISOR = 4  # the first sweep is this much smaller
COARSE_HYPOTHESES = 32
UNIFORM_SHARE = 0.5  # of the hypotheses that the histogram of the first sweep does not move
MIN_PARALLAX_PX = 1.0  # a view that moves less over the whole range tells nothing of depth
MEDIAN_PX = 5  # window of the final median filter
MIN_CURVATURE = 1e-5  # cost per squared pixel

# Fitted by regression on two rendered indoor sequences and a real one, with reference and with disturbed poses (0.1
# degree, 3 % of the baseline); checked by tools/bench_plane_sweep.py.
SIGMA_LOG_PX = (-1.0, -0.43)  # log of the standard deviation in pixels: constant, log curvature
CONFIDENCE = (-3.15, 0.36, -0.7, 1.2, -0.7)  # logit: constant, log curvature, cost, log parallax, log roughness


@dataclass(frozen=True)
class PlaneSweepConfig:
    """Plane sweep; gray levels are those of 8 bits, costs lie in [0, 1]."""

    hypotheses: int = 48  # inverse depths tried at full size, 8..256
    noise: float = 1.0  # standard deviation of image noise and rounding, gray levels, above 0
    dropped_views: int = 1  # worst views left out of three or more, 0..2
    small_step: float = 0.1  # price of a change by one hypothesis between neighbouring pixels
    large_step: float = 2.0  # price of a larger change on a plain area
    edge: float = 5.0  # step of gray levels that halves the price of a larger change

    def __post_init__(self) -> None:
        if not 8 <= self.hypotheses <= 256:
            raise ConfigError(f"hypotheses must be in 8..256, got {self.hypotheses}")
        if self.dropped_views not in (0, 1, 2):
            raise ConfigError(f"dropped_views must be 0, 1 or 2, got {self.dropped_views}")
        if not self.noise > 0 or not self.edge > 0:
            raise ConfigError(f"noise and edge must be above 0, got {self.noise} and {self.edge}")
        if not 0 <= self.small_step <= self.large_step:
            raise ConfigError(f"0 <= small_step <= large_step must hold, got {self.small_step}, {self.large_step}")


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Depth of a keyframe; all (H, W) float32 and finite."""

    inv_depth: np.ndarray  # above 0, inverse unit of the poses
    sigma: np.ndarray  # standard deviation of the inverse depth
    confidence: np.ndarray  # in [0, 1]: chance that the depth is right within 7 %; 0 where nothing was measured


def plane_sweep(
    gray_k: np.ndarray,
    grays_j: Sequence[np.ndarray],
    K: np.ndarray,
    T_jk: Sequence[np.ndarray],
    inv_depth_range: tuple[float, float],
    config: PlaneSweepConfig = PlaneSweepConfig(),
) -> SweepResult:
    """Inverse depth of a keyframe from N neighbours.

    No parallax (no neighbours, none with a baseline) is no error: the confidence is 0 everywhere.

    Args:
        gray_k: (H, W) uint8, or float32 in 0..255.
        grays_j: N images (H, W), of the same camera.
        K: (3, 3) intrinsics, pixels.
        T_jk: N (4, 4), view j from keyframe; their unit is that of the depth.
        inv_depth_range: lowest and highest inverse depth to try.
        config: parameters.

    Raises:
        ValueError: if shapes differ, poses are not finite or the range is empty.
    """
    _check(gray_k, grays_j, K, T_jk, inv_depth_range)
    low, high = float(inv_depth_range[0]), float(inv_depth_range[1])
    low = max(low, 1e-4 * high)  # 0 means unknown
    useful = [j for j, T in enumerate(T_jk) if _parallax_px(K, T, gray_k.shape, low, high) >= MIN_PARALLAX_PX]
    if not useful:
        return _nothing_measured(gray_k.shape, low, high)
    full = _Level(gray_k, [grays_j[j] for j in useful], K, [T_jk[j] for j in useful], config)
    hypotheses = _adapted(full.smaller(COARSE_DIVISOR), low, high)
    volume, smooth = full.sweep(hypotheses)
    return _measure(full, hypotheses, volume, smooth)


class _Level:
    """The views at one size, ready to be matched at any inverse depth."""

    def __init__(
        self,
        gray_k: np.ndarray,
        grays_j: list[np.ndarray],
        K: np.ndarray,
        T_jk: list[np.ndarray],
        config: PlaneSweepConfig,
    ) -> None:
        self.gray_k = np.ascontiguousarray(gray_k, np.float32)
        self.grays_j = [np.ascontiguousarray(gray, np.float32) for gray in grays_j]
        self.K, self.T_jk, self.config = K, T_jk, config
        K_inv = np.linalg.inv(K)
        self.A = np.stack([K @ T[:3, :3] @ K_inv for T in T_jk]).astype(np.float32)  # pixels at infinity
        self.b = np.stack([K @ T[:3, 3] for T in T_jk]).astype(np.float32)  # and per inverse depth
        self.mean_k, self.variance_k = np.empty_like(self.gray_k), np.empty_like(self.gray_k)
        window_means(self.gray_k, self.mean_k)
        window_means(self.gray_k * self.gray_k, self.variance_k)
        self.variance_k = np.maximum(self.variance_k - self.mean_k * self.mean_k, 0)

    def smaller(self, divisor: int) -> "_Level":
        """The same views, `divisor` times smaller (rounded)."""
        H, W = self.gray_k.shape
        h, w = max(round(H / divisor), 1), max(round(W / divisor), 1)
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # pixel centre to corner
        K = np.linalg.inv(half) @ np.diag([w / W, h / H, 1.0]) @ half @ self.K
        images = [cv2.resize(gray, (w, h), interpolation=cv2.INTER_AREA) for gray in (self.gray_k, *self.grays_j)]
        return _Level(images[0], images[1:], K, self.T_jk, self.config)

    def sweep(self, hypotheses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matching costs (H, W, D) of D inverse depths, and the same after smoothing."""
        H, W = self.gray_k.shape
        config = self.config
        fused = np.empty((len(hypotheses), H, W), np.float32)
        costs = np.empty((len(self.grays_j), H, W), np.float32)
        u, v, warped = (np.empty((H, W), np.float32) for _ in range(3))
        plane = np.empty((H, W), np.float32)
        for d, inv_depth in enumerate(hypotheses):
            plane[:] = inv_depth
            for j, gray in enumerate(self.grays_j):
                project(self.A[j], self.b[j], plane, u, v)
                cv2.remap(gray, u, v, cv2.INTER_LINEAR, warped, borderMode=cv2.BORDER_REPLICATE)
                zncc_cost(self.gray_k, self.mean_k, self.variance_k, warped, u, v, config.noise**2, costs[j])
            fuse_views(costs, config.dropped_views, UNSEEN_COST, fused[d])
        volume = cv2.transpose(fused.reshape(len(hypotheses), H * W)).reshape(H, W, len(hypotheses))
        return volume, semi_global(volume, self.gray_k, config.small_step, config.large_step, config.edge)


def _adapted(coarse: _Level, low: float, high: float) -> np.ndarray:
    """(D,) float32 ascending inverse depths: part evenly over the range, part where a coarse sweep found surfaces."""
    n = COARSE_HYPOTHESES
    volume, smooth = coarse.sweep(np.linspace(low, high, n).astype(np.float32))
    counts = np.bincount(smooth.argmin(-1).ravel(), minlength=n).astype(np.float64)
    counts = np.convolve(np.pad(counts, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    density = UNIFORM_SHARE / n + (1 - UNIFORM_SHARE) * counts / counts.sum()
    share = np.concatenate([[0.0], np.cumsum(density)])
    wanted = np.linspace(0.0, share[-1], coarse.config.hypotheses)
    return np.interp(wanted, share, np.linspace(low, high, n + 1)).astype(np.float32)


def _measure(full: _Level, hypotheses: np.ndarray, volume: np.ndarray, smooth: np.ndarray) -> SweepResult:
    """The minimum of each pixel and what to think of it."""
    shape = full.gray_k.shape
    position, cost, curvature, gain, seen = (np.empty(shape, np.float32) for _ in range(5))
    winners(volume, smooth, position, cost, curvature)
    raw = np.interp(position, np.arange(len(hypotheses)), hypotheses).astype(np.float32)
    inv_depth = cv2.medianBlur(raw, MEDIAN_PX)
    parallax(full.A, full.b, inv_depth, gain, seen)
    measured = (seen > 0) & (gain > 0)
    gain = np.maximum(gain, 1e-12)
    step_px = np.gradient(hypotheses)[np.rint(position).astype(np.intp)] * gain
    log_curvature = np.log(curvature / np.maximum(step_px, 1e-3) ** 2 + MIN_CURVATURE)
    roughness_px = cv2.blur(np.abs(raw - inv_depth), (5, 5)) * gain
    sigma = np.exp(SIGMA_LOG_PX[0] + SIGMA_LOG_PX[1] * log_curvature) / gain
    bias, by_curvature, by_cost, by_parallax, by_roughness = CONFIDENCE
    logit = bias + by_curvature * log_curvature + by_cost * cost
    logit += by_parallax * np.log(gain * inv_depth + 0.05) + by_roughness * np.log(roughness_px + 0.02)
    texture = full.variance_k / (full.variance_k + full.config.noise**2)  # of the window, part that is not noise
    confidence = np.where(measured, texture / (1 + np.exp(-logit)), 0)
    widest = hypotheses[-1] - hypotheses[0]
    sigma = np.where(measured, np.minimum(sigma, widest), widest)
    return SweepResult(inv_depth, sigma.astype(np.float32), confidence.astype(np.float32))


def _parallax_px(K: np.ndarray, T: np.ndarray, shape: tuple[int, ...], low: float, high: float) -> float:
    """Largest motion, over corners and centre, from one end of the range to the other; infinite behind the camera."""
    H, W = shape
    uv1 = np.array([[0, 0, 1], [W - 1, 0, 1], [0, H - 1, 1], [W - 1, H - 1, 1], [(W - 1) / 2, (H - 1) / 2, 1]]).T
    rays = K @ T[:3, :3] @ np.linalg.inv(K) @ uv1
    ends = [rays + d * (K @ T[:3, 3])[:, None] for d in (low, high)]
    if min(end[2].min() for end in ends) <= 1e-6:
        return float("inf")
    return float(np.linalg.norm(ends[1][:2] / ends[1][2] - ends[0][:2] / ends[0][2], axis=0).max())


def _nothing_measured(shape: tuple[int, ...], low: float, high: float) -> SweepResult:
    inv_depth = np.full(shape, (low + high) / 2, np.float32)
    return SweepResult(inv_depth, np.full(shape, high - low, np.float32), np.zeros(shape, np.float32))


def _check(
    gray_k: np.ndarray,
    grays_j: Sequence[np.ndarray],
    K: np.ndarray,
    T_jk: Sequence[np.ndarray],
    inv_depth_range: tuple[float, float],
) -> None:
    if gray_k.ndim != 2 or min(gray_k.shape) < 16:
        raise ValueError(f"the keyframe must be a gray image (H, W) of at least 16x16, got {gray_k.shape}")
    if len(grays_j) != len(T_jk):
        raise ValueError(f"each neighbour needs one pose, got {len(grays_j)} images and {len(T_jk)} poses")
    for gray in grays_j:
        if gray.shape != gray_k.shape:
            raise ValueError(f"neighbours must have the size of the keyframe {gray_k.shape}, got {gray.shape}")
    for matrix, size in [(K, 3), *[(T, 4) for T in T_jk]]:
        if matrix.shape != (size, size) or not np.isfinite(matrix).all():
            raise ValueError(f"K must be (3, 3), T_jk (4, 4), all finite, got {matrix.tolist()}")
    if not 0 <= inv_depth_range[0] < inv_depth_range[1] < np.inf:
        raise ValueError(f"inv_depth_range must be 0 <= low < high, got {inv_depth_range}")

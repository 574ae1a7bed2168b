"""The difference of two clocks, found from how fast the camera turned and moved.

Both speeds are compared as signals: the speed of rotation is the same in any world frame and at any scale, that of
translation up to one factor. Reference: normalised cross-correlation over the samples that overlap.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import fftconvolve

from slam.errors import EvaluationError
from slam.frames import Trajectory
from slam.geometry import se3
from slam.geometry.align import umeyama

MIN_POSES = 10
MIN_OVERLAP = 0.5  # of the shorter trajectory's time
MIN_CORRELATION = 0.75  # speeds of other recordings of a few seconds reach 0.74 somewhere
MIN_LEAD = 0.05  # of the best correlation over the best one elsewhere
MAX_SAMPLES = 200_000
REACH_STEPS = 2  # of the coarser trajectory: the speeds are not more exact
REFINE_STEPS = 20  # either way
TINY = 1e-12  # square metres and radians below which a fit is perfect
GAP_STEPS = 10  # a longer step than so many usual ones is a gap: its speed says nothing


@dataclass(frozen=True)
class TimeOffset:
    """What has to be added to the stamps of the estimate."""

    offset_ns: int
    correlation: float  # of the speeds, -1 to 1
    overlap_s: float  # time over which they were compared


def find_time_offset(estimate: Trajectory, truth: Trajectory) -> TimeOffset:
    """The offset at which the speeds of two trajectories agree best.

    Raises:
        EvaluationError: if they are too short, or agree nowhere, or at more than one offset alike.
    """
    for name, trajectory in (("estimate", estimate), ("ground truth", truth)):
        if len(trajectory) < MIN_POSES:
            raise EvaluationError(f"the {name} has {len(trajectory)} poses, too few to find a time offset by")
    steps = [float(np.median(np.diff(t.time_ns))) * 1e-9 for t in (estimate, truth)]
    span_s = sum(float(t.time_ns[-1] - t.time_ns[0]) for t in (estimate, truth)) * 1e-9
    # the coarser steps smooth both, so that noise of a fast clock does not drown the motion
    dt = max(min(steps) / 2, span_s / MAX_SAMPLES)
    a, b = (_speeds(trajectory, dt, max(steps)) for trajectory in (estimate, truth))
    lags, score, overlap = _correlation(a, b)
    shorter = min(a[0].shape[1], b[0].shape[1])
    kept = overlap >= MIN_OVERLAP * shorter
    score = np.where(kept, score, -1.0)
    best = int(np.argmax(score))
    far = np.abs(lags - lags[best]) * dt > max(1.0, 0.05 * shorter * dt)
    rival = float(score[far].max()) if far.any() else -1.0
    if score[best] < MIN_CORRELATION:
        raise EvaluationError(
            f"no time offset found: the speeds of both agree nowhere (best correlation {score[best]:.2f}); "
            "is it the same recording? Say it with --time-offset SECONDS"
        )
    if score[best] - rival < MIN_LEAD:
        raise EvaluationError(
            f"no time offset found: the speeds agree alike at several ({score[best]:.2f} and {rival:.2f}); "
            "say it with --time-offset SECONDS"
        )
    shift = lags[best] + _parabola(score, best)
    coarse_ns = int(truth.time_ns[0]) - int(estimate.time_ns[0]) + round(shift * dt * 1e9)
    offset_ns = _refined(estimate, truth, coarse_ns, round(REACH_STEPS * max(steps) * 1e9))
    return TimeOffset(offset_ns, float(score[best]), float(overlap[best] * dt))


def _refined(estimate: Trajectory, truth: Trajectory, coarse_ns: int, reach_ns: int) -> int:
    """The offset near `coarse_ns` at which rotations and positions fit those of the truth, interpolated, best.

    Both errors are unknown and normal, so the likelihood is the product of powers of their mean squares: neither drift
    of the position nor a few wrong rotations decide alone.
    """
    start = int(truth.time_ns[0])
    offsets_ns = coarse_ns + np.linspace(-reach_ns, reach_ns, 2 * REFINE_STEPS + 1).round().astype(np.int64)
    within = (estimate.time_ns + offsets_ns[0] >= start) & (estimate.time_ns + offsets_ns[-1] <= truth.time_ns[-1])
    if within.sum() < MIN_POSES:
        return coarse_ns
    T_est, T_true = torch.from_numpy(estimate.T_wc[within]), torch.from_numpy(truth.T_wc)
    twists = se3.log(se3.inverse(T_true[:-1]) @ T_true[1:])
    costs = []
    for offset_ns in offsets_ns:
        at = estimate.time_ns[within] + offset_ns
        i = np.clip(np.searchsorted(truth.time_ns, at) - 1, 0, len(truth) - 2)
        share = torch.from_numpy((at - truth.time_ns[i]) / (truth.time_ns[i + 1] - truth.time_ns[i]))
        costs.append(_misfit(T_est, T_true[i] @ se3.exp(share[:, None] * twists[i])))
    best = int(np.argmin(costs))
    if not 0 < best < len(costs) - 1:  # hardly any motion: it says no more than the speeds
        return coarse_ns
    return int(offsets_ns[best]) + round(_parabola(-np.array(costs), best) * reach_ns / REFINE_STEPS)


def _misfit(T_est: torch.Tensor, T_true: torch.Tensor) -> float:
    """Sum of the logarithms of the mean squares of what rotations and positions (N, 4, 4) differ by, aligned."""
    s, R, t = umeyama(T_est[:, :3, 3], T_true[:, :3, 3], with_scale=True)
    away = (s * T_est[:, :3, 3] @ R.T + t - T_true[:, :3, 3]).square().sum(-1).mean()
    U, _, Vt = torch.linalg.svd((T_true[:, :3, :3] @ T_est[:, :3, :3].mT).sum(0))
    U = torch.cat([U[:, :2], U[:, 2:] * torch.det(U @ Vt).sign()], -1)  # a rotation, not a mirror
    turned = (T_true[:, :3, :3] - U @ Vt @ T_est[:, :3, :3]).square().sum((-1, -2)).mean()
    return float((away + TINY).log() + (turned + TINY).log())


def _speeds(trajectory: Trajectory, dt: float, window_s: float) -> tuple[np.ndarray, np.ndarray]:
    """(2, n) speeds of rotation (rad/s) and translation at steps of `dt` from the first pose on, over about `window_s`,
    and (n,) bool where they are known."""
    time_s = (trajectory.time_ns - trajectory.time_ns[0]) * 1e-9
    T = torch.from_numpy(trajectory.T_wc)
    stride = max(1, round(window_s / float(np.median(np.diff(time_s)))))
    motion = se3.inverse(T[:-stride]) @ T[stride:]
    seconds = time_s[stride:] - time_s[:-stride]
    values = np.stack([se3.angle_rad(motion).numpy() / seconds, motion[:, :3, 3].norm(dim=-1).numpy() / seconds])
    middle = 0.5 * (time_s[stride:] + time_s[:-stride])
    at = np.arange(0, time_s[-1] + dt / 2, dt)
    sampled = np.stack([np.interp(at, middle, row) for row in values])
    after = np.clip(np.searchsorted(time_s, at), 1, len(time_s) - 1)
    known = time_s[after] - time_s[after - 1] < GAP_STEPS * float(np.median(np.diff(time_s)))
    return sampled, known & (at >= middle[0]) & (at <= middle[-1])


def _correlation(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lags (samples by which `a` starts later in `b`), mean correlation of both speeds, and samples compared."""
    (x, known_x), (y, known_y) = a, b
    lags = np.arange(-(x.shape[1] - 1), y.shape[1])

    def products(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.asarray(fftconvolve(v, u[::-1]))  # sum of u[k] v[k + lag]

    mx, my = known_x.astype(np.float64), known_y.astype(np.float64)
    n = np.maximum(np.rint(products(mx, my)), 1.0)
    total = np.zeros(len(lags))
    for u, v in zip(x, y):
        u, v = u / max(float(u.std()), 1e-12) * mx, v / max(float(v.std()), 1e-12) * my
        mean_u, mean_v = products(u, my) / n, products(mx, v) / n
        var_u = products(u * u, my) / n - mean_u**2
        var_v = products(mx, v * v) / n - mean_v**2
        covariance = products(u, v) / n - mean_u * mean_v
        total += np.where((var_u > 1e-6) & (var_v > 1e-6), covariance / np.sqrt(np.maximum(var_u * var_v, 1e-12)), 0.0)
    return lags, total / len(x), n


def _parabola(score: np.ndarray, best: int) -> float:
    """Where between the samples the maximum lies, in samples from `best`."""
    if not 0 < best < len(score) - 1:
        return 0.0
    left, middle, right = score[best - 1 : best + 2]
    curvature = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0

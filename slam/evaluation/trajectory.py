"""Trajectory errors: absolute (ATE) and relative (RPE), coverage, scale, path length.

The alignment is part of every result's name: a monocular score without it means nothing.

Reference: Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012;
Zhang & Scaramuzza, A tutorial on quantitative trajectory evaluation for visual(-inertial) odometry, IROS 2018.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from slam.errors import EvaluationError
from slam.frames import Trajectory
from slam.geometry import se3
from slam.geometry.align import umeyama

Alignment = Literal["sim3", "se3", "none"]

MAX_DIFFERENCE_NS = 20_000_000  # between the stamps of a match, as the tools of the TUM benchmark
MIN_MATCHES = 3  # fewer points do not fix a rotation
DELTA_TOLERANCE = 0.1  # an RPE pair may be this share longer or shorter than asked
STEP_TOLERANCE = 0.75  # and this share of a typical step: a pose further off is the edge of a gap, not the nearest
GAP_STEPS = 3  # a step this many times the median one is a gap in the coverage


@dataclass(frozen=True, eq=False)
class AteResult:
    """Distances between matched camera positions after alignment, metres of the truth."""

    alignment: Alignment
    rmse: float
    median: float
    mean: float
    max: float
    scale: float  # the alignment's: metres per unit of the estimate (1 unless sim3)
    matched: int  # poses compared
    coverage: float  # see `coverage`
    time_ns: np.ndarray  # (M,) int64, the estimate's stamps
    errors: np.ndarray  # (M,) float64
    estimate_p_w: np.ndarray  # (M, 3) aligned positions
    truth_p_w: np.ndarray  # (M, 3)

    def numbers(self) -> dict[str, float]:
        """The scores by name, without the arrays."""
        names = ("rmse", "median", "mean", "max", "scale", "matched", "coverage")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class RpeResult:
    """Errors of the motion over `delta_s` seconds: translation in metres of the truth, rotation in degrees."""

    delta_s: float
    pairs: int
    translation_rmse: float
    translation_median: float
    rotation_rmse_deg: float
    rotation_median_deg: float

    def numbers(self) -> dict[str, float]:
        """The scores by name."""
        return dict(vars(self))


def associate(
    estimate: Trajectory, truth: Trajectory, max_difference_ns: int = MAX_DIFFERENCE_NS
) -> tuple[np.ndarray, np.ndarray]:
    """Pair poses by time, one to one, nearest stamps first.

    Args:
        estimate, truth: stamps on the same clock.
        max_difference_ns: largest difference of a pair, inclusive.

    Returns:
        Two (M,) int64 index arrays into `estimate` and `truth`, in order of the estimate's time.

    Raises:
        EvaluationError: if nothing matches or a pose is not finite.
    """
    for name, trajectory in (("estimate", estimate), ("ground truth", truth)):
        if len(trajectory) == 0:
            raise EvaluationError(f"the {name} has no poses")
        if not np.isfinite(trajectory.T_wc).all():
            raise EvaluationError(f"the {name} has a pose that is not finite; remove it")
    order = np.argsort(truth.time_ns, kind="stable")
    stamps = truth.time_ns[order]
    first = np.searchsorted(stamps, estimate.time_ns - max_difference_ns, side="left")
    last = np.searchsorted(stamps, estimate.time_ns + max_difference_ns, side="right")
    i = np.repeat(np.arange(len(estimate)), last - first)
    j = np.concatenate([np.arange(a, b) for a, b in zip(first, last)])
    nearest = np.argsort(np.abs(estimate.time_ns[i] - stamps[j]), kind="stable")
    taken: dict[int, int] = {}
    used: set[int] = set()
    for a, b in zip(i[nearest].tolist(), j[nearest].tolist()):
        if a not in taken and b not in used:
            taken[a] = b
            used.add(b)
    if not taken:
        raise EvaluationError(
            f"no pose of the estimate ({_time_range(estimate)}) is within {max_difference_ns * 1e-9:g} s "
            f"of one of the ground truth ({_time_range(truth)}){_apart(estimate, truth)}"
        )
    matched = np.array(sorted(taken), dtype=np.int64)
    return matched, order[[taken[a] for a in matched.tolist()]]


def ate(
    estimate: Trajectory,
    truth: Trajectory,
    alignment: Alignment,
    max_difference_ns: int = MAX_DIFFERENCE_NS,
    frames_seen: int | None = None,
) -> AteResult:
    """Absolute trajectory error after alignment of the matched camera positions.

    Args:
        estimate: poses in any unit.
        truth: poses in metres.
        alignment: "sim3" (monocular: scale is free), "se3" (metric) or "none" (same world frame).
        max_difference_ns: see `associate`.
        frames_seen: see `coverage`.

    Raises:
        EvaluationError: if no pose matches, or fewer than three and an alignment is asked for.
    """
    i, j = associate(estimate, truth, max_difference_ns)
    p_est, p_true = estimate.T_wc[i, :3, 3], truth.T_wc[j, :3, 3]
    s, R, t = _alignment(p_est, p_true, alignment)
    aligned = s * p_est @ R.T + t
    errors = np.linalg.norm(aligned - p_true, axis=1)
    return AteResult(
        alignment=alignment,
        rmse=float(np.sqrt(np.mean(errors**2))),
        median=float(np.median(errors)),
        mean=float(errors.mean()),
        max=float(errors.max()),
        scale=s,
        matched=len(i),
        coverage=coverage(estimate, truth, frames_seen),
        time_ns=estimate.time_ns[i],
        errors=errors,
        estimate_p_w=aligned,
        truth_p_w=p_true,
    )


def rpe(
    estimate: Trajectory,
    truth: Trajectory,
    delta_s: float = 1.0,
    scale: float = 1.0,
    max_difference_ns: int = MAX_DIFFERENCE_NS,
) -> RpeResult:
    """Relative pose error: the motion over `delta_s` from every matched pose, against the truth's.

    No pose is interpolated: the end of a pair is the matched pose nearest to `delta_s` later, and a pair that is
    off by more than a tenth, or by more than three quarters of the median step between poses, is left out.

    Args:
        estimate, truth, max_difference_ns: see `ate`.
        delta_s: seconds between the poses of a pair.
        scale: multiplies the estimate's translations (the scale of a Sim(3) alignment for a monocular estimate).

    Raises:
        EvaluationError: if no pose matches or no two of them are `delta_s` apart.
    """
    i, j = associate(estimate, truth, max_difference_ns)
    time_ns, delta_ns = estimate.time_ns[i], round(delta_s * 1e9)
    end = _nearest(time_ns, time_ns + delta_ns)
    start = np.arange(len(i))
    step_ns = np.median(np.diff(time_ns)) if len(time_ns) > 1 else 0
    off_ns = np.abs(time_ns[end] - time_ns - delta_ns)
    kept = (end > start) & (off_ns <= min(DELTA_TOLERANCE * delta_ns, STEP_TOLERANCE * step_ns))
    start, end = start[kept], end[kept]
    if len(start) == 0:
        seconds = (time_ns[-1] - time_ns[0]) * 1e-9
        raise EvaluationError(
            f"no two of the {len(i)} matched poses are {delta_s:g} s apart; they span {seconds:.3f} s, "
            "choose a shorter interval"
        )
    T_est, T_true = torch.from_numpy(estimate.T_wc[i]), torch.from_numpy(truth.T_wc[j])
    T_est = se3.from_rt(T_est[:, :3, :3], scale * T_est[:, :3, 3])
    motion_est = se3.inverse(T_est[start]) @ T_est[end]
    motion_true = se3.inverse(T_true[start]) @ T_true[end]
    error = se3.inverse(motion_true) @ motion_est  # Sturm et al., eq. 1
    translation = error[:, :3, 3].norm(dim=-1).numpy()
    rotation_deg = torch.rad2deg(se3.angle_rad(error)).numpy()
    return RpeResult(
        delta_s=delta_s,
        pairs=len(start),
        translation_rmse=float(np.sqrt(np.mean(translation**2))),
        translation_median=float(np.median(translation)),
        rotation_rmse_deg=float(np.sqrt(np.mean(rotation_deg**2))),
        rotation_median_deg=float(np.median(rotation_deg)),
    )


def coverage(estimate: Trajectory, truth: Trajectory, frames_seen: int | None = None) -> float:
    """How much of the sequence has a pose, in [0, 1]: an error over the easy tenth of a sequence says little.

    With `frames_seen` (images given to the system) it is poses per frame. Without, it is the share of the
    truth's time span over which poses follow one another without a gap.

    Raises:
        EvaluationError: if there are more poses than frames.
    """
    if frames_seen is not None:
        if frames_seen < max(len(estimate), 1):
            raise EvaluationError(f"{len(estimate)} poses but only {frames_seen} frames seen; is it the same run?")
        return len(estimate) / frames_seen
    start, end = int(truth.time_ns.min()), int(truth.time_ns.max())
    steps = np.diff(np.clip(np.sort(estimate.time_ns), start, end))
    steps = steps[steps > 0]
    if len(steps) == 0:
        return 0.0
    return float(steps[steps < GAP_STEPS * np.median(steps)].sum() / (end - start))


def path_length(trajectory: Trajectory) -> float:
    """Length of the way of the camera, in the trajectory's unit."""
    return float(np.linalg.norm(np.diff(trajectory.T_wc[:, :3, 3], axis=0), axis=1).sum())


def _alignment(p_est: np.ndarray, p_true: np.ndarray, alignment: Alignment) -> tuple[float, np.ndarray, np.ndarray]:
    """s, R (3, 3), t (3,) that move the estimate's positions (M, 3) onto the truth's."""
    if alignment not in get_args(Alignment):
        raise ValueError(f"alignment is one of {get_args(Alignment)}, got {alignment!r}")
    if alignment == "none":
        return 1.0, np.eye(3), np.zeros(3)
    if len(p_est) < MIN_MATCHES:
        raise EvaluationError(f"{alignment} alignment needs {MIN_MATCHES} matched poses, got {len(p_est)}")
    s, R, t = umeyama(torch.from_numpy(p_est), torch.from_numpy(p_true), with_scale=alignment == "sim3")
    return float(s), R.numpy(), t.numpy()


def _nearest(stamps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices into increasing `stamps` of the nearest to each of `wanted`."""
    right = np.clip(np.searchsorted(stamps, wanted), 1, max(len(stamps) - 1, 1))
    right = np.minimum(right, len(stamps) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(wanted - stamps[left] <= stamps[right] - wanted, left, right)


def _apart(estimate: Trajectory, truth: Trajectory) -> str:
    """How two ranges of time that have no common stamp differ, and what to do."""
    starts = int(truth.time_ns.min()) - int(estimate.time_ns.min())
    remedy = "--time-offset auto finds an offset by the motion, --time-offset SECONDS adds one to the estimate's stamps"
    if estimate.time_ns.max() < truth.time_ns.min() or truth.time_ns.max() < estimate.time_ns.min():
        return f": the ground truth starts {abs(starts) * 1e-9:.3f} s {'later' if starts > 0 else 'earlier'}; {remedy}"
    return f": they overlap in time, but no stamps lie that close; --max-difference allows more, {remedy}"


def _time_range(trajectory: Trajectory) -> str:
    return f"{trajectory.time_ns.min() * 1e-9:.3f} to {trajectory.time_ns.max() * 1e-9:.3f} s"

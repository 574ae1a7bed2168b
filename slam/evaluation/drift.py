"""Drift: where a run ends if it is aligned at its start, and how its unit of length changes on the way."""

from dataclasses import dataclass

import numpy as np
import torch

from slam.errors import EvaluationError
from slam.evaluation.trajectory import MAX_DIFFERENCE_NS, associate
from slam.frames import Trajectory
from slam.geometry.align import umeyama

PART = 0.1  # of the poses: what is aligned at the start, and what the unit is measured over
MIN_SPREAD = 0.2  # of the usual way in a part, below which its unit cannot be told


@dataclass(frozen=True)
class DriftResult:
    """What ATE averages away."""

    end_m: float  # distance of the last pose from the truth, after Sim(3) alignment of the first tenth
    scale_drift: float  # unit of the last part over that of the first; 1: no drift
    scale_spread: float  # standard deviation of the log of the units of all parts

    def numbers(self) -> dict[str, float]:
        """The scores by name."""
        return dict(vars(self))


def drift(estimate: Trajectory, truth: Trajectory, max_difference_ns: int = MAX_DIFFERENCE_NS) -> DriftResult:
    """Drift of a trajectory.

    Raises:
        EvaluationError: as `associate`, or if fewer than 20 poses match or the camera hardly moved.
    """
    i, j = associate(estimate, truth, max_difference_ns)
    if len(i) < 2 / PART:
        raise EvaluationError(f"drift needs {2 / PART:.0f} poses with truth, there are {len(i)}")
    p_est, p_true = estimate.T_wc[i, :3, 3], truth.T_wc[j, :3, 3]
    first = max(10, round(PART * len(i)))
    s, R, t = umeyama(torch.from_numpy(p_est[:first]), torch.from_numpy(p_true[:first]))
    end = float(s) * p_est[-1] @ R.numpy().T + t.numpy()
    parts = np.array_split(np.arange(len(i)), round(1 / PART))
    spread = np.array([[_spread(p[part]) for part in parts] for p in (p_est, p_true)])
    moving = (spread[1] > MIN_SPREAD * np.median(spread[1])) & (spread > 0).all(0)
    if moving.sum() < 2:
        raise EvaluationError("the camera hardly moved: no drift can be told")
    unit = spread[1, moving] / spread[0, moving]
    return DriftResult(float(np.linalg.norm(end - p_true[-1])), float(unit[0] / unit[-1]), float(np.log(unit).std()))


def _spread(positions: np.ndarray) -> float:
    """Root mean square distance (N, 3) from the mean."""
    return float(np.sqrt(np.square(positions - positions.mean(0)).sum(-1).mean()))

"""Drift of trajectories whose drift is known."""

import numpy as np
import pytest

from slam.errors import EvaluationError
from slam.evaluation.drift import drift
from slam.frames import Trajectory


def circle(count: int = 200, radius=1.0) -> Trajectory:
    """Once round; `radius` may change on the way."""
    angle = np.linspace(0, 2 * np.pi, count)
    T_wc = np.tile(np.eye(4), (count, 1, 1))
    step = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], -1) * np.broadcast_to(radius, count)[:, None]
    T_wc[1:, :3, 3] = np.cumsum(step, 0)[:-1] * (2 * np.pi / count)
    return Trajectory(np.arange(count, dtype=np.int64) * 10**8, T_wc)


def test_a_perfect_run_in_another_unit_has_none():
    result = drift(circle(radius=0.3), circle())
    assert result.end_m == pytest.approx(0, abs=1e-9)
    assert result.scale_drift == pytest.approx(1) and result.scale_spread == pytest.approx(0, abs=1e-9)


def test_a_unit_that_grows_is_told():
    rescaled = circle(radius=np.linspace(1, 1.2, 200))  # the mean of the last tenth over that of the first: 1.19 / 1.01
    result = drift(rescaled, circle())
    assert result.scale_drift == pytest.approx(1.19 / 1.01, rel=0.01)
    assert 0.03 < result.scale_spread < 0.08
    assert result.end_m > 0.15


def test_too_short_or_at_rest():
    with pytest.raises(EvaluationError, match="needs 20 poses"):
        drift(circle(12), circle(12))
    with pytest.raises(EvaluationError, match="hardly moved"):
        drift(circle(radius=0), circle(radius=0))

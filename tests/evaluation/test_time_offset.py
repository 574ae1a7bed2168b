"""The offset of two clocks is found by the motion, whatever the world frame, the scale, the rates and the noise."""

import numpy as np
import pytest
import torch

from slam.errors import EvaluationError
from slam.evaluation.time_offset import find_time_offset
from slam.frames import Trajectory
from slam.geometry import se3


def walk(time_s: np.ndarray, seed: int = 0) -> np.ndarray:
    """Poses of a hand-held camera, a sum of sines of periods from 0.7 to 5 s."""
    rng = np.random.default_rng(seed)
    rates, phases, sizes = rng.uniform(1.2, 9, (6, 4)), rng.uniform(0, 6, (6, 4)), rng.uniform(0.02, 0.1, (6, 4))
    xi = (sizes[None] * np.sin(rates[None] * time_s[:, None, None] + phases[None])).sum(-1)
    return se3.exp(torch.from_numpy(xi)).numpy()


@pytest.mark.parametrize("offset_s", [1_305_031_102.175, -3.21, 0.0, 7.4])
def test_the_offset_is_found_to_a_fraction_of_a_frame(offset_s):
    """A run at 30 Hz of half of a truth at 100 Hz, in another world, at another scale, with noise of a millimetre."""
    rng = np.random.default_rng(1)
    truth_s = np.arange(0, 20, 0.01)
    run_s = np.arange(6, 14, 1 / 30)
    T_vw = se3.exp(torch.tensor([1.0, 2, 3, 0.5, -1, 2], dtype=torch.float64)).numpy()
    T_vc = T_vw @ walk(run_s)
    T_vc[:, :3, 3] = 0.2 * (T_vc[:, :3, 3] + 0.001 * rng.standard_normal((len(run_s), 3)))
    estimate = Trajectory(np.round((run_s - offset_s) * 1e9).astype(np.int64), T_vc)
    truth = Trajectory(np.round(truth_s * 1e9).astype(np.int64), walk(truth_s))
    found = find_time_offset(estimate, truth)
    assert found.offset_ns * 1e-9 == pytest.approx(offset_s, abs=0.002)
    assert found.correlation > 0.8 and found.overlap_s == pytest.approx(8, abs=0.5)


def test_another_recording_and_one_at_rest_have_none():
    time_s = np.arange(0, 12, 1 / 30)
    time_ns = np.round(time_s * 1e9).astype(np.int64)
    truth = Trajectory(time_ns, walk(time_s))
    with pytest.raises(EvaluationError, match="no time offset found"):
        find_time_offset(Trajectory(time_ns, walk(time_s, seed=5)), truth)
    with pytest.raises(EvaluationError, match="no time offset found"):
        find_time_offset(Trajectory(time_ns, np.tile(np.eye(4), (len(time_s), 1, 1))), truth)
    with pytest.raises(EvaluationError, match="has 3 poses, too few"):
        find_time_offset(Trajectory(time_ns[:3], truth.T_wc[:3]), truth)


def test_a_motion_that_repeats_is_refused():
    """Back and forth every two seconds: the same speeds at many offsets."""
    time_s = np.arange(0, 24, 1 / 30)
    xi = np.zeros((len(time_s), 6))
    xi[:, 0], xi[:, 4] = 0.3 * np.sin(np.pi * time_s), 0.2 * np.sin(np.pi * time_s)
    T_wc = se3.exp(torch.from_numpy(xi)).numpy()
    time_ns = np.round(time_s * 1e9).astype(np.int64)
    with pytest.raises(EvaluationError, match="agree alike at several"):
        find_time_offset(Trajectory(time_ns[:300], T_wc[:300]), Trajectory(time_ns, T_wc))

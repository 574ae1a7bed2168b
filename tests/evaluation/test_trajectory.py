"""Trajectory errors: by hand, by construction, and against an independent tool."""

import numpy as np
import pytest
import torch

from slam.errors import EvaluationError
from slam.evaluation.trajectory import associate, ate, coverage, path_length, rpe
from slam.frames import Trajectory
from slam.geometry import se3


def straight(positions, rate_hz=10.0, start_ns=1_305_031_102_175_304_000) -> Trajectory:
    """Poses without rotation at the given positions, at the stamps of a real recording."""
    T_wc = np.tile(np.eye(4), (len(positions), 1, 1))
    T_wc[:, :3, 3] = positions
    return Trajectory(start_ns + (np.arange(len(positions)) * 1e9 / rate_hz).astype(np.int64), T_wc)


def wandering(n=120, seed=1) -> Trajectory:
    """A smooth walk that turns by many degrees about all axes, at 10 Hz."""
    steps = 0.1 * torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    T_wc = [torch.eye(4, dtype=torch.float64)]
    for xi in steps[1:]:
        T_wc.append(T_wc[-1] @ se3.exp(xi))
    stamps = straight(np.zeros((n, 3))).time_ns
    return Trajectory(stamps, torch.stack(T_wc).numpy())


def noisy(trajectory: Trajectory, sigma=0.02, seed=2) -> Trajectory:
    xi = sigma * torch.randn(len(trajectory), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Trajectory(trajectory.time_ns, (torch.from_numpy(trajectory.T_wc) @ se3.exp(xi)).numpy())


def moved(trajectory: Trajectory, s: float, T: np.ndarray) -> Trajectory:
    """In another world frame and unit."""
    T_wc = T @ trajectory.T_wc
    T_wc[:, :3, 3] *= s
    return Trajectory(trajectory.time_ns, T_wc)


ELSEWHERE = se3.exp(torch.tensor([3.0, -2.0, 0.5, 0.7, -1.9, 1.1], dtype=torch.float64)).numpy()


def test_ate_by_hand():
    """Errors 0, 3, 4 and 5 m: rmse sqrt(50 / 4), mean 3, median 3.5."""
    truth = straight(np.zeros((4, 3)))
    estimate = straight([[0, 0, 0], [3, 0, 0], [0, -4, 0], [0, 3, 4]])
    result = ate(estimate, truth, "none")
    assert result.rmse == pytest.approx(np.sqrt(12.5), abs=1e-12)
    assert (result.mean, result.median, result.max, result.matched) == (3.0, 3.5, 5.0, 4)


def test_se3_ate_by_hand():
    """A square stretched along x by 2 about its centre leaves every corner 0.5 m from its place."""
    corners = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    result = ate(straight(corners * [2, 1, 1]), straight(corners), "se3")
    np.testing.assert_allclose(result.errors, 0.5, atol=1e-12)
    # scaled by s the square of the errors is (s - 1/2)^2 + (s/2 - 1/2)^2, least at s = 0.6
    scaled = ate(straight(corners * [2, 1, 1]), straight(corners), "sim3")
    assert scaled.scale == pytest.approx(0.6, abs=1e-12)
    assert scaled.rmse == pytest.approx(np.sqrt(0.1**2 + 0.2**2), abs=1e-12)


def test_sim3_alignment_undoes_a_known_similarity():
    truth = wandering()
    result = ate(moved(truth, 0.25, ELSEWHERE), truth, "sim3")
    assert result.rmse < 1e-12
    assert result.scale == pytest.approx(4.0, rel=1e-12)
    np.testing.assert_allclose(result.estimate_p_w, result.truth_p_w, atol=1e-12)


def test_each_alignment_removes_only_what_its_name_says():
    truth = wandering()
    rigid, scaled = moved(truth, 1.0, ELSEWHERE), moved(truth, 0.5, ELSEWHERE)
    assert ate(rigid, truth, "none").rmse > 1.0
    assert ate(rigid, truth, "se3").rmse < 1e-12
    assert ate(scaled, truth, "se3").rmse > 0.1
    assert ate(scaled, truth, "se3").scale == 1.0


def test_a_mirrored_estimate_is_not_aligned_by_a_reflection():
    truth = wandering()
    T_wc = truth.T_wc.copy()
    T_wc[:, 0, 3] *= -1
    assert ate(Trajectory(truth.time_ns, T_wc), truth, "sim3").rmse > 0.05


def test_association_is_one_to_one_and_takes_the_nearest():
    ms = 1_000_000
    estimate = straight(np.zeros((3, 3)), start_ns=0)
    estimate = Trajectory(np.array([0, 10, 100]) * ms, estimate.T_wc)
    truth = Trajectory(np.array([-30, 8, 95, 99]) * ms, np.tile(np.eye(4), (4, 1, 1)))
    i, j = associate(estimate, truth, 20 * ms)
    # both 0 and 10 ms are within 20 ms of 8 ms, the nearer has it; 0 has no other
    assert (i.tolist(), j.tolist()) == ([1, 2], [1, 3])
    i, j = associate(estimate, truth, 30 * ms)
    assert (i.tolist(), j.tolist()) == ([0, 1, 2], [0, 1, 3])


def test_association_reads_an_unsorted_truth():
    estimate = straight(np.zeros((5, 3)))
    truth = wandering(5)
    shuffled = Trajectory(truth.time_ns[[3, 1, 4, 0, 2]], truth.T_wc[[3, 1, 4, 0, 2]])
    _, j = associate(estimate, shuffled)
    np.testing.assert_array_equal(shuffled.time_ns[j], estimate.time_ns)


def test_no_match_names_both_time_ranges():
    estimate = straight(np.zeros((5, 3)), start_ns=0)
    truth = straight(np.zeros((5, 3)), start_ns=100_000_000_000)
    with pytest.raises(EvaluationError, match=r"0\.000 to 0\.400 s.*100\.000 to 100\.400 s"):
        ate(estimate, truth, "sim3")


@pytest.mark.parametrize("alignment", ["sim3", "se3"])
def test_two_poses_cannot_be_aligned(alignment):
    two = straight([[0, 0, 0], [1, 0, 0]])
    with pytest.raises(EvaluationError, match="needs 3 matched poses, got 2"):
        ate(two, two, alignment)
    assert ate(two, two, "none").rmse == 0.0


def test_a_pose_that_is_not_finite_is_refused():
    truth = wandering(10)
    T_wc = truth.T_wc.copy()
    T_wc[4, 0, 3] = np.nan
    with pytest.raises(EvaluationError, match="not finite"):
        ate(Trajectory(truth.time_ns, T_wc), truth, "se3")
    with pytest.raises(EvaluationError, match="no poses"):
        ate(Trajectory(truth.time_ns[:0], T_wc[:0]), truth, "se3")


def test_rpe_by_hand():
    """Truth walks 1 m/s and turns 10 deg/s about y; the estimate 1.1 m/s and 13 deg/s: 0.1 m and 3 deg a second."""

    def walk(speed, turn_deg):
        xi = torch.tensor([0, 0, 0, 0, np.deg2rad(turn_deg), 0], dtype=torch.float64)
        step = se3.exp(0.1 * xi)
        step[2, 3] = 0.1 * speed
        T_wc = [torch.eye(4, dtype=torch.float64)]
        for _ in range(50):
            T_wc.append(T_wc[-1] @ step)
        return Trajectory(straight(np.zeros((51, 3))).time_ns, torch.stack(T_wc).numpy())

    turned = rpe(walk(1.0, 13.0), walk(1.0, 10.0), delta_s=1.0)
    assert turned.pairs == 41
    assert turned.rotation_rmse_deg == pytest.approx(3.0, abs=1e-9)
    faster = rpe(walk(1.1, 0.0), walk(1.0, 0.0), delta_s=2.0)
    assert faster.translation_rmse == pytest.approx(0.2, abs=1e-9)
    assert rpe(walk(1.1, 0.0), walk(1.0, 0.0), scale=1 / 1.1).translation_rmse < 1e-12


def test_rpe_does_not_depend_on_the_world_frame():
    truth = wandering()
    a, b = rpe(noisy(truth), truth), rpe(moved(noisy(truth), 1.0, ELSEWHERE), truth)
    assert a.translation_rmse == pytest.approx(b.translation_rmse, rel=1e-9)
    assert a.rotation_rmse_deg == pytest.approx(b.rotation_rmse_deg, rel=1e-9)


def test_rpe_leaves_out_pairs_across_a_gap():
    """After 1 s of poses comes a gap of 10 s: no pose is 1 s after any but the first."""
    truth = wandering(22)
    time_ns = truth.time_ns.copy()
    time_ns[11:] += 10_000_000_000
    gap = Trajectory(time_ns, truth.T_wc)
    assert rpe(gap, gap).pairs == 2
    with pytest.raises(EvaluationError, match="span 12"):
        rpe(gap, gap, delta_s=5.0)


def test_coverage_counts_frames_or_time():
    truth = wandering(101)  # 10 s
    half = Trajectory(truth.time_ns[:51], truth.T_wc[:51])
    assert coverage(half, truth, frames_seen=102) == 0.5
    assert coverage(half, truth) == pytest.approx(0.5)
    holes = np.r_[0:26, 76:101]  # the 5 s in the middle are missing
    assert coverage(Trajectory(truth.time_ns[holes], truth.T_wc[holes]), truth) == pytest.approx(0.49, abs=0.011)
    assert coverage(truth, truth) == pytest.approx(1.0)
    assert coverage(Trajectory(truth.time_ns[:1], truth.T_wc[:1]), truth) == 0.0
    with pytest.raises(EvaluationError, match="101 poses but only 100 frames"):
        coverage(truth, truth, frames_seen=100)


def test_coverage_of_sparse_poses_without_a_gap_is_full():
    truth = wandering(101)
    assert coverage(Trajectory(truth.time_ns[::5], truth.T_wc[::5]), truth) == pytest.approx(1.0)


def test_path_length_by_hand():
    assert path_length(straight([[0, 0, 0], [3, 4, 0], [3, 4, 12]])) == 17.0


@pytest.mark.parametrize("alignment", ["sim3", "se3", "none"])
def test_ate_agrees_with_evo(alignment):
    metrics, pose = pytest.importorskip("evo.core.metrics"), pytest.importorskip("evo.core.trajectory")
    truth = wandering()
    estimate = moved(noisy(truth), 0.6, ELSEWHERE)
    est, ref = (pose.PoseTrajectory3D(poses_se3=list(t.T_wc), timestamps=t.time_ns * 1e-9) for t in (estimate, truth))
    scale = 1.0
    if alignment != "none":
        scale = est.align(ref, correct_scale=alignment == "sim3")[2]
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((ref, est))
    golden = ape.get_all_statistics()
    ours = ate(estimate, truth, alignment)
    for name in ("rmse", "median", "mean", "max"):
        assert getattr(ours, name) == pytest.approx(golden[name], rel=1e-9)
    assert ours.scale == pytest.approx(scale, rel=1e-9)


def test_rpe_agrees_with_evo():
    metrics, pose = pytest.importorskip("evo.core.metrics"), pytest.importorskip("evo.core.trajectory")
    truth = wandering()
    estimate = noisy(truth)
    est, ref = (pose.PoseTrajectory3D(poses_se3=list(t.T_wc), timestamps=t.time_ns * 1e-9) for t in (estimate, truth))
    ours = rpe(estimate, truth, delta_s=1.0)  # ten frames
    golden = []
    for relation in (metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg):
        metric = metrics.RPE(relation, delta=10, delta_unit=metrics.Unit.frames, all_pairs=True)
        metric.process_data((ref, est))
        golden += [
            metric.get_statistic(metrics.StatisticsType.rmse),
            metric.get_statistic(metrics.StatisticsType.median),
        ]
        assert len(metric.error) == ours.pairs
    found = [ours.translation_rmse, ours.translation_median, ours.rotation_rmse_deg, ours.rotation_median_deg]
    np.testing.assert_allclose(found, golden, rtol=1e-9)

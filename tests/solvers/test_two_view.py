"""Relative pose from matched points alone."""

import numpy as np
import pytest
import torch

from slam.geometry import se3
from slam.solvers.two_view import MIN_POINTS, essential_pose

K = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
T_TRUE = se3.exp(torch.tensor([0.3, -0.1, 0.05, 0.02, -0.08, 0.03], dtype=torch.float64)).numpy()


def matched(T_ji: np.ndarray, count: int = 300, noise_px: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in both views of points between 1 and 4 units before the first."""
    g = np.random.default_rng(seed)
    z = g.uniform(1, 4, count)
    uv_i = g.uniform([5, 5], [155, 115], (count, 2))
    p_i = z[:, None] * np.column_stack([(uv_i - K[:2, 2]) / [K[0, 0], K[1, 1]], np.ones(count)])
    p_j = p_i @ T_ji[:3, :3].T + T_ji[:3, 3]
    uv_j = p_j[:, :2] / p_j[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]
    return uv_i, uv_j + noise_px * g.standard_normal(uv_j.shape)


def errors(T: np.ndarray) -> tuple[float, float]:
    """Angles of the rotation and of the direction of the translation off the truth, degrees."""
    turn = se3.angle_rad(torch.from_numpy(T[:3, :3] @ T_TRUE[:3, :3].T))
    direction = T_TRUE[:3, 3] / np.linalg.norm(T_TRUE[:3, 3])
    return float(torch.rad2deg(turn)), float(np.degrees(np.arccos(np.clip(T[:3, 3] @ direction, -1, 1))))


@pytest.mark.parametrize("wrong", [0.0, 0.4])
def test_rotation_and_direction_are_found_among_wrong_matches(wrong: float) -> None:
    uv_i, uv_j = matched(T_TRUE)
    foreign = np.random.default_rng(1).random(len(uv_j)) < wrong
    uv_j[foreign] = np.random.default_rng(2).uniform([0, 0], [160, 120], (int(foreign.sum()), 2))
    T = essential_pose(uv_i, uv_j, K)
    assert T is not None and np.linalg.norm(T[:3, 3]) == pytest.approx(1)
    turn_deg, direction_deg = errors(T)
    assert turn_deg < 0.6 and direction_deg < 3
    again = essential_pose(uv_i, uv_j, K)
    assert np.array_equal(T, again)


def test_few_points_fix_no_motion() -> None:
    uv_i, uv_j = matched(T_TRUE)
    assert essential_pose(uv_i[: MIN_POINTS - 1], uv_j[: MIN_POINTS - 1], K) is None
    assert essential_pose(uv_i[:MIN_POINTS], uv_j[:MIN_POINTS], K) is not None


def test_points_that_did_not_move_fix_no_motion() -> None:
    uv_i, _ = matched(T_TRUE)
    assert essential_pose(uv_i, uv_i.copy(), K) is None


def test_a_pure_rotation_fixes_no_translation() -> None:
    turned = T_TRUE.copy()
    turned[:3, 3] = 0
    assert essential_pose(*matched(turned), K) is None

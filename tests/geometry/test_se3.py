"""Rigid motions: against the matrix exponential, near zero, near pi, group axioms."""

import math

import pytest
import torch

from slam.geometry import se3

F64 = torch.float64
ANGLES = [0.0, 1e-12, 1e-8, 9.9e-5, 1.01e-4, 1e-3, 0.5, 2.0, 3.0, math.pi - 1e-3, math.pi - 1e-6, math.pi - 1e-9]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def directions(n=20, seed=0):
    """Unit vectors: random ones, the axes, and their negatives."""
    random = torch.randn(n, 3, dtype=F64, generator=generator(seed))
    axes = torch.cat([torch.eye(3, dtype=F64), -torch.eye(3, dtype=F64)])
    return torch.cat([random / random.norm(dim=-1, keepdim=True), axes])


def twists(angle, seed=0):
    omega = angle * directions(seed=seed)
    v = torch.randn(omega.shape, dtype=F64, generator=generator(seed + 1))
    return torch.cat([v, omega], -1)


def generator_matrix(xi):
    G = torch.zeros(*xi.shape[:-1], 4, 4, dtype=xi.dtype)
    G[..., :3, :3] = se3.hat(xi[..., 3:])
    G[..., :3, 3] = xi[..., :3]
    return G


def test_hat_is_the_cross_product():
    a, b = torch.randn(2, 50, 3, dtype=F64, generator=generator())
    torch.testing.assert_close((se3.hat(a) @ b[..., None]).squeeze(-1), torch.linalg.cross(a, b), rtol=0, atol=1e-15)


def test_quarter_turn_about_z_takes_x_to_y():
    R = se3.so3_exp(torch.tensor([0, 0, math.pi / 2], dtype=F64))
    torch.testing.assert_close(R[:, 0], torch.tensor([0, 1, 0], dtype=F64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_is_the_matrix_exponential(angle):
    xi = twists(angle)
    torch.testing.assert_close(se3.exp(xi), torch.linalg.matrix_exp(generator_matrix(xi)), rtol=0, atol=2e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_undoes_exp(angle):
    """Near pi the axis is still read off to rounding; 1e-9 before pi its sign still is defined."""
    xi = twists(angle)
    torch.testing.assert_close(se3.log(se3.exp(xi)), xi, rtol=0, atol=1e-13)


def test_small_rotations_keep_their_digits():
    """A rotation of 1e-7 rad comes back to 9 digits, not merely to an absolute 1e-16 beside 1."""
    omega = 1e-7 * directions()
    torch.testing.assert_close(se3.so3_log(se3.so3_exp(omega)), omega, rtol=1e-9, atol=1e-22)


def test_log_at_exactly_pi_is_one_of_the_two_axes():
    for axis in directions():
        R = 2 * torch.outer(axis, axis) - torch.eye(3, dtype=F64)
        omega = se3.so3_log(R)
        assert abs(float(omega.norm()) - math.pi) < 1e-12
        torch.testing.assert_close(se3.so3_exp(omega), R, rtol=0, atol=1e-12)


def test_log_of_angles_beyond_pi_takes_the_short_way():
    omega = torch.tensor([0, math.pi + 0.1, 0], dtype=F64)
    expected = torch.tensor([0, -(math.pi - 0.1), 0], dtype=F64)
    torch.testing.assert_close(se3.so3_log(se3.so3_exp(omega)), expected, rtol=0, atol=1e-13)


def test_exp_in_float32_is_as_good_as_float32():
    for angle in ANGLES:
        xi = twists(angle)
        torch.testing.assert_close(se3.exp(xi.float()).double(), se3.exp(xi), rtol=0, atol=2e-6)
        assert se3.exp(xi.float()).dtype == torch.float32


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.0])
def test_exp_and_log_have_finite_true_gradients(angle):
    """Autograd of log(exp(xi)) is the identity, at zero too."""
    xi = twists(angle, seed=3)[0]
    J = torch.autograd.functional.jacobian(lambda x: se3.log(se3.exp(x)), xi)
    torch.testing.assert_close(J, torch.eye(6, dtype=F64), rtol=0, atol=1e-7)


def test_left_update_derivative_of_a_moved_point():
    """d/dxi of exp(xi) p at zero is [I, -hat(p)]: translation first, update on the left."""
    p = torch.tensor([0.3, -1.2, 2.5], dtype=F64)

    def moved(xi):
        T = se3.exp(xi)
        return T[:3, :3] @ p + T[:3, 3]

    J = torch.autograd.functional.jacobian(moved, torch.zeros(6, dtype=F64))
    torch.testing.assert_close(J, torch.cat([torch.eye(3, dtype=F64), -se3.hat(p)], -1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("angle", [1e-9, 0.7, 3.1])
def test_group_axioms(angle):
    A, B, C = (se3.exp(twists(angle, seed)) for seed in (0, 1, 2))
    eye = torch.eye(4, dtype=F64).expand_as(A)
    torch.testing.assert_close(A @ se3.inverse(A), eye, rtol=0, atol=1e-14)
    torch.testing.assert_close(se3.inverse(A) @ A, eye, rtol=0, atol=1e-14)
    torch.testing.assert_close(se3.inverse(A @ B), se3.inverse(B) @ se3.inverse(A), rtol=0, atol=1e-14)
    torch.testing.assert_close((A @ B) @ C, A @ (B @ C), rtol=0, atol=1e-13)
    torch.testing.assert_close(se3.exp(-se3.log(A)), se3.inverse(A), rtol=0, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.7, 3.1])
def test_adjoint_moves_an_update_to_the_other_side(angle):
    T, xi = se3.exp(twists(angle)), 0.3 * twists(1.0, seed=5)
    moved = (se3.adjoint(T) @ xi[..., None]).squeeze(-1)
    torch.testing.assert_close(T @ se3.exp(xi), se3.exp(moved) @ T, rtol=0, atol=1e-13)


def test_adjoint_is_a_homomorphism():
    A, B = se3.exp(twists(1.0)), se3.exp(twists(2.0, seed=1))
    torch.testing.assert_close(se3.adjoint(A @ B), se3.adjoint(A) @ se3.adjoint(B), rtol=0, atol=1e-12)


def test_orthonormalised_removes_drift_and_keeps_a_rotation():
    T = se3.exp(twists(2.0))
    drifted = T.clone()
    drifted[:, :3, :3] += 1e-4 * torch.randn(len(T), 3, 3, dtype=F64, generator=generator())
    clean = se3.orthonormalised(drifted)
    eye = torch.eye(3, dtype=F64).expand(len(T), 3, 3)
    torch.testing.assert_close(clean[:, :3, :3].mT @ clean[:, :3, :3], eye, rtol=0, atol=1e-14)
    assert (torch.linalg.det(clean[:, :3, :3]) > 0).all()
    torch.testing.assert_close(clean, T, rtol=0, atol=1e-3)
    torch.testing.assert_close(se3.orthonormalised(T), T, rtol=0, atol=1e-14)


def test_orthonormalised_never_reflects():
    T = torch.eye(4, dtype=F64)
    T[2, 2] = -0.1
    assert float(torch.linalg.det(se3.orthonormalised(T)[:3, :3])) == pytest.approx(1.0)


def test_angle():
    for angle in ANGLES:
        torch.testing.assert_close(
            se3.angle_rad(se3.exp(twists(angle))), torch.full((26,), angle, dtype=F64), rtol=0, atol=1e-13
        )

"""Gauss-Newton on poses: derivatives, recovery of known motions, degenerate input, gradients, outliers."""

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import reproject
from slam.kernels.normal_equations import huber_weight, normal_equations
from slam.solvers.gauss_newton import (
    MAX_UPDATE,
    Damping,
    pose_step,
    rotation_step,
    solve_damped,
)

F64 = torch.float64
K = torch.tensor([[18.0, 0, 7.3], [0, 19.0, 5.8], [0, 0, 1]], dtype=F64)
H, W = 12, 16
UNDAMPED = Damping(0.0, 0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=seeded(seed))


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=F64, generator=seeded(seed))


def scene(E: int, seed: int = 0, height: int = H, width: int = W) -> tuple[Tensor, Tensor, Tensor]:
    """Random inverse depths (E, h, w), motions T_ji (E, 4, 4) of about 0.15 units and 9 degrees, exact targets."""
    inv_depth = 0.3 + rand(E, height, width, seed=seed)
    T_ji = se3.exp(0.15 * randn(E, 6, seed=seed + 1))
    target, _, valid = reproject(inv_depth, T_ji, K.expand(E, 3, 3))
    assert valid.all()
    return inv_depth, T_ji, target


def perturbed(T: Tensor, size: float = 0.05, seed: int = 7) -> Tensor:
    return se3.exp(size * randn(len(T), 6, seed=seed)) @ T


def error(T: Tensor, T_true: Tensor) -> float:
    return float(se3.log(T @ se3.inverse(T_true)).abs().max())


@pytest.mark.parametrize("huber_px", [None, 0.5])
def test_normal_equations_are_those_of_the_numerical_jacobian(huber_px):
    E = 3
    inv_depth, T_ji, target = scene(E)
    target = target + randn(E, H, W, 2, seed=3)  # residuals of a pixel: some inside the robust threshold, most not
    weight = rand(E, H, W, 2, seed=4)
    K_e = K.expand(E, 3, 3)

    def residual(xi: Tensor) -> Tensor:
        return target - reproject(inv_depth, se3.exp(xi) @ T_ji, K_e)[0]

    zero = torch.zeros(E, 6, dtype=F64)
    J = torch.func.jacrev(residual)(zero)  # (E, H, W, 2, E, 6)
    r = residual(zero)
    w = weight if huber_px is None else weight * huber_px / r.norm(dim=-1, keepdim=True).clamp_min(huber_px)
    got_H, got_b = normal_equations(target, weight, inv_depth, T_ji, K_e, huber_px)
    for e in range(E):
        J_e = J[e, ..., e, :].reshape(-1, 6)
        w_e = w[e].reshape(-1, 1)
        torch.testing.assert_close(got_H[e], J_e.mT @ (w_e * J_e), rtol=1e-10, atol=1e-9)
        torch.testing.assert_close(got_b[e], -(J_e.mT @ (w_e * r[e].reshape(-1, 1)))[:, 0], rtol=1e-10, atol=1e-9)


def test_pose_step_recovers_a_perturbed_motion():
    inv_depth, T_true, target = scene(4)
    weight = rand(4, H, W, 2, seed=5)
    start = perturbed(T_true)
    assert error(start, T_true) > 0.05
    undamped = pose_step(target, weight, inv_depth, start, K.expand(4, 3, 3), 6, UNDAMPED)
    assert undamped.ok.all() and error(undamped.T, T_true) < 1e-12
    damped = pose_step(target, weight, inv_depth, start, K.expand(4, 3, 3), 8)
    assert damped.ok.all() and error(damped.T, T_true) < 1e-9  # damping slows, it does not bias


def test_edges_are_independent():
    inv_depth, T_true, target = scene(3)
    weight, start, K_e = rand(3, H, W, 2, seed=5), perturbed(T_true), K.expand(3, 3, 3)
    together = pose_step(target, weight, inv_depth, start, K_e).T
    for e in range(3):
        s = slice(e, e + 1)
        alone = pose_step(target[s], weight[s], inv_depth[s], start[s], K_e[s]).T
        torch.testing.assert_close(together[s], alone, rtol=0, atol=1e-12)


def test_rotation_step_finds_the_rotation_and_leaves_the_parallax():
    omega = torch.tensor([[0.05, -0.1, 0.08]], dtype=F64)
    R = se3.exp(torch.cat([torch.zeros_like(omega), omega], -1))
    far = torch.zeros(1, H, W, dtype=F64)
    target, _, _ = reproject(far, R, K[None])
    T = rotation_step(target, torch.ones_like(target), K[None])
    assert error(T, R) < 1e-10
    moved = R.clone()
    moved[:, :3, 3] = torch.tensor([0.2, 0, 0])
    near = torch.zeros(1, H, W, dtype=F64)
    near[:, ::2, ::2] = 0.5 * rand(1, H // 2, W // 2)
    target, _, _ = reproject(near, moved, K[None])
    T = rotation_step(target, torch.ones_like(target), K[None], steps=20, huber_px=0.05)
    assert torch.equal(T[:, :3, 3], torch.zeros(1, 3, dtype=F64))
    assert error(T, R) < 0.02  # a quarter of the pixels have parallax of up to 2 px: Huber follows the rest


@pytest.mark.parametrize("cells", [0, 1, 2])
def test_too_few_points_are_reported_and_change_nothing(cells):
    """Six unknowns need three points of two rows each."""
    inv_depth, T_true, target = scene(2)
    start = perturbed(T_true)
    weight = torch.ones_like(target)
    weight[1] = 0
    weight[1].view(-1, 2)[torch.tensor([20, 150, 75])[:cells]] = 1
    solution = pose_step(target, weight, inv_depth, start, K.expand(2, 3, 3))
    assert solution.ok.tolist() == [True, False]
    assert torch.equal(solution.T[1], start[1])
    weight[1].view(-1, 2)[torch.tensor([20, 150, 75, 16])] = 1
    assert pose_step(target, weight, inv_depth, start, K.expand(2, 3, 3)).ok.all()


def test_points_at_infinity_alone_are_reported():
    """They fix the rotation only: the translation is unknown."""
    inv_depth, T_true, _ = scene(1)
    target, _, _ = reproject(0 * inv_depth, T_true, K[None])
    start = perturbed(T_true)
    solution = pose_step(target, torch.ones_like(target), 0 * inv_depth, start, K[None])
    assert not solution.ok.any() and torch.equal(solution.T, start)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("huber_px", [None, 1.0])
def test_numbers_that_are_not_finite_are_reported_for_their_edge_only(bad, huber_px):
    inv_depth, T_true, target = scene(2)
    start = perturbed(T_true)
    target[0, 3, 4, 1] = bad
    weight = torch.ones_like(target)
    solution = pose_step(target, weight, inv_depth, start, K.expand(2, 3, 3), 8, huber_px=huber_px)
    assert solution.ok.tolist() == [False, True]
    assert torch.equal(solution.T[0], start[0]) and error(solution.T[1:], T_true[1:]) < 1e-6


def test_what_lies_behind_the_camera_has_no_say():
    inv_depth, T_true, target = scene(1)
    T_true = T_true.clone()
    T_true[0, 2, 3] -= 0.5  # forward by half a unit
    inv_depth[0, :3] = 4.0  # these pass the camera
    target, _, valid = reproject(inv_depth, T_true, K[None])
    assert not valid[0, :3].any() and valid[0, 3:].all()
    target[0, :3] = 1e3 * randn(3, W, 2)
    solution = pose_step(target, torch.ones_like(target), inv_depth, perturbed(T_true, 0.02), K[None], 10)
    assert solution.ok.all() and error(solution.T, T_true) < 1e-8


def test_float32_pixels_lose_little():
    """The flow is float32, the solve float64: what is lost is far below a thousandth of a pixel (0.0005 / 18)."""
    inv_depth, T_true, target = scene(4)
    weight, start, K_e = rand(4, H, W, 2, seed=5), perturbed(T_true), K.expand(4, 3, 3)
    noisy = target + 0.3 * randn(4, H, W, 2, seed=6)
    exact = pose_step(noisy, weight, inv_depth, start, K_e, 6)
    single = pose_step(noisy.float(), weight.float(), inv_depth.float(), start, K_e, 6)
    assert single.T.dtype == F64 and single.ok.all()
    assert error(single.T, exact.T) < 3e-6


def test_gradients_by_target_and_weight_are_right():
    """Unrolled over two linearisations, against finite differences."""
    inv_depth, T_true, target = scene(2, height=3, width=4)
    start = perturbed(T_true)
    target = (target + 0.3 * randn(*target.shape, seed=8)).requires_grad_()
    weight = (0.5 + rand(*target.shape, seed=9)).requires_grad_()

    def twist(target: Tensor, weight: Tensor) -> Tensor:
        solution = pose_step(target, weight, inv_depth, start, K.expand(2, 3, 3), 2, Damping(1e-4, 1e-2))
        assert solution.ok.all()
        return se3.log(solution.T)

    assert torch.autograd.gradcheck(twist, (target, weight), eps=1e-6, atol=1e-6)


def test_gradients_of_a_refused_edge_are_zero_not_nan():
    inv_depth, T_true, target = scene(2)
    weight = torch.ones_like(target)
    weight[0] = 0
    target, weight = target.requires_grad_(), weight.requires_grad_()
    solution = pose_step(target, weight, inv_depth, perturbed(T_true), K.expand(2, 3, 3))
    solution.T.square().sum().backward()
    assert target.grad is not None and weight.grad is not None
    assert torch.isfinite(target.grad).all() and torch.isfinite(weight.grad).all()
    assert not target.grad[0].any() and not weight.grad[0].any()
    assert target.grad[1].any()


def test_huber_holds_the_pose_against_gross_outliers():
    """A fifth of the cells are wrong by 10 to 20 pixels, all to one side: least squares follows them."""
    inv_depth, T_true, target = scene(1)
    wrong = rand(1, H, W, seed=10) < 0.2
    target = target + 0.02 * randn(1, H, W, 2, seed=11)
    target[wrong] += 10 + 10 * rand(int(wrong.sum()), 2, seed=12)
    weight = torch.ones_like(target)
    start = perturbed(T_true, 0.02)
    robust = pose_step(target, weight, inv_depth, start, K[None], 30, huber_px=0.05)
    plain = pose_step(target, weight, inv_depth, start, K[None], 30)
    assert error(plain.T, T_true) > 0.05
    assert robust.ok.all() and error(robust.T, T_true) < 0.004  # 0.07 px of these 18 px focal length


def test_huber_weight_is_one_inside_and_falls_as_one_over_r():
    r = torch.tensor([[0.0, 0.0], [0.3, 0.4], [3.0, 4.0]], dtype=F64)
    assert huber_weight(r, 1.0)[:, 0].tolist() == pytest.approx([1, 1, 0.2])


def test_solve_damped_is_the_damped_solution_clipped():
    A = randn(6, 6)
    normal, b = A @ A.mT + torch.eye(6, dtype=F64), 0.1 * randn(6, seed=1)
    damping, total = Damping(1e-2, 0.1), torch.tensor(3.0, dtype=F64)
    x, ok = solve_damped(normal, b, total, damping)
    by_hand = torch.linalg.solve(normal + 0.1 * torch.diag(normal.diag()) + 0.03 * torch.eye(6, dtype=F64), b)
    assert bool(ok)
    torch.testing.assert_close(x, by_hand, rtol=1e-10, atol=1e-12)
    x, ok = solve_damped(normal, 1e4 * b, total, damping)
    torch.testing.assert_close(x, (1e4 * by_hand).clamp(-MAX_UPDATE, MAX_UPDATE), rtol=0, atol=1e-9)
    assert bool(ok) and float(x.abs().max()) == MAX_UPDATE


def test_solve_damped_does_not_depend_on_the_unit_of_length():
    """Scaling the columns (metres to millimetres) must not turn a sound system into a refused one."""
    A = randn(12, 6)
    scale = torch.tensor([1e4] * 3 + [1.0] * 3, dtype=F64)
    normal = (A * scale).mT @ (A * scale)
    _, ok = solve_damped(normal, randn(6), torch.ones((), dtype=F64), UNDAMPED)
    assert bool(ok)

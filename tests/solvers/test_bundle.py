"""Dense bundle adjustment: the eliminated system is the full one; motion and depth together, up to scale."""

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import reproject
from slam.solvers.bundle import BundleSolution, bundle_adjust
from slam.solvers.gauss_newton import Damping

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


def all_pairs(N: int) -> Tensor:
    return torch.tensor([[a, b] for a in range(N) for b in range(N) if a != b])


def flows(inv_depth: Tensor, T_cw: Tensor, edges: Tensor) -> Tensor:
    i, j = edges.unbind(-1)
    return reproject(inv_depth[i], T_cw[j] @ se3.inverse(T_cw[i]), K.expand(len(edges), 3, 3))[0]


def first_fixed(N: int) -> Tensor:
    return torch.arange(N) == 0


def world(N: int, seed: int = 0, angle: float = 0.05) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Poses (the first the identity), inverse depths around 1, all pairs, exact flows."""
    size = torch.tensor([0.15] * 3 + [angle] * 3, dtype=F64)
    T_cw = se3.exp(size * randn(N, 6, seed=seed) * (torch.arange(N) > 0)[:, None])
    inv_depth = 0.6 + 0.8 * rand(N, H, W, seed=seed + 1)
    edges = all_pairs(N)
    return T_cw, inv_depth, edges, flows(inv_depth, T_cw, edges)


def test_one_step_is_that_of_the_full_system():
    """The Schur complement and the substitution back against a dense solve of the numerical Jacobian."""
    N, h, w = 3, 3, 4
    edges = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 0], [2, 0]])
    T_cw = se3.exp(0.1 * randn(N, 6))
    inv_depth = 0.6 + 0.8 * rand(N, h, w, seed=1)
    target = flows(inv_depth, T_cw, edges) + 0.1 * randn(len(edges), h, w, 2, seed=2)
    weight = rand(len(edges), h, w, 2, seed=3)
    prior, prior_weight = inv_depth + 0.05 * randn(N, h, w, seed=4), 0.5 + rand(N, h, w, seed=5)
    fixed = first_fixed(N)

    def residuals(xi: Tensor, d: Tensor) -> Tensor:
        free = torch.cat([torch.zeros(1, 6, dtype=F64), xi])
        flow = weight.sqrt() * (target - flows(d, se3.exp(free) @ T_cw, edges))
        return torch.cat([flow.reshape(-1), (prior_weight.sqrt() * (prior - d)).reshape(-1)])

    zero = torch.zeros(N - 1, 6, dtype=F64)
    J_pose, J_depth = torch.func.jacrev(residuals, argnums=(0, 1))(zero, inv_depth)
    J = torch.cat([J_pose.flatten(1), J_depth.flatten(1)], -1)
    x = torch.linalg.solve(J.mT @ J, -J.mT @ residuals(zero, inv_depth))
    got = bundle_adjust(
        target, weight, edges, T_cw, inv_depth, (prior, prior_weight), fixed, K, steps=1, damping=UNDAMPED
    )
    assert bool(got.ok)
    expected_T = torch.cat([T_cw[:1], se3.exp(x[:12].view(2, 6)) @ T_cw[1:]])
    torch.testing.assert_close(got.T_cw, expected_T, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.inv_depth, inv_depth + x[12:].view(N, h, w), rtol=0, atol=1e-9)
    rows = J.mT[12:] @ J[:, 12:]
    torch.testing.assert_close(rows.diagonal().view(N, h, w) - prior_weight, got.depth_information)


def solved(
    T_cw: Tensor, inv_depth: Tensor, target: Tensor, edges: Tensor, steps: int = 25, huber_px: float | None = None
) -> BundleSolution:
    """From standing still at constant depth 1."""
    N = len(T_cw)
    start = torch.ones_like(inv_depth)
    eye = torch.eye(4, dtype=F64).expand(N, 4, 4)
    prior = (start, torch.full_like(start, 1e-4))
    weight = torch.ones_like(target)
    return bundle_adjust(target, weight, edges, eye, start, prior, first_fixed(N), K, steps, huber_px=huber_px)


def scaled_errors(solution: BundleSolution, T_cw: Tensor, inv_depth: Tensor) -> tuple[float, float]:
    """Largest pose error and largest relative depth error after removing the scale."""
    s = (solution.inv_depth / inv_depth).median().to(F64)
    T = solution.T_cw.clone()
    T[:, :3, 3] *= s
    pose = float(se3.log(T @ se3.inverse(T_cw)).abs().max())
    return pose, float((solution.inv_depth / s / inv_depth - 1).abs().max())


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_recovers_motion_and_depth_up_to_scale(seed):
    T_cw, inv_depth, edges, target = world(4, seed)
    solution = solved(T_cw, inv_depth, target, edges)
    assert bool(solution.ok) and torch.equal(solution.T_cw[0], T_cw[0])
    pose, depth = scaled_errors(solution, T_cw, inv_depth)
    assert pose < 1e-3 and depth < 5e-3  # what the prior (a thousandth of a good cell's weight) pulls


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_float32_maps_are_accepted_and_as_good(seed):
    """The scale direction is nearly singular; rounding must not make the window look indefinite."""
    T_cw, inv_depth, edges, target = world(4, seed)
    solution = solved(T_cw, inv_depth.float(), target.float(), edges)
    assert bool(solution.ok) and solution.inv_depth.dtype == torch.float32 and solution.T_cw.dtype == F64
    pose, depth = scaled_errors(solution, T_cw, inv_depth)
    assert pose < 1.5e-3 and depth < 7e-3


def test_huber_holds_motion_and_depth_against_outliers():
    """A tenth of the flows are 5 to 10 px wrong; cells that none of them touch keep their depth."""
    T_cw, inv_depth, edges, target = world(4)
    wrong = rand(*target.shape[:3], seed=5) < 0.1
    target = target.clone()
    target[wrong] += 5 + 5 * rand(int(wrong.sum()), 2, seed=6)
    robust = solved(T_cw, inv_depth, target, edges, 60, huber_px=0.02)
    plain = solved(T_cw, inv_depth, target, edges, 60)
    assert scaled_errors(robust, T_cw, inv_depth)[0] < 0.02 < scaled_errors(plain, T_cw, inv_depth)[0]


def test_pure_rotation_tells_nothing_of_depth():
    omega = 0.08 * randn(3, 3) * (torch.arange(3) > 0)[:, None]
    T_cw = se3.exp(torch.cat([torch.zeros_like(omega), omega], -1))
    edges = all_pairs(3)
    prior = 0.6 + 0.8 * rand(3, H, W, seed=1)
    target = flows(prior, T_cw, edges)
    eye = torch.eye(4, dtype=F64).expand(3, 4, 4)
    solution = bundle_adjust(
        target,
        torch.ones_like(target),
        edges,
        eye,
        prior,
        (prior, torch.ones_like(prior)),
        first_fixed(3),
        K,
        12,
        UNDAMPED,
    )
    assert bool(solution.ok)
    torch.testing.assert_close(solution.T_cw, T_cw, rtol=0, atol=1e-8)
    assert float(solution.depth_information.max()) < 1e-12
    torch.testing.assert_close(solution.inv_depth, prior, rtol=0, atol=1e-6)


def test_depth_of_cells_without_flow_goes_to_the_prior_and_without_prior_stays():
    T_cw, inv_depth, edges, target = world(2)
    weight = torch.ones_like(target)
    weight[:, :3] = 0
    prior_weight = torch.zeros_like(inv_depth)
    prior_weight[:, 0] = 2.0
    prior_weight[:, 6:] = 1e-3
    start = inv_depth.clone()
    start[:, 1] = 0.7
    start[:, 2] = 0  # unknown
    prior = (torch.full_like(inv_depth, 0.9), prior_weight)
    solution = bundle_adjust(target, weight, edges, T_cw, start, prior, first_fixed(2), K)
    assert bool(solution.ok)
    torch.testing.assert_close(solution.inv_depth[:, 0], torch.full_like(inv_depth[:, 0], 0.9))
    assert torch.equal(solution.inv_depth[:, 1:3], start[:, 1:3])
    assert not solution.depth_information[:, :3].any() and (solution.depth_information[:, 3:] > 0).all()


def test_depth_alone_when_all_poses_are_held():
    T_cw, inv_depth, edges, target = world(3)
    prior = (torch.ones_like(inv_depth), torch.zeros_like(inv_depth))
    solution = bundle_adjust(
        target, torch.ones_like(target), edges, T_cw, prior[0], prior, torch.ones(3, dtype=torch.bool), K, 10
    )
    assert bool(solution.ok) and torch.equal(solution.T_cw, T_cw)
    torch.testing.assert_close(solution.inv_depth, inv_depth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fault", ["no weight", "NaN", "infinite"])
def test_bad_input_is_reported_and_changes_nothing(fault):
    T_cw, inv_depth, edges, target = world(3)
    weight, target = torch.ones_like(target), target.clone()
    if fault == "no weight":
        weight[:] = 0
    else:
        target[1, 2, 3, 0] = float("nan") if fault == "NaN" else float("inf")
    start = torch.ones_like(inv_depth)
    prior = (start, torch.full_like(start, 1e-3))
    solution = bundle_adjust(target, weight, edges, T_cw, start, prior, first_fixed(3), K, huber_px=0.5)
    assert not bool(solution.ok)
    assert torch.equal(solution.T_cw, T_cw) and torch.equal(solution.inv_depth, start)


def test_inverse_depth_stays_positive():
    """Flow that only a point behind the camera would explain ends at the far limit, not beyond infinity."""
    T_cw, inv_depth, edges, target = world(2)
    away = target.clone()
    still = flows(0 * inv_depth, T_cw, edges)
    away[0, 5, 5] = 2 * still[0, 5, 5] - target[0, 5, 5]  # the parallax to the wrong side
    prior = (inv_depth, torch.full_like(inv_depth, 1e-6))
    solution = bundle_adjust(
        away, torch.ones_like(away), edges, T_cw, inv_depth, prior, first_fixed(2), K, 6, huber_px=0.1
    )
    assert bool(solution.ok)
    assert 0 < float(solution.inv_depth[0, 5, 5]) < 1e-3 and (solution.inv_depth > 0).all()

"""Flow-SE3: correspondence and Gauss-Newton in turn."""

import itertools
from typing import Any

import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import reproject
from slam.solvers.flow_se3 import Consensus, flow_se3
from slam.solvers.gauss_newton import Damping

F64 = torch.float64
K = torch.tensor([[[18.0, 0, 7.3], [0, 19.0, 5.8], [0, 0, 1]]], dtype=F64)


def scene() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inv_depth = 0.3 + torch.rand(1, 12, 16, dtype=F64, generator=generator)
    T_true = se3.exp(0.15 * torch.randn(1, 6, dtype=F64, generator=generator))
    return inv_depth, T_true, reproject(inv_depth, T_true, K)[0]


def test_a_correspondence_that_sees_half_way_converges_by_iterating():
    """It reports half of the missing flow each time: the error halves with every iteration."""
    inv_depth, T_true, truth = scene()

    def update(state: int, uv: Tensor) -> tuple[int, Tensor, Tensor]:
        return state + 1, 0.5 * (truth - uv), torch.ones_like(uv)

    start = torch.eye(4, dtype=F64)[None]
    steps = flow_se3(update, 0, inv_depth, start, K, 12, damping=Damping(0, 0))
    assert len(steps) == 12 and all(step.ok.all() for step in steps)
    errors = [float(se3.log(step.T_ji @ se3.inverse(T_true)).norm()) for step in steps]
    assert all(after < 0.65 * before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 1e-3 * float(se3.log(T_true).norm())
    assert torch.equal(steps[0].uv, reproject(inv_depth, start, K)[0])
    torch.testing.assert_close(steps[1].uv, reproject(inv_depth, steps[0].T_ji, K)[0])


def test_unknown_depth_and_points_behind_have_no_weight_though_the_flow_is_sure():
    inv_depth, T_true, truth = scene()
    inv_depth = inv_depth.clone()
    inv_depth[:, :4] = 0
    T_true = T_true.clone()
    T_true[:, 2, 3] = -0.5
    inv_depth[:, -2:] = 4.0
    truth = reproject(inv_depth, T_true, K)[0]
    truth[:, :4] += 50  # nonsense where the depth is unknown

    def update(state: Any, uv: Tensor) -> tuple[Any, Tensor, Tensor]:
        return state, truth - uv, torch.ones_like(uv)

    step = flow_se3(update, None, inv_depth, T_true, K, 1)[-1]
    assert not step.weight[:, :4].any() and not step.weight[:, -2:].any()
    assert (step.weight[:, 4:-2] == 1).all() and (step.confidence == 1).all()
    torch.testing.assert_close(step.T_ji, T_true, rtol=0, atol=1e-9)


def test_pixels_weigh_less_the_more_they_hang_on_an_unsure_depth():
    """Sideways at inverse depth d, a pixel moves by fx tx d: sigma of d times fx tx, against sigma of the flow."""
    inv_depth, _, _ = scene()
    sideways, turned = se3.exp(torch.tensor([[0.2, 0, 0, 0, 0, 0], [0, 0, 0, 0.1, 0.1, 0]], dtype=F64))[:, None]
    sigma = torch.full_like(inv_depth, 0.25)

    def update(state: Any, uv: Tensor) -> tuple[Any, Tensor, Tensor]:
        return state, torch.zeros_like(uv), torch.ones_like(uv)

    moved = flow_se3(update, None, inv_depth, sideways, K, 1, depth_noise=(sigma, 0.5))[0]
    expected = 1 / (1 + (18.0 * 0.2 * 0.25 / 0.5) ** 2)
    torch.testing.assert_close(moved.weight, torch.full_like(moved.weight, expected))
    assert (flow_se3(update, None, inv_depth, turned, K, 1, depth_noise=(sigma, 0.5))[0].weight == 1).all()


def test_state_is_handed_on_and_no_gradient_passes_through_the_pose():
    inv_depth, _, truth = scene()
    gains = torch.tensor([0.5, 0.8, 1.0], dtype=F64, requires_grad=True)

    def update(state: int, uv: Tensor) -> tuple[int, Tensor, Tensor]:
        return state + 1, gains[state] * (truth - uv), torch.ones_like(uv)

    steps = flow_se3(update, 0, inv_depth, torch.eye(4, dtype=F64)[None], K, 3)
    (gradient,) = torch.autograd.grad(steps[-1].T_ji.square().sum(), gains)
    assert gradient[:2].tolist() == [0, 0] and gradient[2] != 0


def test_a_blind_correspondence_is_reported_and_leaves_the_pose():
    inv_depth, T_true, _ = scene()
    steps = flow_se3(lambda s, uv: (s, torch.ones_like(uv), torch.zeros_like(uv)), None, inv_depth, T_true, K, 2)
    assert not steps[-1].ok.any() and torch.equal(steps[-1].T_ji, T_true)


def test_what_moves_by_itself_does_not_pull_at_the_pose():
    """A quarter of the pixels moves by another motion: with Huber's weight they pull all the same, beyond it not."""
    inv_depth, T_true, truth = scene()
    truth = truth.clone()
    truth[:, :, 12:] += torch.tensor([4.0, -3.0], dtype=F64)

    def update(state: Any, uv: Tensor) -> tuple[Any, Tensor, Tensor]:
        return state, truth - uv, torch.ones_like(uv)

    start = se3.exp(torch.full((1, 6), 0.02, dtype=F64)) @ T_true
    errors = [
        float(se3.log(steps[-1].T_ji @ se3.inverse(T_true)).norm())
        for steps in (
            flow_se3(update, None, inv_depth, start, K, 12, huber_px=0.25, consensus=consensus)
            for consensus in (None, Consensus(1.0))
        )
    ]
    assert errors[0] > 0.02 and errors[1] < 0.1 * errors[0]


def test_nothing_is_left_out_while_most_of_the_weight_does_not_fit():
    residual, weight = torch.zeros(1, 2, 5, 2), torch.ones(1, 2, 5, 2)
    residual[0, 0, 1:] = 3.0  # one pixel of the first row fits, four do not
    weight[0, 1] = 0  # nothing was measured in the second
    assert Consensus(0.5).of(residual, weight).flatten().tolist() == [1.0] * 10
    weight[0, 0, 0] = 5.0
    factor = Consensus(0.5).of(residual, weight)
    assert factor[0, 0, 0].item() == 1.0 and factor[0, 0, 1:].max() < 1e-3


def test_pixels_that_do_not_stand_still_have_no_weight():
    inv_depth, T_true, truth = scene()
    static = torch.ones(12, 16, dtype=F64)
    static[:, 10:] = 0

    def update(state: Any, uv: Tensor) -> tuple[Any, Tensor, Tensor]:
        return state, truth + (1 - static)[..., None] * 9 - uv, torch.ones_like(uv)

    step = flow_se3(update, None, inv_depth, T_true, K, 1, static=static)[-1]
    assert not step.weight[:, :, 10:].any() and (step.weight[:, :, :10] == 1).all()
    torch.testing.assert_close(step.T_ji, T_true, rtol=0, atol=1e-9)

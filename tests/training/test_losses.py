import math

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.networks.prior import PriorOutput
from slam.solvers.flow_se3 import MotionStep
from slam.training.losses import (
    CONFIDENCE_PX,
    ITERATION_DECAY,
    POSE_PX,
    agreement_loss,
    masked_mean,
    motion_loss,
    prior_loss,
    stereo_loss,
)


def sideways(tx: float, residual: float) -> MotionStep:
    """One edge of 1x2 pixels at depth 1: T moves the points by tx, the network adds `residual` to zero motion."""
    T = torch.eye(4, dtype=torch.float64)[None].clone()
    T[0, 0, 3] = tx
    uv = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]]]])
    flow = torch.zeros(1, 1, 2, 2)
    flow[..., 0] = residual
    half = torch.full((1, 1, 2, 2), 0.5)
    return MotionStep(T, torch.tensor([True]), uv, flow, half, half)


def test_motion_loss_of_two_iterations_by_hand():
    """fx = 10 and depth 1: tx = 0.1 is one pixel; the truth is two pixels to the right, seen by the left pixel only."""
    K = torch.tensor([[[10.0, 0, 0.5], [0, 10, 0], [0, 0, 1]]])
    truth = torch.tensor([[[[2.0, 0.0], [3.0, 0.0]]]])
    visible = torch.tensor([[[True, False]]])
    steps = [sideways(0.1, 0.5), sideways(0.2, 1.5)]
    total, parts = motion_loss(steps, truth, visible, torch.ones(1, 1, 2), K, 2.0, 0.5, 0.2)

    def cross_entropy(residual: float) -> float:
        deserved = [math.exp(-(2 - residual) / CONFIDENCE_PX), 1.0, 0.0, 0.0]
        return sum(-d * math.log(0.5) - (1 - d) * math.log(0.5) for d in deserved) / 4

    first = (
        2.0 * POSE_PX * math.log(1 + 0.5 / POSE_PX) + 0.5 * 1.5 / 2 + 0.2 * cross_entropy(0.5)
    )  # the mean is over u and v
    second = 0.0 + 0.5 * 0.5 / 2 + 0.2 * cross_entropy(1.5)
    assert total.item() == pytest.approx(ITERATION_DECAY * first + second, abs=1e-5)
    assert parts["pose"].item() == pytest.approx(0.0, abs=1e-6)
    assert parts["residual"].item() == pytest.approx(0.25, abs=1e-6)


def test_confidence_is_pushed_towards_what_the_error_deserves():
    """Gradient descent on the confidence alone moves it up where the flow is right, down where it is hidden."""
    K = torch.tensor([[[10.0, 0, 0.5], [0, 10, 0], [0, 0, 1]]])
    confidence = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    step = sideways(0.0, 0.0)
    step = MotionStep(step.T_ji, step.ok, step.uv, step.residual_uv, step.weight, confidence)
    total, _ = motion_loss([step], step.uv, torch.tensor([[[True, False]]]), torch.ones(1, 1, 2), K)
    total.backward()
    assert confidence.grad is not None
    assert (confidence.grad[0, 0, 0] < 0).all() and (confidence.grad[0, 0, 1] > 0).all()


def test_stereo_loss_by_hand():
    """Twice and once the truth on two of three pixels; the third is unknown and must not count."""
    truth = torch.tensor([[[1.0, 0.5, 0.0]]])
    predicted = torch.tensor([[[2.0, 0.5, 9.0]]])
    sigma = torch.tensor([[[1.0, 0.5, 9.0]]])
    total, parts = stereo_loss(predicted, sigma, truth, sigma_weight=0.1)
    assert parts["depth"].item() == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert parts["sigma"].item() == pytest.approx((1.0 + math.log(1) + 0.0 + math.log(0.5)) / 2, abs=1e-6)
    assert total.item() == pytest.approx(math.log(2) / 2 + 0.1 * (1 + math.log(0.5)) / 2, abs=1e-6)


def test_nan_outside_the_mask_spreads_neither_to_the_mean_nor_to_its_gradient():
    values = torch.tensor([1.0, float("nan"), 3.0], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 2.0
    torch.testing.assert_close(values.grad, torch.tensor([0.5, 0.0, 0.5]))
    assert masked_mean(torch.tensor([float("inf")]), torch.tensor([False])).item() == 0.0


# prior


def relief(seed: int = 0) -> Tensor:
    """(2, 12, 16) inverse depths from 0.3 to 3 of smooth shapes; a corner of the first is unknown."""
    u, v = torch.meshgrid(torch.linspace(0, 3, 16), torch.linspace(0, 2, 12), indexing="xy")
    waves = [torch.sin(u + seed + n) + torch.cos(1.3 * v * (n + 1)) for n in range(2)]
    truth = torch.stack(waves).mul(0.5).exp()
    truth[0, :4, :5] = 0.0
    return truth


def told(log_inv_depth: Tensor, log_sigma: float = 0.0) -> PriorOutput:
    return PriorOutput(log_inv_depth, torch.full_like(log_inv_depth, log_sigma))


def log_of(truth: Tensor) -> Tensor:
    """Log of inverse depth; where that is unknown, a number that must not count."""
    return torch.where(truth > 0, truth.clamp_min(1e-9).log(), torch.tensor(3.0))


def test_prior_loss_by_hand():
    """One row of four cells, one unknown, off by 0.1, 0.3 and 0.2: 0.2 is the median, the scale's error the mean."""
    truth = torch.tensor([[[1.0, 2.0, 0.5, 0.0]]])
    output = told(log_of(truth) + torch.tensor([0.1, 0.3, 0.2, 0.0]), log_sigma=math.log(0.5))
    total, parts = prior_loss(output, truth, scale_weight=0.2, gradient_weight=0.5, sigma_weight=0.1)
    assert parts["shape"].item() == pytest.approx((0.1 + 0.1 + 0.0) / 3, abs=1e-6)
    assert parts["scale"].item() == pytest.approx(0.2, abs=1e-6)
    steps = (0.2 + 0.1) / 2 + 0.1 + 0.0  # from cell to cell, to the one after (from the first to the third), further
    assert parts["steps"].item() == pytest.approx(steps, abs=1e-6)
    assert parts["sigma"].item() == pytest.approx(0.2 / 3 / 0.5 + math.log(0.5), abs=1e-6)
    weighted = parts["shape"] + 0.2 * parts["scale"] + 0.5 * parts["steps"] + 0.1 * parts["sigma"]
    assert total.item() == pytest.approx(weighted.item(), abs=1e-6)


def test_the_shape_of_a_depth_knows_no_unit():
    """Another factor for each picture: shape, steps and sigma stay, the scale alone tells."""
    truth = relief()
    rough = log_of(truth) + 0.2 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    factors = torch.tensor([0.3, 7.0]).log()[:, None, None]
    _, near = prior_loss(told(rough), truth)
    _, far = prior_loss(told(rough + factors), truth)
    for name in ("shape", "steps", "sigma"):
        torch.testing.assert_close(far[name], near[name], rtol=1e-4, atol=1e-6)
    expected = ((rough - log_of(truth) + factors) * (truth > 0)).sum((1, 2)) / (truth > 0).sum((1, 2))
    assert far["scale"].item() == pytest.approx(expected.abs().mean().item(), rel=1e-4) and far["scale"] > 1
    _, exact = prior_loss(told(log_of(truth) + factors), truth)
    assert exact["shape"] < 1e-6 and exact["steps"] < 1e-5


def test_a_common_factor_gets_its_gradient_from_the_scale_alone():
    """Shape and steps pull no picture nearer or farther: the sum of their gradients over a picture is zero."""
    truth = relief()
    rough = log_of(truth) + 0.2 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(4))
    factor = torch.full((2, 1, 1), 0.5, requires_grad=True)
    slopes = {}
    for name, weight in (("without scale", 0.0), ("with scale", 0.2)):
        loss, _ = prior_loss(told(rough + factor), truth, scale_weight=weight)
        (gradient,) = torch.autograd.grad(loss, factor)
        slopes[name] = gradient.flatten()
    # of an L1 about its median as many cells pull up as down; one cell may be left over
    assert slopes["without scale"].abs().max() < 1.5 / int((truth > 0).sum())
    torch.testing.assert_close(slopes["with scale"] - slopes["without scale"], torch.full((2,), 0.1))


def test_depth_for_inverse_depth_is_far_worse_than_a_constant():
    truth = relief()
    losses = [prior_loss(told(sign * log_of(truth)), truth)[1] for sign in (1, 0, -1)]
    for name in ("shape", "steps"):
        right, flat, inverted = (parts[name].item() for parts in losses)
        assert right < 1e-5 < 0.1 < flat and inverted == pytest.approx(2 * flat, rel=1e-4)


def test_sigma_learns_the_error_and_the_depth_learns_nothing_from_sigma():
    """Cells are wrong by 0.5 beside the median: from sigma 1 it must fall to that, and from 0.2 rise to it."""
    truth = torch.ones(1, 6, 9)
    error = 0.5 * torch.tensor([-1.0, 0.0, 1.0]).repeat(3).expand(1, 6, 9)
    depth = error.clone().requires_grad_()
    for start, sign in ((1.0, 1.0), (0.2, -1.0)):
        log_sigma = torch.full((1, 6, 9), math.log(start), requires_grad=True)
        loss, parts = prior_loss(PriorOutput(depth, log_sigma), truth, 0.0, 0.0, 1.0)
        by_depth, by_sigma = torch.autograd.grad(loss, (depth, log_sigma))
        without, _ = prior_loss(PriorOutput(depth, log_sigma), truth, 0.0, 0.0, 0.0)
        torch.testing.assert_close(by_depth, torch.autograd.grad(without, depth)[0])
        wrong = error != 0
        assert (by_sigma[wrong] * sign > 0).all() and (by_sigma[~wrong] > 0).all()
    best = prior_loss(PriorOutput(depth, torch.full_like(depth, math.log(1 / 3))), truth)[1]["sigma"]
    for other in (0.2, 0.5):  # the mean error of all cells is a third
        assert best < prior_loss(PriorOutput(depth, torch.full_like(depth, math.log(other))), truth)[1]["sigma"]


def test_a_picture_without_truth_teaches_nothing():
    output = told(torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(5)).requires_grad_())
    truth = relief()
    truth[1] = 0.0
    loss, _ = prior_loss(output, truth)
    (gradient,) = torch.autograd.grad(loss, output.log_inv_depth)
    assert torch.isfinite(gradient).all() and not gradient[1].any() and gradient[0].any()


def test_agreement_by_hand():
    """A wall at 2, seen again from 0.2 nearer. Both views say depth 1: taken to the other it is 0.8, or 1.2.

    With the motion turned round no two cells would be of the same surface, and the loss 0.
    """
    T_ba = se3.identity()[None].clone()
    T_ba[:, 2, 3] = -0.2
    K = torch.tensor([[[20.0, 0, 9.5], [0, 20.0, 7.5], [0, 0, 1]]], dtype=torch.float64)
    truth = [torch.full((1, 16, 20), 1 / depth) for depth in (2.0, 1.8)]
    ones = torch.ones(1, 16, 20)
    forth, back = (1.25 - 1) / (1.25 + 1), (1 - 1 / 1.2) / (1 + 1 / 1.2)
    assert agreement_loss([ones, ones], truth, T_ba, K).item() == pytest.approx((forth + back) / 2, abs=1e-6)
    assert agreement_loss([ones, ones], truth, se3.inverse(T_ba), K).item() == 0
    assert agreement_loss([ones, 1.25 * ones], truth, T_ba, K).item() == pytest.approx(0.0, abs=1e-6)


def test_agreement_is_of_true_depths_and_of_no_others(world, wall_and_box):
    """A wall and a box, from 0.35 further to the side and 0.3 nearer; what is hidden, or new, does not count."""
    a, b = wall_and_box.moved(), wall_and_box.moved(-0.35, 0.05, -0.3, 0.02, -0.05, 0.0)
    truth = [world.inv_depth(T)[None] for T in (a, b)]

    def loss(found: list[Tensor]) -> float:
        return agreement_loss(found, truth, (b @ se3.inverse(a))[None], wall_and_box.K[None]).item()

    assert loss(truth) < 0.003  # interpolation at the edge of the box
    noisy = [d * (1 + 0.1 * torch.randn(d.shape, generator=torch.Generator().manual_seed(6))) for d in truth]
    assert 0.03 < loss(noisy) < 0.1
    assert loss([1 / d for d in truth]) > 0.05
    assert loss([truth[0], 1.2 * truth[1]]) == pytest.approx(0.2 / 2.2, abs=0.01)  # one unit for both
    assert loss([2 * d for d in truth]) > 0.03  # and that of the poses


def test_agreement_without_a_common_surface_is_zero(world, wall_and_box):
    a, away = wall_and_box.moved(), wall_and_box.moved(ry=2.0)
    truth = [world.inv_depth(a)[None]] * 2
    found = [d.clone().requires_grad_() for d in truth]
    loss = agreement_loss(found, truth, (away @ se3.inverse(a))[None], wall_and_box.K[None])
    loss.backward()
    assert loss.item() == 0 and all(torch.isfinite(d.grad).all() for d in found)

import math

import pytest
import torch

from slam.solvers.flow_se3 import MotionStep
from slam.training.losses import CONFIDENCE_PX, ITERATION_DECAY, POSE_PX, masked_mean, motion_loss, stereo_loss


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

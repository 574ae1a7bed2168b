"""Losses of motion and stereo: pure functions that return a scalar and its parts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import sample
from slam.geometry.flow import in_image, reproject
from slam.networks.prior import PriorOutput
from slam.solvers.flow_se3 import MotionStep

ITERATION_DECAY = 0.85  # weight of an iteration against the next
MAX_ERROR_PX = 20.0  # pixels at 1/8: an edge that has diverged counts no more than this
POSE_PX = 0.25  # pixels at 1/8: where the pose's error begins to count less
CONFIDENCE_PX = 0.25  # pixels at 1/8: a flow wrong by this much deserves a confidence of 1/e

SAME_SURFACE = 0.02  # inconsistency of true depths up to which two views see the same point
GRADIENT_STRIDES = (1, 2, 4)  # cells between those whose difference should be right


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where mask (same shape, bool) holds; 0 where it holds nowhere. NaN outside it does not spread."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp_min(1)


def motion_loss(
    steps: Sequence[MotionStep],
    true_uv: Tensor,
    visible: Tensor,
    inv_depth: Tensor,
    K: Tensor,
    pose_weight: float = 3.0,
    residual_weight: float = 0.5,
    confidence_weight: float = 0.2,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the iterations of Flow-SE3.

    pose: L1 distance between the flow that the estimated pose induces and the true flow, where the depth is known;
    beyond POSE_PX its mean over an edge counts by its logarithm, so that pairs nearly solved are worth solving well.
    residual: L1 distance between the network's own flow and the true flow.
    confidence: cross entropy with `exp(-error / CONFIDENCE_PX)`, 0 where the point is not visible in j.

    Args:
        steps: iterations on E edges.
        true_uv: (E, h, w, 2) true position of the pixels of i in j.
        visible: (E, h, w) bool, truth known and not hidden in j.
        inv_depth: (E, h, w) as given to the solver.
        K: (E, 3, 3) intrinsics of this size.
        pose_weight, residual_weight, confidence_weight: of the parts.

    Returns:
        loss (), parts of the last iteration (pose as a plain mean over the pixels of all edges).

    Reference: DeepV2D eq. 7; the confidence term replaces its push of the largest weights to one.
    """
    total = true_uv.new_zeros(())
    parts: dict[str, Tensor] = {}
    both = visible[..., None].expand_as(true_uv)
    solved = both & (inv_depth > 0)[..., None]
    for k, step in enumerate(steps):
        uv, _, valid = reproject(inv_depth, step.T_ji, K)
        distance, kept = (uv - true_uv).abs().clamp(max=MAX_ERROR_PX), solved & valid[..., None]
        edge = torch.where(kept, distance, torch.zeros_like(distance)).sum((1, 2, 3)) / kept.sum((1, 2, 3)).clamp_min(1)
        precise = (POSE_PX * (edge / POSE_PX).log1p()).mean()
        pose = masked_mean(distance.detach(), kept)
        error = (step.uv + step.residual_uv - true_uv).abs()
        residual = masked_mean(error.clamp(max=MAX_ERROR_PX), both)
        deserved = torch.where(both, (-error.detach() / CONFIDENCE_PX).exp(), torch.zeros_like(error))
        confidence = F.binary_cross_entropy(step.confidence.clamp(1e-4, 1 - 1e-4), deserved)
        weight = ITERATION_DECAY ** (len(steps) - 1 - k)
        total = total + weight * (pose_weight * precise + residual_weight * residual + confidence_weight * confidence)
        parts = {"pose": pose, "residual": residual.detach(), "confidence": confidence.detach()}
    return total, parts


def stereo_loss(
    inv_depth: Tensor, sigma: Tensor, true_inv_depth: Tensor, sigma_weight: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of log inverse depth, with the likelihood of a Laplace distribution of width sigma.

    Args:
        inv_depth, sigma: (B, H, W) prediction and its standard deviation, inverse depth.
        true_inv_depth: (B, H, W); 0 is unknown.
        sigma_weight: of the likelihood; it trains sigma alone.

    Returns:
        loss (), parts.
    """
    known = true_inv_depth > 0
    truth = true_inv_depth.clamp_min(1e-4)
    depth = masked_mean((inv_depth.clamp_min(1e-4) / truth).log().abs(), known)
    width = sigma.clamp_min(1e-4)
    likelihood = masked_mean((inv_depth.detach() - truth).abs() / width + width.log(), known)
    return depth + sigma_weight * likelihood, {"depth": depth.detach(), "sigma": likelihood.detach()}


def inconsistency(first: Tensor, second: Tensor) -> Tensor:
    """D_diff of two inverse depths > 0, or of two depths: 0 where equal, 1/3 where one is twice the other, up to 1."""
    return (first - second).abs() / (first + second).clamp_min(1e-9)


def prior_loss(
    output: PriorOutput,
    true_inv_depth: Tensor,
    scale_weight: float = 0.2,
    gradient_weight: float = 0.5,
    sigma_weight: float = 0.1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of log inverse depth without its scale, of the scale, and of steps from pixel to pixel; likelihood of sigma.

    Args:
        output: of N pictures.
        true_inv_depth: (N, h, w) at its cells; 0 is unknown.
        scale_weight, gradient_weight, sigma_weight: of the parts; the last trains sigma alone.

    Returns:
        loss (), parts.

    References: Eigen et al., NIPS 2014 (scale-invariant); Li & Snavely, MegaDepth, CVPR 2018 (steps at several scales).
    """
    known = true_inv_depth > 0
    error = output.log_inv_depth - true_inv_depth.clamp_min(1e-4).log()
    offset = torch.where(known, error.detach(), torch.full_like(error, torch.nan)).flatten(1).nanmedian(1).values
    offset = offset.nan_to_num(0.0)[:, None, None]
    shape = masked_mean((error - offset).abs(), known)
    means = torch.where(known, error, torch.zeros_like(error)).sum((1, 2)) / known.sum((1, 2)).clamp_min(1)
    scale = means.abs().mean()
    steps = torch.stack([_log_steps(error[:, ::s, ::s], known[:, ::s, ::s]) for s in GRADIENT_STRIDES]).sum()
    likelihood = sigma_likelihood(output, error - offset, known)
    loss = shape + scale_weight * scale + gradient_weight * steps + sigma_weight * likelihood
    parts = {"shape": shape, "scale": scale, "steps": steps, "sigma": likelihood}
    return loss, {name: part.detach() for name, part in parts.items()}


def sigma_likelihood(output: PriorOutput, error: Tensor, known: Tensor) -> Tensor:
    """Negative log likelihood () of errors (N, h, w) of log inverse depth by a Laplace distribution of the network's
    sigma, where they are known; no gradient goes into the errors."""
    return masked_mean(error.detach().abs() * (-output.log_sigma).exp() + output.log_sigma, known)


def _log_steps(error: Tensor, known: Tensor) -> Tensor:
    """Mean step () of an error (N, h, w) from pixel to pixel, along rows and columns."""
    total = error.new_zeros(())
    for axis in (1, 2):
        n = error.shape[axis] - 1
        both = known.narrow(axis, 0, n) & known.narrow(axis, 1, n)
        total = total + masked_mean(error.diff(dim=axis).abs(), both)
    return total


def agreement_loss(inv_depths: Sequence[Tensor], true_inv_depths: Sequence[Tensor], T_ba: Tensor, K: Tensor) -> Tensor:
    """D_diff () of the inverse depths of two views a and b, both ways, where both see the same surface.

    Args:
        inv_depths, true_inv_depths: (B, H, W) of a and of b, 1 / metre; 0 is unknown in the true ones.
        T_ba: (B, 4, 4) view b from view a, metres.
        K: (B, 3, 3) intrinsics of both.
    """
    total = T_ba.new_zeros((), dtype=inv_depths[0].dtype)
    for (d_a, d_b), (true_a, true_b), T in (
        (inv_depths, true_inv_depths, T_ba),
        (inv_depths[::-1], true_inv_depths[::-1], se3.inverse(T_ba)),
    ):
        uv, q, valid = reproject(d_a, T, K)
        true_uv, true_q, true_valid = reproject(true_a, T, K)
        seen = sample(true_b[:, None], true_uv, mode="nearest")[:, 0]
        same = (inconsistency(true_a / true_q[..., 2], seen) < SAME_SURFACE) & (true_a > 0) & (seen > 0) & true_valid
        found = inconsistency(d_a / q[..., 2], sample(d_b[:, None], uv, padding="border")[:, 0])
        total = total + masked_mean(found, same & valid & in_image(uv, *d_a.shape[1:])) / 2
    return total

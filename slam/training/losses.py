"""Losses of motion and stereo: pure functions that return a scalar and its parts."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.flow import reproject
from slam.solvers.flow_se3 import MotionStep

ITERATION_DECAY = 0.85  # weight of an iteration against the next
MAX_ERROR_PX = 20.0  # pixels at 1/8: an edge that has diverged counts no more than this
POSE_PX = 0.25  # pixels at 1/8: where the pose's error begins to count less
CONFIDENCE_PX = 0.25  # pixels at 1/8: a flow wrong by this much deserves a confidence of 1/e


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

"""Accuracy of the depth of a whole video, and two maps that are consistent or smooth without being right.

Consistency is cheap without accuracy: a report must show both, so that `constant_like` and `temporally_blurred` lose.
"""

from dataclasses import replace

import torch
from torch import Tensor

from slam.errors import EvaluationError
from slam.evaluation.depth import DepthResult, compare_depth, mean_depth


def video_depth_errors(inv_depth: Tensor, true_inv_depth: Tensor) -> DepthResult:
    """Errors of depth after scaling by one number for the whole video: the median ratio over all pixels of all frames.

    A scale for each frame would hide flicker and drift of the scale.

    Args:
        inv_depth: (N, h, w) estimate, any unit, 0 unknown.
        true_inv_depth: (N, h, w) truth, 1 / metre, 0 unknown.

    Returns:
        Means over the frames that have pixels to compare; `confident_share` is of all pixels with truth, those of the
        other frames too.

    Raises:
        EvaluationError: if no pixel can be compared.
        ValueError: if the shapes differ.
    """
    if inv_depth.shape != true_inv_depth.shape:
        raise ValueError(f"need one shape, got {tuple(inv_depth.shape)} and {tuple(true_inv_depth.shape)}")
    compared = (inv_depth > 0) & (true_inv_depth > 0)
    if not compared.any():
        raise EvaluationError("no pixel of the video has both an estimate and ground truth")
    scale = float((inv_depth[compared].double() / true_inv_depth[compared].double()).median())
    depth, truth = (
        torch.where(d > 0, 1 / d.clamp_min(1e-12), torch.zeros_like(d)).cpu().numpy()
        for d in (inv_depth, true_inv_depth)
    )
    frames = compared.any(-1).any(-1).nonzero()[:, 0].tolist()
    mean = mean_depth([compare_depth(depth[n], truth[n], scale=scale) for n in frames])
    return replace(mean, confident_share=float(compared.sum() / (true_inv_depth > 0).sum()))


def temporally_blurred(inv_depth: Tensor, radius: int) -> Tensor:
    """Inverse depth (N, h, w) replaced by the mean of the known values of each pixel over 2 radius + 1 frames, fewer
    at the ends of the video, with no regard to motion."""
    N = len(inv_depth)
    total, count = torch.zeros_like(inv_depth), torch.zeros_like(inv_depth)
    for shift in range(-min(radius, N - 1), min(radius, N - 1) + 1):
        here, there = slice(max(0, -shift), N - max(0, shift)), slice(max(0, shift), N - max(0, -shift))
        total[here] += inv_depth[there]
        count[here] += inv_depth[there] > 0
    return total / count.clamp_min(1)


def constant_like(inv_depth: Tensor) -> Tensor:
    """(N, h, w) a wall at the median of the known inverse depth before every camera of the video."""
    return torch.full_like(inv_depth, float(inv_depth[inv_depth > 0].median()))

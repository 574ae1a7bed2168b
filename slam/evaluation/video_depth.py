"""Accuracy of the depth of a whole video, and two maps that are consistent or smooth without being right.

Consistency is cheap without accuracy: a report must show both, so that `constant_like` and `temporally_blurred` lose.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slam.errors import EvaluationError
from slam.evaluation.depth import DepthPair, DepthResult, compare_depth, is_known, mean_depth

SAMPLED = 2000  # at most so many pixels of a frame tell the scale of a video that is read frame by frame


@dataclass(frozen=True)
class VideoDepthResult:
    """Errors of the depth of a video under one scale."""

    mean: DepthResult  # over the frames with pixels to compare; `confident_share` is of all pixels with truth
    frames: int  # with pixels to compare ...
    frames_with_truth: int  # ... of so many

    def numbers(self) -> dict[str, float]:
        """The scores by name."""
        return {"frames": self.frames, "frames_with_truth": self.frames_with_truth, **self.mean.numbers()}


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
    return _errors_at((DepthPair(n, depth[n], truth[n]) for n in range(len(depth))), scale, 0.0).mean


def streamed_depth_errors(frames: Callable[[], Iterable[DepthPair]], min_confidence: float = 0.5) -> VideoDepthResult:
    """Errors as `video_depth_errors`, of a video that need not fit into memory: it is read twice, once for the scale,
    by a sample of each frame's pixels, and once for the errors.

    Args:
        frames: gives the same frames each time.
        min_confidence: least confidence of a compared pixel.

    Raises:
        EvaluationError: if no pixel can be compared.
    """
    ratios = [_sampled_ratios(frame, min_confidence) for frame in frames()]
    if not any(map(len, ratios)):
        raise EvaluationError(
            f"no pixel of the video has both ground truth and an estimate of confidence {min_confidence:g} or more"
        )
    return _errors_at(frames(), float(np.median(np.concatenate(ratios))), min_confidence)


def _sampled_ratios(frame: DepthPair, min_confidence: float) -> np.ndarray:
    """Truth over estimate at every n-th compared pixel; n depends on the image size alone, so that a pixel counts the
    same in every frame."""
    compared = frame.compared(min_confidence)
    step = -(-compared.size // SAMPLED)
    return (frame.truth[compared][::step] / frame.depth[compared][::step]).astype(np.float32)


def _errors_at(frames: Iterable[DepthPair], scale: float, min_confidence: float) -> VideoDepthResult:
    results, with_truth, pixels = [], 0, 0
    for frame in frames:
        has_truth = int(is_known(frame.truth).sum())
        pixels += has_truth
        with_truth += has_truth > 0
        if frame.compared(min_confidence).any():
            results.append(compare_depth(frame.depth, frame.truth, frame.confidence, min_confidence, scale))
    mean = mean_depth(results)
    return VideoDepthResult(replace(mean, confident_share=mean.pixels / pixels), len(results), with_truth)


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

"""The last flicker, between pixels of one cell: a robust mean of each frame with those before and after it.

Reference: Kopf, Rong & Huang, Robust consistent video depth estimation, CVPR 2021, sec. 3.4 (along flow, by ratio).
"""

import torch
from torch import Tensor

from slam.geometry.camera import sample
from slam.geometry.flow import in_image, reproject
from slam.refinement.clip import Clip

RADIUS = 2  # frames before and after
PASSES = 2
SAME_LOG = 0.05  # difference of log depth beyond which a neighbour counts little: another surface


def temporally_filtered(log_inv_depth: Tensor, still: Tensor, clip: Clip) -> Tensor:
    """Log inverse depth (N, H, W) of the frames of a clip, averaged with that of their neighbours, which depth and
    poses bring to the same place.

    Args:
        still: (N, H, W) bool, pixels that may be averaged.
    """
    for _ in range(PASSES):
        log_inv_depth = torch.stack([_mean(n, log_inv_depth, still, clip) for n in range(len(clip))])
    return log_inv_depth


def _mean(n: int, log_inv_depth: Tensor, still: Tensor, clip: Clip) -> Tensor:
    """(H, W) of frame n."""
    others = torch.tensor([j for j in range(max(0, n - RADIUS), min(len(clip), n + RADIUS + 1)) if j != n])
    own = log_inv_depth[n]
    K = clip.K.to(own).expand(len(others), 3, 3)
    T_jn = clip.motion(torch.full_like(others, n), others).to(own)
    uv, q, valid = reproject(own.exp().expand(len(others), *own.shape), T_jn, K)
    there = sample(log_inv_depth[others][:, None], uv, padding="border")[:, 0]
    difference = there + q[..., 2].log() - own
    weight = valid * in_image(uv, *own.shape) * still[n] / (1 + (difference / SAME_LOG).square()).square()
    return own + (weight * difference).sum(0) / (1 + weight.sum(0))

"""Least-squares alignment of two point sets.

Reference: Umeyama, Least-squares estimation of transformation parameters between two point patterns, PAMI 1991.
"""

import torch
from torch import Tensor


def umeyama(source: Tensor, target: Tensor, with_scale: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Similarity that moves `source` onto `target`.

    Args:
        source, target: (N, 3) corresponding points, N >= 1.
        with_scale: False keeps the scale at 1 (SE(3) alignment).

    Returns:
        s (), R (3, 3), t (3,) minimising `sum |s R source + t - target|^2`. Where the points do not fix the
        rotation (one point, or all on a line) one of the minimisers is returned; where `source` has no extent, s = 1.

    Raises:
        ValueError: if the shapes differ or are empty.
    """
    if source.shape != target.shape or source.ndim != 2 or len(source) == 0:
        raise ValueError(f"need two equal (N, 3) sets, got {tuple(source.shape)} and {tuple(target.shape)}")
    mean_s, mean_t = source.mean(0), target.mean(0)
    a, b = source - mean_s, target - mean_t
    U, D, Vh = torch.linalg.svd(b.mT @ a / len(a))
    sign = torch.ones(3, dtype=source.dtype, device=source.device)
    sign[2] = torch.sign(torch.linalg.det(U @ Vh))
    R = U @ torch.diag(sign) @ Vh
    variance = a.square().sum() / len(a)
    s = torch.ones((), dtype=source.dtype, device=source.device)
    if with_scale and variance > 0:
        s = (D * sign).sum() / variance
    return s, R, mean_t - s * R @ mean_s

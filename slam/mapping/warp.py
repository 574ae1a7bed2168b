"""Carry a depth map into another view: forward warping with a depth buffer."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from slam.frames import View
from slam.geometry.flow import reproject
from slam.kernels.splat import splat

HALF_CERTAIN = 0.1  # relative standard deviation
UNKNOWN_DEVIATION = 1.0  # relative, of a depth without flow or parallax, or only inpainted from its surroundings


def warp_inv_depth(inv_depth: Tensor, weight: Tensor, T_ji: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse depth of view i as seen from view j.

    Args:
        inv_depth: (H, W) of view i, 0 unknown.
        weight: (H, W) carried along.
        T_ji: (4, 4) view j from view i.
        K: (3, 3) intrinsics at this size.

    Returns:
        inv_depth (H, W) float32 of view j, 0 where nothing lands, and its weight (H, W).
    """
    uv, q, valid = reproject(inv_depth[None], T_ji[None], K[None])
    moved = torch.where(valid & (inv_depth > 0), inv_depth / q[..., 2], torch.zeros_like(q[..., 2]))[0]
    out = np.zeros(inv_depth.shape, np.float32)
    out_weight = np.zeros(inv_depth.shape, np.float32)
    uv_n = uv[0].reshape(-1, 2).clamp(-1e6, 1e6).numpy().astype(np.float32)
    splat(uv_n, moved.reshape(-1).numpy().astype(np.float32), weight.reshape(-1).numpy(), out, out_weight)
    return torch.from_numpy(out), torch.from_numpy(out_weight)


def inpainted(value: Tensor, weight: Tensor, sigma: float = 2.0, floor: float = 1e-4) -> Tensor:
    """Smooth continuation (H, W) of values into places of no weight, by normalised convolution at growing widths.

    Reference: Knutsson & Westin, Normalized and differential convolution, CVPR 1993.
    """
    w = weight * (value > 0)
    mean = (value * w).sum() / w.sum().clamp_min(1e-12)
    numerator, denominator = floor * mean + torch.zeros_like(value), floor + torch.zeros_like(value)
    for level in range(5):
        blurred = _blur(torch.stack([value * w, w]), sigma * 2**level)
        numerator, denominator = numerator + blurred[0] * 0.1**level, denominator + blurred[1] * 0.1**level
    return numerator / denominator


def confidence_from_sigma(inv_depth: Tensor, sigma: Tensor) -> Tensor:
    """Weight in [0, 1] of an inverse depth with a standard deviation: one half where that is a tenth of it."""
    return 1 / (1 + (sigma / (HALF_CERTAIN * inv_depth).clamp_min(1e-9)).square())


def sigma_from_confidence(certain: Tensor, inv_depth: Tensor) -> Tensor:
    """Standard deviation of an inverse depth of that confidence: the inverse of `confidence_from_sigma`."""
    return HALF_CERTAIN * inv_depth * (1 / certain.clamp_min(1e-2) - 1).clamp_min(1e-4).sqrt()


def upsampled(cells: Tensor, view: View) -> Tensor:
    """Values (hc, wc) at cell centres, interpolated to the view's pixels (h, w)."""
    return torch.nn.functional.interpolate(
        cells[None, None], size=view.image.size, mode="bilinear", align_corners=False
    )[0, 0]


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian of (C, H, W), zeros outside; as products of matrices, since wide convolutions are slow on a CPU."""
    return _gaussian(images.shape[1], sigma) @ images @ _gaussian(images.shape[2], sigma)


@lru_cache(maxsize=64)
def _gaussian(n: int, sigma: float) -> Tensor:
    """(n, n) symmetric: a row for each sample of the output."""
    offset = torch.arange(n)[:, None] - torch.arange(n)[None]
    radius = int(3 * sigma)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= radius)
    return kernel / torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2).sum()

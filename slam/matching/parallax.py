"""What a flow shows besides a rotation: parallax, which alone tells of depth."""

import torch
from torch import Tensor

from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import reproject
from slam.kernels.normal_equations import trust_of
from slam.solvers.gauss_newton import rotation_step

TEXTURED = 0.1  # weight of the flow at a cell that counts
HUBER_PX = 0.5
MIN_CELLS = 50  # with a flow, for a parallax


def turn_and_parallax(target_uv: Tensor, weight: Tensor, K: Tensor, stride: int) -> tuple[Tensor, float]:
    """The rotation that explains a flow best, and what it leaves.

    Args:
        target_uv: (hc, wc, 2) where each cell lies in the other view, cells.
        weight: (hc, wc, 3) the trust in it.
        K: (3, 3) intrinsics at network size.
        stride: side of a cell, pixels.

    Returns:
        T (4, 4), a rotation; pixels, the 75th percentile over the cells with a flow, 0 where these are few.
    """
    K_cells = scaled_intrinsics(K, 1 / stride)[None]
    T = rotation_step(target_uv[None], weight[None], K_cells, huber_px=HUBER_PX)
    uv, _, _ = reproject(torch.zeros_like(target_uv[None, ..., 0]), T, K_cells)
    left = (target_uv - uv[0]).norm(dim=-1)[trust_of(weight) > TEXTURED]
    return T[0], float(left.quantile(0.75)) * stride if len(left) > MIN_CELLS else 0.0

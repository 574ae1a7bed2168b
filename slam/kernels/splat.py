"""Forward warping of an inverse depth with a depth buffer."""

import numpy as np
import torch
from torch import Tensor

from slam.kernels.compile import compiled


def splat_inv_depth(uv: Tensor, inv_depth: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Draw points into an image: the nearest wins, each covers the 2x2 pixels around its position.

    Args:
        uv: (h, w, 2) pixels where the points lie.
        inv_depth: (h, w) of the points there; 0 is drawn nowhere.
        sigma: (h, w) drawn along.

    Returns:
        inverse depth (h, w) float32, 0 where nothing lies, and sigma (h, w).
    """
    value, deviation = np.zeros(inv_depth.shape, np.float32), np.zeros(inv_depth.shape, np.float32)
    points = uv.reshape(-1, 2).clamp(-1e6, 1e6).numpy().astype(np.float32)
    _splat_loop(points, inv_depth.reshape(-1).numpy(), sigma.reshape(-1).numpy(), value, deviation)
    return torch.from_numpy(value), torch.from_numpy(deviation)


@compiled()
def _splat_loop(uv: np.ndarray, inv_depth: np.ndarray, sigma: np.ndarray, value: np.ndarray, out: np.ndarray) -> None:
    H, W = value.shape
    for n in range(uv.shape[0]):
        if inv_depth[n] <= 0:
            continue
        u0, v0 = int(np.floor(uv[n, 0])), int(np.floor(uv[n, 1]))
        for v in range(v0, v0 + 2):
            for u in range(u0, u0 + 2):
                if 0 <= u < W and 0 <= v < H and inv_depth[n] > value[v, u]:
                    value[v, u] = inv_depth[n]
                    out[v, u] = sigma[n]

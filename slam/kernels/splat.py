"""Forward warping of an inverse depth with a depth buffer."""

import numpy as np
import torch
from torch import Tensor

from slam.kernels.compile import compiled, runs_as_loop

FAR = 1e6  # pixels: positions are clamped to it
NOWHERE = -10.0  # a position outside of every image


def splat_inv_depth(uv: Tensor, inv_depth: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Draw points into an image: the nearest wins, of equally near ones the first; each covers the 2x2 pixels around
    its position.

    Args:
        uv: (h, w, 2) pixels where the points lie.
        inv_depth: (h, w) of the points there; 0 is drawn nowhere.
        sigma: (h, w) drawn along.

    Returns:
        inverse depth (h, w) float32, 0 where nothing lies, and sigma (h, w).
    """
    points = uv.reshape(-1, 2).nan_to_num(NOWHERE).clamp(-FAR, FAR).float()
    if not runs_as_loop(inv_depth):
        return _by_tensors(points, inv_depth.float(), sigma.float())
    value, deviation = np.zeros(inv_depth.shape, np.float32), np.zeros(inv_depth.shape, np.float32)
    _splat_loop(points.numpy(), inv_depth.reshape(-1).numpy(), sigma.reshape(-1).numpy(), value, deviation)
    return torch.from_numpy(value), torch.from_numpy(deviation)


def _by_tensors(uv: Tensor, inv_depth: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """As `splat_inv_depth`, of points (h w, 2): the largest value of each pixel, then the first point that has it."""
    H, W = inv_depth.shape
    N, nobody = H * W, inv_depth.new_zeros(1)
    u, v = uv.floor().long().unbind(-1)
    u, v = torch.stack([u, u + 1, u, u + 1], -1), torch.stack([v, v, v + 1, v + 1], -1)  # (N, 4)
    points = inv_depth.reshape(-1, 1).expand(N, 4)
    drawn = (points > 0) & (u >= 0) & (u < W) & (v >= 0) & (v < H)
    pixel = torch.where(drawn, v * W + u, N).flatten()  # what is not drawn goes into one pixel more
    values = torch.where(drawn, points, 0.0).flatten()
    nearest = inv_depth.new_zeros(N + 1).scatter_reduce(0, pixel, values, "amax")
    owner = torch.arange(N, device=uv.device)[:, None].expand(N, 4).flatten()
    owner = torch.where(drawn.flatten() & (values == nearest[pixel]), owner, N)
    winner = torch.full_like(nearest, N, dtype=torch.long).scatter_reduce(0, pixel, owner, "amin")
    deviation = torch.cat([sigma.flatten(), nobody])[winner]
    return nearest[:N].view(H, W), deviation[:N].view(H, W)


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

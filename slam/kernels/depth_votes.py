"""Which pixels of a depth map do others confirm?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import rays
from slam.kernels.compile import compiled, runs_as_loop

NEAREST = 0.05  # of the depth in one view: what is nearer to the other one counts as behind it


def depth_votes(
    inv_depth: Tensor, T_jk: Sequence[Tensor], K: Tensor, inv_depth_j: Sequence[Tensor], limit: float
) -> Tensor:
    """How many of M other depth maps confirm each pixel's depth.

    Args:
        inv_depth: (h, w) of view k; 0 is unknown.
        T_jk: M (4, 4) float64, the others from k.
        K: (3, 3) float64 intrinsics of all.
        inv_depth_j: M (h, w) of the others, on the same device.
        limit: of `|z - z'| / (z + z')`, below which two depths agree.

    Returns:
        (h, w) int32.
    """
    votes = torch.zeros(inv_depth.shape, dtype=torch.int32, device=inv_depth.device)
    if runs_as_loop(inv_depth):
        for T, other in zip(T_jk, inv_depth_j, strict=True):
            _vote_loop(inv_depth.numpy(), T.numpy(), K.numpy(), other.numpy(), limit, votes.numpy())
        return votes
    H, W = inv_depth.shape
    d = inv_depth.double()  # the pixel that a point falls on is rounded
    camera = K.to(d)
    ray = rays(camera[None], H, W)[0]
    focal, centre = torch.stack([camera[0, 0], camera[1, 1]]), camera[:2, 2]
    for T, other in zip(T_jk, inv_depth_j, strict=True):
        T = T.to(d)
        q = ray @ T[:3, :3].mT + d[..., None] * T[:3, 3]
        ahead = (d > 0) & (q[..., 2] > NEAREST)
        z = torch.where(ahead, q[..., 2], 1.0)
        u, v = (focal * q[..., :2] / z[..., None] + centre + 0.5).floor().unbind(-1)
        inside = ahead & (u >= 0) & (u < W) & (v >= 0) & (v < H)
        at = torch.where(inside, v * W + u, 0.0).long()
        a, b = d / z, other.flatten()[at].double()
        votes += inside & (b > 0) & ((a - b).abs() < limit * (a + b))
    return votes


@compiled()
def _vote_loop(
    inv_depth: np.ndarray, T_jk: np.ndarray, K: np.ndarray, inv_depth_j: np.ndarray, limit: float, votes: np.ndarray
) -> None:
    """Add one to the pixels of k whose depth keyframe j confirms."""
    H, W = inv_depth.shape
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    for v in range(H):
        for u in range(W):
            d = inv_depth[v, u]
            if d <= 0:
                continue
            x, y = (u - cx) / fx, (v - cy) / fy
            qx = T_jk[0, 0] * x + T_jk[0, 1] * y + T_jk[0, 2] + d * T_jk[0, 3]
            qy = T_jk[1, 0] * x + T_jk[1, 1] * y + T_jk[1, 2] + d * T_jk[1, 3]
            qz = T_jk[2, 0] * x + T_jk[2, 1] * y + T_jk[2, 2] + d * T_jk[2, 3]
            if qz <= NEAREST:
                continue
            uj, vj = int(np.floor(fx * qx / qz + cx + 0.5)), int(np.floor(fy * qy / qz + cy + 0.5))
            if 0 <= uj < W and 0 <= vj < H and inv_depth_j[vj, uj] > 0:
                a, b = d / qz, inv_depth_j[vj, uj]  # |1/a - 1/b| / (1/a + 1/b) = |a - b| / (a + b)
                if abs(a - b) < limit * (a + b):
                    votes[v, u] += 1

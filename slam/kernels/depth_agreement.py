"""Which pixels of a depth map do others confirm, and what did they all measure together?"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import rays
from slam.kernels.compile import compiled, runs_as_loop

NEAREST = 0.05  # of the depth in one view: what is nearer to the other one counts as behind it
LEAST_SIGMA = 1e-9  # so that weights are finite

Measured = tuple[Tensor, Tensor]  # inverse depth (h, w), 0 unknown, and its standard deviation


def depth_agreement(
    measured: Measured, T_jk: Sequence[Tensor], K: Tensor, measured_j: Sequence[Measured], limit: float
) -> tuple[Tensor, Tensor]:
    """How many of M other depth maps confirm each pixel's depth, and the mean of all that agree.

    What another map measured is its depth at the pixel nearest to the point, taken back along that pixel's ray.

    Args:
        measured: of view k.
        T_jk: M (4, 4) float64, the others from k.
        K: (3, 3) float64 intrinsics of all.
        measured_j: M of the others, on the same device.
        limit: of `|z - z'| / (z + z')`, below which two depths agree.

    Returns:
        (h, w) float32 inverse depth weighted by the variances, 0 where it is unknown, and (h, w) int32 votes.
    """
    inv_depth, sigma = measured
    votes = torch.zeros(inv_depth.shape, dtype=torch.int32, device=inv_depth.device)
    weight = _weights(inv_depth, sigma)
    total = weight * inv_depth
    others = zip(T_jk, measured_j, strict=True)
    if runs_as_loop(inv_depth):
        for T, (other, sigma_j) in others:
            sums = (votes.numpy(), total.numpy(), weight.numpy())
            _agreement_loop(inv_depth.numpy(), T.numpy(), K.numpy(), other.numpy(), sigma_j.numpy(), limit, *sums)
        return total / weight.clamp_min(1e-30), votes
    H, W = inv_depth.shape
    d = inv_depth.double()  # the pixel that a point falls on is rounded
    camera = K.to(d)
    ray = rays(camera[None], H, W)[0]
    focal, centre = torch.stack([camera[0, 0], camera[1, 1]]), camera[:2, 2]
    for T, (other, sigma_j) in others:
        T = T.to(d)
        q = ray @ T[:3, :3].mT + d[..., None] * T[:3, 3]
        ahead = (d > 0) & (q[..., 2] > NEAREST)
        z = torch.where(ahead, q[..., 2], 1.0)
        u, v = (focal * q[..., :2] / z[..., None] + centre + 0.5).floor().unbind(-1)
        inside = ahead & (u >= 0) & (u < W) & (v >= 0) & (v < H)
        at = torch.where(inside, v * W + u, 0.0).long()
        a, b = d / z, other.flatten()[at].double()
        agrees = inside & (b > 0) & ((a - b).abs() < limit * (a + b))
        back = (q - (b * z)[..., None] * T[:3, 3]) @ T[:3, 2]  # of the other's point, times its inverse depth
        agrees &= back > 0
        votes += agrees
        w = torch.where(agrees, _weights(other, sigma_j).flatten()[at], 0.0)
        total += w * (b * z / torch.where(agrees, back, 1.0)).float()
        weight += w
    return total / weight.clamp_min(1e-30), votes


def _weights(inv_depth: Tensor, sigma: Tensor) -> Tensor:
    return torch.where(inv_depth > 0, sigma.clamp_min(LEAST_SIGMA).square().reciprocal(), 0.0)


@compiled()
def _agreement_loop(
    inv_depth: np.ndarray,
    T_jk: np.ndarray,
    K: np.ndarray,
    inv_depth_j: np.ndarray,
    sigma_j: np.ndarray,
    limit: float,
    votes: np.ndarray,
    total: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Add what view j measured to the pixels of k that it confirms."""
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
            if not (0 <= uj < W and 0 <= vj < H and inv_depth_j[vj, uj] > 0):
                continue
            a, b = d / qz, inv_depth_j[vj, uj]  # |1/a - 1/b| / (1/a + 1/b) = |a - b| / (a + b)
            s = b * qz
            back = (
                T_jk[0, 2] * (qx - s * T_jk[0, 3])
                + T_jk[1, 2] * (qy - s * T_jk[1, 3])
                + T_jk[2, 2] * (qz - s * T_jk[2, 3])
            )
            if abs(a - b) < limit * (a + b) and back > 0:
                w = np.float32(1 / max(sigma_j[vj, uj], LEAST_SIGMA) ** 2)
                votes[v, u] += 1
                total[v, u] += w * np.float32(s / back)
                weight[v, u] += w

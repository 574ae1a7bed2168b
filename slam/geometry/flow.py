"""Flow that a rigid motion induces on an image of known inverse depth, and its Jacobians."""

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.camera import pixel_grid

MIN_DEPTH_RATIO = 0.05  # a point nearer to camera j than this share of its depth in i is taken as behind it


def rays(K: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, 3) rays with z = 1 through the pixel centres of intrinsics (B, 3, 3)."""
    uv = pixel_grid(height, width, like=K)
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[:, None, None]
    xy = (uv - K[:, None, None, :2, 2]) / focal
    return torch.cat([xy, torch.ones_like(xy[..., :1])], -1)


def project(points: Tensor, K: Tensor) -> Tensor:
    """Points (B, ..., 3) in front of the camera -> pixels (B, ..., 2) by intrinsics (B, 3, 3)."""
    shape = (K.shape[0],) + (1,) * (points.ndim - 2) + (2,)
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1).view(shape)
    return focal * points[..., :2] / points[..., 2:] + K[:, :2, 2].reshape(shape)


def reproject(inv_depth: Tensor, T_ji: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pixels of view i lie in view j.

    With inverse depth d and ray r the point is r / d; its image depends only on q = R r + d t, which stays finite
    for d = 0 (a point at infinity), so unknown or distant depth needs no special case.

    Args:
        inv_depth: (B, H, W) inverse z-depth in view i.
        T_ji: (B, 4, 4) view j from view i (`p_j = T_ji p_i`).
        K: (B, 3, 3) intrinsics of both views at this size.

    Returns:
        uv: (B, H, W, 2) pixels in view j.
        q: (B, H, W, 3) the point in frame j times its inverse depth in i; inverse depth in j is `inv_depth / q_z`.
        valid: (B, H, W) bool, in front of camera j.
    """
    B, H, W = inv_depth.shape
    T = T_ji.to(inv_depth)
    q = rays(K.to(inv_depth), H, W) @ T[:, None, :3, :3].mT + inv_depth[..., None] * T[:, None, None, :3, 3]
    valid = q[..., 2] > MIN_DEPTH_RATIO
    q = torch.cat([q[..., :2], q[..., 2:].clamp_min(MIN_DEPTH_RATIO)], -1)
    return project(q, K.to(inv_depth)), q, valid


def inpainted_holes(inv_depth: Tensor, rings: int = 6) -> Tensor:
    """Inverse depth (B, H, W) with its holes (0) closed: by the mean of known neighbours, ring by ring, then by all."""
    if (inv_depth > 0).all():
        return inv_depth
    value = inv_depth[:, None]
    for _ in range(rings):
        known = (value > 0).to(value)
        near = F.avg_pool2d(value * known, 3, 1, 1) / F.avg_pool2d(known, 3, 1, 1).clamp_min(1e-6)
        value = torch.where(value > 0, value, near)
    known = (value > 0).to(value)
    mean = (value * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp_min(1)
    return torch.where(value > 0, value, mean)[:, 0]


def reprojection_jacobians(q: Tensor, inv_depth: Tensor, T_ji: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of `reproject`'s uv.

    Args:
        q: (B, H, W, 3) as returned by `reproject`.
        inv_depth, T_ji, K: as given to `reproject`.

    Returns:
        J_pose: (B, H, W, 2, 6) by a left update `exp([v, omega]) @ T_ji`.
        J_depth: (B, H, W, 2) by the inverse depth.
    """
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1).to(q)[:, None, None]  # (B, 1, 1, 2)
    z = 1 / q[..., 2:]
    xy = q[..., :2] * z
    d = inv_depth[..., None] * z  # inverse depth in view j
    eye = torch.eye(2, dtype=q.dtype, device=q.device)
    turn = xy[..., None] * xy[..., None, :] + eye  # [[1 + x^2, x y], [x y, 1 + y^2]]
    across = torch.stack([-xy[..., 1], xy[..., 0]], -1)
    columns = [d[..., None] * eye, (-d * xy)[..., None], -turn[..., 1:], turn[..., :1], across[..., None]]
    return focal[..., None] * torch.cat(columns, -1), depth_jacobian(q, T_ji, K)


def depth_jacobian(q: Tensor, T_ji: Tensor, K: Tensor) -> Tensor:
    """J_depth (B, H, W, 2) of `reprojection_jacobians` alone."""
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1).to(q)[:, None, None]
    t = T_ji[:, None, None, :3, 3].to(q)
    z = 1 / q[..., 2:]
    return focal * z * (t[..., :2] - q[..., :2] * z * t[..., 2:])


def in_image(uv: Tensor, height: int, width: int, margin: float = 0.0) -> Tensor:
    """(...) bool: pixels (..., 2) inside the image, `margin` pixels from its outermost centres."""
    u, v = uv.unbind(-1)
    return (u >= margin) & (u <= width - 1 - margin) & (v >= margin) & (v <= height - 1 - margin)

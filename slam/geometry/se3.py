"""Rigid motions: exponential, logarithm, adjoint, inverse of SE(3).

Tangent vectors are `[v, omega]` (translation first, map units and radians); updates multiply on the left.

Reference: Blanco, A tutorial on SE(3) transformation parameterizations and on-manifold optimization, 2010;
Sola, Deray, Atchuthan, A micro Lie theory for state estimation in robotics, 2018.
"""

import torch
from torch import Tensor

SMALL_ANGLE_RAD = 1e-4  # below it the series to second order are exact in float64 to 1e-16 relative


def identity() -> Tensor:
    """(4, 4) float64 identity."""
    return torch.eye(4, dtype=torch.float64)


def hat(v: Tensor) -> Tensor:
    """Cross-product matrix: (..., 3) -> (..., 3, 3) with `hat(a) @ b == a x b`."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def _coefficients(angle_sq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(a)/a, (1-cos(a))/a^2, (a-sin(a))/a^3 of a squared angle, by series when small."""
    small = angle_sq < SMALL_ANGLE_RAD**2
    safe_sq = torch.where(small, torch.ones_like(angle_sq), angle_sq)
    a = safe_sq.sqrt()
    sinc = torch.where(small, 1 - angle_sq / 6, a.sin() / a)
    # 2 sin^2(a/2) keeps the digits that 1 - cos(a) loses near zero
    cosc = torch.where(small, 0.5 - angle_sq / 24, 2 * (0.5 * a).sin().square() / safe_sq)
    rest = torch.where(small, 1 / 6 - angle_sq / 120, (a - a.sin()) / (safe_sq * a))
    return sinc, cosc, rest


def so3_exp(omega: Tensor) -> Tensor:
    """Rotation vector (..., 3), radians -> rotation matrix (..., 3, 3)."""
    sinc, cosc, _ = _coefficients(omega.square().sum(-1))
    W = hat(omega)
    eye = torch.eye(3, dtype=omega.dtype, device=omega.device)
    return eye + sinc[..., None, None] * W + cosc[..., None, None] * (W @ W)


def so3_log(R: Tensor) -> Tensor:
    """Rotation matrix (..., 3, 3) -> rotation vector (..., 3) of angle in [0, pi].

    Goes through the largest component of the unit quaternion, so it is exact near zero and near pi.
    """
    quat_xyzw = _quaternion_xyzw(R)
    xyz, w = quat_xyzw[..., :3], quat_xyzw[..., 3]
    norm = xyz.norm(dim=-1)
    small = norm < 0.5 * SMALL_ANGLE_RAD
    safe = torch.where(small, torch.ones_like(norm), norm)
    factor = torch.where(small, 2 / w - 2 / 3 * norm.square() / w**3, 2 * torch.atan2(norm, w) / safe)
    return factor[..., None] * xyz


def _quaternion_xyzw(R: Tensor) -> Tensor:
    """Unit quaternion with w >= 0, by the best conditioned of Shepperd's four branches."""
    m00, m11, m22 = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    a, b, c = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    d, e, f = R[..., 0, 1] + R[..., 1, 0], R[..., 0, 2] + R[..., 2, 0], R[..., 1, 2] + R[..., 2, 1]
    rows = torch.stack(
        [
            torch.stack([1 + m00 - m11 - m22, d, e, a], -1),
            torch.stack([d, 1 - m00 + m11 - m22, f, b], -1),
            torch.stack([e, f, 1 - m00 - m11 + m22, c], -1),
            torch.stack([a, b, c, 1 + m00 + m11 + m22], -1),
        ],
        -2,
    )  # each row is the quaternion times four of its own components
    best = torch.diagonal(rows, dim1=-2, dim2=-1).argmax(-1)
    quat = torch.take_along_dim(rows, best[..., None, None], -2).squeeze(-2)
    quat = quat / quat.norm(dim=-1, keepdim=True)
    return torch.where(quat[..., 3:] < 0, -quat, quat)


def _left_jacobian(omega: Tensor) -> Tensor:
    _, cosc, rest = _coefficients(omega.square().sum(-1))
    W = hat(omega)
    eye = torch.eye(3, dtype=omega.dtype, device=omega.device)
    return eye + cosc[..., None, None] * W + rest[..., None, None] * (W @ W)


def from_rt(R: Tensor, t: Tensor) -> Tensor:
    """Rotation (..., 3, 3) and translation (..., 3) -> pose (..., 4, 4)."""
    T = torch.zeros(*R.shape[:-2], 4, 4, dtype=R.dtype, device=R.device)
    T[..., :3, :3] = R
    T[..., :3, 3] = t
    T[..., 3, 3] = 1
    return T


def exp(xi: Tensor) -> Tensor:
    """Twist (..., 6) `[v, omega]` -> pose (..., 4, 4)."""
    v, omega = xi[..., :3], xi[..., 3:]
    return from_rt(so3_exp(omega), (_left_jacobian(omega) @ v[..., None]).squeeze(-1))


def log(T: Tensor) -> Tensor:
    """Pose (..., 4, 4) -> twist (..., 6) `[v, omega]`, angle in [0, pi]."""
    omega = so3_log(T[..., :3, :3])
    v = torch.linalg.solve(_left_jacobian(omega), T[..., :3, 3:]).squeeze(-1)
    return torch.cat([v, omega], -1)


def inverse(T: Tensor) -> Tensor:
    """Inverse of a rigid pose (..., 4, 4), without a general matrix inverse."""
    R_t = T[..., :3, :3].mT
    return from_rt(R_t, -(R_t @ T[..., :3, 3:]).squeeze(-1))


def adjoint(T: Tensor) -> Tensor:
    """(..., 6, 6) with `T @ exp(xi) == exp(adjoint(T) @ xi) @ T`."""
    R, t = T[..., :3, :3], T[..., :3, 3]
    top = torch.cat([R, hat(t) @ R], -1)
    bottom = torch.cat([torch.zeros_like(R), R], -1)
    return torch.cat([top, bottom], -2)


def orthonormalised(T: Tensor) -> Tensor:
    """The pose (..., 4, 4) with its rotation replaced by the nearest rotation (float drift removed)."""
    U, _, Vh = torch.linalg.svd(T[..., :3, :3])
    sign = torch.linalg.det(U @ Vh)
    U = torch.cat([U[..., :2], U[..., 2:] * sign[..., None, None]], -1)
    return from_rt(U @ Vh, T[..., :3, 3])


def angle_rad(T: Tensor) -> Tensor:
    """Rotation angle (...) of a pose or rotation (..., 4 or 3, 4 or 3), radians."""
    return so3_log(T[..., :3, :3]).norm(dim=-1)


def scaled_translation(T: Tensor, factor: float) -> Tensor:
    """The pose (4, 4) where lengths are `factor` times as large."""
    T = T.clone()
    T[:3, 3] *= factor
    return T

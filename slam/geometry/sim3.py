"""Similarities: exponential, logarithm, adjoint, inverse of Sim(3).

A similarity is a (..., 4, 4) matrix `[[s R, t], [0, 1]]`; its tangent is `[v, omega, log s]`, updates on the left.

Reference: Strasdat, Local accuracy and global consistency for efficient visual SLAM, 2012, app. A.
"""

import torch
from torch import Tensor

from slam.geometry import se3


def scale(S: Tensor) -> Tensor:
    """Scale factor (...) of a similarity (..., 4, 4)."""
    return torch.linalg.det(S[..., :3, :3]).abs().pow(1 / 3)


def _generator(zeta: Tensor) -> Tensor:
    v, omega, log_s = zeta[..., :3], zeta[..., 3:6], zeta[..., 6]
    G = torch.zeros(*zeta.shape[:-1], 4, 4, dtype=zeta.dtype, device=zeta.device)
    G[..., :3, :3] = se3.hat(omega) + log_s[..., None, None] * torch.eye(3, dtype=zeta.dtype, device=zeta.device)
    G[..., :3, 3] = v
    return G


def exp(zeta: Tensor) -> Tensor:
    """Tangent (..., 7) `[v, omega, log s]` -> similarity (..., 4, 4), by the matrix exponential."""
    return torch.linalg.matrix_exp(_generator(zeta))


def log(S: Tensor) -> Tensor:
    """Similarity (..., 4, 4) -> tangent (..., 7), angle in [0, pi].

    With A = hat(omega) + log(s) I, the translation is V v where V = integral of exp(u A) over u in [0, 1];
    V is read off the matrix exponential of [[A, I], [0, 0]] (Van Loan).
    """
    s = scale(S)
    omega = se3.so3_log(S[..., :3, :3] / s[..., None, None])
    eye = torch.eye(3, dtype=S.dtype, device=S.device).expand(*S.shape[:-2], 3, 3)
    A = se3.hat(omega) + s.log()[..., None, None] * eye
    block = torch.zeros(*S.shape[:-2], 6, 6, dtype=S.dtype, device=S.device)
    block[..., :3, :3] = A
    block[..., :3, 3:] = eye
    V = torch.linalg.matrix_exp(block)[..., :3, 3:]
    v = torch.linalg.solve(V, S[..., :3, 3:]).squeeze(-1)
    return torch.cat([v, omega, s.log()[..., None]], -1)


def inverse(S: Tensor) -> Tensor:
    """Inverse of a similarity (..., 4, 4)."""
    s = scale(S)[..., None, None]
    sR_inv = S[..., :3, :3].mT / s.square()
    return se3.from_rt(sR_inv, -(sR_inv @ S[..., :3, 3:]).squeeze(-1))


def adjoint(S: Tensor) -> Tensor:
    """(..., 7, 7) with `S @ exp(zeta) == exp(adjoint(S) @ zeta) @ S`."""
    s = scale(S)
    R, t = S[..., :3, :3] / s[..., None, None], S[..., :3, 3]
    A = torch.zeros(*S.shape[:-2], 7, 7, dtype=S.dtype, device=S.device)
    A[..., :3, :3] = s[..., None, None] * R
    A[..., :3, 3:6] = se3.hat(t) @ R
    A[..., :3, 6] = -t
    A[..., 3:6, 3:6] = R
    A[..., 6, 6] = 1
    return A

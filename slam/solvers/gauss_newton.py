"""Weighted, damped Gauss-Newton on poses: the least-squares layer of Flow-SE3.

The flow of an edge (i, j) says where each pixel of view i should lie in view j (`target_uv`) and how sure that is
(`weight`). The residual is `target_uv - reproject(inv_depth_i, T_ji)`. Per-pixel work is in the dtype of the flow, on
its device, the solve in float64, where the poses are; everything is differentiable by target and weight.

Reference: Teed & Deng, DeepV2D, ICLR 2020, sec. 3.2; Blanco 2010 for the left perturbation.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry import se3
from slam.kernels.compile import runs_as_loop
from slam.kernels.normal_equations import normal_equations
from slam.kernels.pose_steps import pose_steps

MIN_RECIPROCAL_CONDITION = 1e-7  # of the scaled normal equations; one point gives 0, a fair view 1e-3
MAX_UPDATE = 1.0  # map units or radians, per component: a step beyond it is a divergence, not a motion


@dataclass(frozen=True)
class Damping:
    """Added to the normal equations H: `absolute * total weight * I + relative * diag(H)`."""

    absolute: float = 1e-6
    relative: float = 1e-4


@dataclass(frozen=True, eq=False)
class PoseSolution:
    """Outcome of `pose_step`; poses that are not `ok` are returned as they came."""

    T: Tensor  # (E, 4, 4) float64
    ok: Tensor  # (E,) bool: well conditioned and finite


def redescending_weight(square: Tensor) -> Tensor:
    """Reweighting factor (...) of residuals, by their squares (...) in units of the robust scale.

    It is 1 where they are small, a quarter at 1, and beyond it next to nothing, where Huber's weight leaves a constant
    pull.

    Reference: Geman & McClure, Statistical methods for tomographic image reconstruction, 1987.
    """
    return (1 + square).square().reciprocal()


def solve_damped(
    H: Tensor, b: Tensor, total_weight: Tensor, damping: Damping, min_condition: float = MIN_RECIPROCAL_CONDITION
) -> tuple[Tensor, Tensor]:
    """Damped solution of `H x = b`, float64.

    Args:
        H: (..., n, n) symmetric; b: (..., n); total_weight: (...) sum of the weights, the unit of `damping.absolute`.
        damping: see `Damping`.
        min_condition: smallest accepted ratio of eigenvalues of H scaled to a unit diagonal; 0: whatever damping mends.

    Returns:
        x: (..., n), clipped to MAX_UPDATE, 0 where not ok.
        ok: (...) bool. Degenerate input (no weight, one point, all points on one ray) is not ok.
    """
    n = H.shape[-1]
    eye = torch.eye(n, dtype=H.dtype, device=H.device)
    diagonal = torch.diagonal(H, dim1=-2, dim2=-1)
    scale = diagonal.detach().clamp_min(1e-300).rsqrt()
    scaled = scale[..., :, None] * H.detach() * scale[..., None, :]
    finite = torch.isfinite(scaled).all(-1).all(-1) & torch.isfinite(b.detach()).all(-1)
    ok = finite & (total_weight > 0)
    if min_condition > 0:
        eigenvalues = torch.linalg.eigvalsh(torch.where(finite[..., None, None], scaled, eye))
        ok = ok & (eigenvalues[..., 0] > min_condition * eigenvalues[..., -1])
    damped = H + torch.diag_embed(damping.relative * diagonal)
    damped = damped + (damping.absolute * total_weight)[..., None, None] * eye
    safe = torch.where(ok[..., None, None], damped, eye)
    L, info = torch.linalg.cholesky_ex(safe)
    ok = ok & (info == 0)
    L = torch.where(ok[..., None, None], L, eye)
    rhs = torch.where(ok[..., None], b, torch.zeros_like(b))
    x = torch.cholesky_solve(rhs[..., None], L).squeeze(-1)
    return x.clamp(-MAX_UPDATE, MAX_UPDATE), ok


def pose_step(
    target_uv: Tensor,
    weight: Tensor,
    inv_depth: Tensor,
    T_ji: Tensor,
    K: Tensor,
    steps: int = 2,
    damping: Damping = Damping(),
    huber_px: float | None = None,
) -> PoseSolution:
    """Gauss-Newton on independent edges (keyframe mode): each T_ji by its own 6x6 system.

    Args:
        target_uv: (E, h, w, 2) where the pixels of view i should lie in view j, pixels of this size.
        weight: (E, h, w, 2) confidence of u and v, >= 0; 0 ignores a pixel. Or (E, h, w, 3) with what couples them: the
            information of a pixel is [[u, c], [c, v]], positive semidefinite.
        inv_depth: (E, h, w) of view i.
        T_ji: (E, 4, 4) start, view j from view i.
        K: (E, 3, 3) intrinsics at this size.
        steps: linearisations with the target held fixed.
        damping: see `Damping`.
        huber_px: robust threshold, pixels of this size; None is plain least squares.

    Returns:
        PoseSolution with T (E, 4, 4) and ok (E,).
    """
    if runs_as_loop(target_uv, target_uv, weight, inv_depth, T_ji, K):
        return _pose_step_loop(target_uv, weight, inv_depth, T_ji, K, steps, damping, huber_px)
    T = T_ji.double()
    total = weight.detach()[..., :2].sum((1, 2, 3), dtype=torch.float64).to(T.device)
    ok_all = torch.ones(len(T), dtype=torch.bool, device=T.device)
    for _ in range(steps):
        H, b = normal_equations(target_uv, weight, inv_depth, T, K, huber_px)
        xi, ok = solve_damped(H, b, total, damping)
        T = se3.exp(xi) @ T
        ok_all = ok_all & ok
    return PoseSolution(torch.where(ok_all[:, None, None], T, T_ji.double()), ok_all)


def _pose_step_loop(
    target_uv: Tensor,
    weight: Tensor,
    inv_depth: Tensor,
    T_ji: Tensor,
    K: Tensor,
    steps: int,
    damping: Damping,
    huber_px: float | None,
) -> PoseSolution:
    """`pose_step` as one compiled loop."""
    T, ok = T_ji.double().clone(), torch.empty(len(T_ji), dtype=torch.bool)
    flow, trust, depth, camera = (x.float().contiguous().numpy() for x in (target_uv, weight, inv_depth, K))
    pose_steps(
        *(flow, trust, depth, T.numpy(), camera),
        math.inf if huber_px is None else huber_px,
        steps,
        (damping.absolute, damping.relative),
        MIN_RECIPROCAL_CONDITION,
        MAX_UPDATE,
        ok.numpy(),
    )
    return PoseSolution(T, ok)


def rotation_step(
    target_uv: Tensor, weight: Tensor, K: Tensor, steps: int = 6, huber_px: float | None = None
) -> Tensor:
    """Rotation (E, 4, 4) that alone explains a flow best: what it leaves is parallax. Shapes as `pose_step`."""
    T = torch.eye(4, dtype=torch.float64, device=K.device).expand(len(target_uv), 4, 4)
    far = torch.zeros_like(target_uv[..., 0])
    total = weight[..., :2].sum((1, 2, 3), dtype=torch.float64).to(K.device)
    for _ in range(steps):
        H, b = normal_equations(target_uv, weight, far, T, K, huber_px)
        omega, _ = solve_damped(H[:, 3:, 3:], b[:, 3:], total, Damping())
        T = se3.exp(torch.cat([torch.zeros_like(omega), omega], -1)) @ T
    return T

"""Dense bundle adjustment: poses and inverse depths of a set of views from the flows between them.

Every pixel's inverse depth appears only in the edges that leave its view, so the depth block is diagonal and is
eliminated by the Schur complement; what is left is one small system over the poses.

Reference: Teed & Deng, DROID-SLAM, NeurIPS 2021, sec. 3.3; Triggs et al., Bundle adjustment: a modern synthesis, 2000.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import reproject, reprojection_jacobians
from slam.solvers.gauss_newton import Damping, assemble, huber_weight, solve_damped

GAUGE_CONDITION = -1e-9  # the scale of a monocular window is free: a null direction is damped, not refused
MIN_INV_DEPTH = 1e-4  # relative to the mean of the view: a point 10,000 times as far as the mean


@dataclass(frozen=True)
class BundleSolution:
    """Outcome of `bundle_adjust`; when not `ok` poses and depths are returned as they came."""

    T_cw: Tensor  # (N, 4, 4) float64
    inv_depth: Tensor  # (N, h, w)
    depth_information: Tensor  # (N, h, w): sum of w J^2, pixels^2 per inverse depth^2, without the prior
    ok: Tensor  # () bool


def bundle_adjust(
    target_uv: Tensor,
    weight: Tensor,
    edges: Tensor,
    T_cw: Tensor,
    inv_depth: Tensor,
    prior: tuple[Tensor, Tensor],
    fixed: Tensor,
    K: Tensor,
    steps: int = 4,
    damping: Damping = Damping(),
    huber_px: float | None = None,
) -> BundleSolution:
    """Damped Gauss-Newton on all free poses and all inverse depths.

    Args:
        target_uv: (E, h, w, 2) where the pixels of view i should lie in view j.
        weight: (E, h, w, 2) >= 0.
        edges: (E, 2) int64, views (i, j).
        T_cw: (N, 4, 4) start poses.
        inv_depth: (N, h, w) start inverse depths.
        prior: inverse depth (N, h, w) and its weight (N, h, w), 1 / variance in units of one pixel^2 of flow error.
            Weight 0 leaves a pixel free, and as it came if no flow tells of it; the prior also fixes the scale.
        fixed: (N,) bool, poses held; with all held only the depths are adjusted.
        K: (3, 3) intrinsics at this size.
        steps, damping, huber_px: as `gauss_newton.pose_step`.

    Returns:
        BundleSolution. Without parallax (pure rotation) `depth_information` is 0 and depths stay at the prior.
    """
    N, h, w = inv_depth.shape
    i, j = edges.unbind(-1)
    sources, of_source = i.unique(return_inverse=True)  # only the depths of these are seen
    K_e = K.expand(len(edges), 3, 3)
    T, d = T_cw.double(), inv_depth
    floor = MIN_INV_DEPTH * inv_depth.mean((1, 2), keepdim=True)
    free = (~fixed).nonzero().squeeze(-1)
    index = (6 * free[:, None] + torch.arange(6, device=T.device)).reshape(-1)
    total = weight.double().sum()
    ok_all = torch.ones((), dtype=torch.bool, device=T.device)
    information = torch.zeros_like(d)
    for _ in range(steps):
        T_ji = T[j] @ se3.inverse(T[i])
        uv, q, valid = reproject(d[i], T_ji, K_e)
        J, J_d = reprojection_jacobians(q, d[i], T_ji, K_e)
        r = target_uv - uv
        wt = weight * valid[..., None]
        if huber_px is not None:
            wt = wt * huber_weight(r, huber_px)
        J, J_d, r, wt = J.flatten(1, 2), J_d.flatten(1, 2), r.flatten(1, 2), wt.flatten(1, 2)  # (E, P, 2[, 6])
        wJ = wt[..., None] * J
        H_e = torch.einsum("epci,epcj->eij", wJ, J).double()
        b_e = torch.einsum("epci,epc->ei", wJ, r).double()
        H, b = assemble(H_e, b_e, T_ji, edges, N)

        information = torch.zeros(N, h * w, dtype=d.dtype, device=d.device).index_add(0, i, (wt * J_d**2).sum(-1))
        gradient = torch.zeros_like(information).index_add(0, i, (wt * J_d * r).sum(-1))
        C = (information + prior[1].flatten(1)).double()
        g = (gradient + (prior[1] * (prior[0] - d)).flatten(1)).double()
        known = C > 0
        C_inv = torch.where(known, 1 / C.clamp_min(1e-30), torch.zeros_like(C))

        E_j = torch.einsum("epci,epc->eip", wJ, J_d).double()  # (E, 6, P): pose j against the depths of i
        E_i = -se3.adjoint(T_ji).mT @ E_j
        coupling = torch.zeros(len(sources), N, 6, h * w, dtype=torch.float64, device=d.device)  # [depths of, pose of]
        coupling.index_put_((of_source, j), E_j, accumulate=True).index_put_((of_source, i), E_i, accumulate=True)
        coupling = coupling.flatten(1, 2)[:, index]  # (sources, 6 free, P)
        eliminated = coupling * C_inv[sources, None]
        S = H[index][:, index] - (eliminated @ coupling.mT).sum(0)
        rhs = b[index] - (eliminated @ g[sources, :, None]).sum(0).squeeze(-1)
        xi, ok = solve_damped(S, rhs, total, damping, GAUGE_CONDITION) if len(free) else (rhs, total > 0)
        step = C_inv * g.index_add(0, sources, -(xi @ coupling))
        ok_all = ok_all & ok & torch.isfinite(step).all()
        T = T.index_copy(0, free, se3.exp(xi.view(-1, 6)) @ T[free])
        d = torch.where(known.view(N, h, w), torch.maximum(d + step.to(d).view(N, h, w), floor), d)
    information = information.view(N, h, w)
    T = torch.where(ok_all, T, T_cw.double())
    return BundleSolution(T, torch.where(ok_all, d, inv_depth), information, ok_all)

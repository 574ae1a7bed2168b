"""Dense bundle adjustment: poses and inverse depths of a set of views from the flows between them.

Every pixel's inverse depth appears only in the edges that leave its view, so the depth block is diagonal and is
eliminated by the Schur complement, view by view; what is left is one small system over the poses.

Reference: Teed & Deng, DROID-SLAM, NeurIPS 2021, sec. 3.3; Triggs et al., Bundle adjustment: a modern synthesis, 2000.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry import se3
from slam.kernels.bundle_terms import bundle_terms
from slam.solvers.gauss_newton import Damping, solve_damped

GAUGE_CONDITION = 0.0  # the scale of a monocular window is free: a null direction is damped, not refused
MIN_INV_DEPTH = 1e-4  # relative to the mean of the view: a point 10,000 times as far as the mean


@dataclass(frozen=True, eq=False)
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
    N = len(inv_depth)
    of_source = [(int(i), (edges[:, 0] == i).nonzero().squeeze(-1)) for i in edges[:, 0].unique()]
    T, d = T_cw.double(), inv_depth.clone()
    floor = MIN_INV_DEPTH * inv_depth.mean((1, 2), keepdim=True)
    free = (~fixed).nonzero().squeeze(-1)
    index = (6 * free[:, None] + torch.arange(6, device=T.device)).reshape(-1)
    total = weight.double().sum()
    ok_all = torch.ones((), dtype=torch.bool, device=T.device)
    information = torch.zeros_like(d)
    for _ in range(steps):
        S = torch.zeros(N, N, 6, 6, dtype=torch.float64, device=T.device)
        rhs = torch.zeros(N, 6, dtype=torch.float64, device=T.device)
        blocks = []
        for i, e in of_source:
            T_ji = T[edges[e, 1]] @ se3.inverse(T[i])
            block = _block(target_uv[e], weight[e], d[i], (prior[0][i], prior[1][i]), T_ji, K, huber_px)
            views = torch.cat([edges[e, 1], edges[e[:1], 0]])  # as the block orders its poses
            at, by = torch.meshgrid(views, views, indexing="ij")
            S.index_put_((at.reshape(-1), by.reshape(-1)), block.H.flatten(0, 1), accumulate=True)
            rhs.index_put_((views,), block.b, accumulate=True)
            information[i] = block.information
            blocks.append((i, views, block))
        system = S.permute(0, 2, 1, 3).reshape(6 * N, 6 * N)[index][:, index]
        b = rhs.reshape(-1)[index]
        xi, ok = solve_damped(system, b, total, damping, GAUGE_CONDITION) if len(free) else (b, total > 0)
        ok_all = ok_all & ok
        update = torch.zeros(N, 6, dtype=torch.float64, device=T.device).index_copy(0, free, xi.view(-1, 6))
        T = T.index_copy(0, free, se3.exp(xi.view(-1, 6)) @ T[free])
        for i, views, block in blocks:
            step = block.depth_step(update[views])
            ok_all = ok_all & torch.isfinite(step).all()
            d[i] = torch.where(block.known, torch.maximum(d[i] + step.to(d), floor[i]), d[i])
    T = torch.where(ok_all, T, T_cw.double())
    return BundleSolution(T, torch.where(ok_all, d, inv_depth), information, ok_all)


@dataclass(frozen=True, eq=False)
class _Block:
    """The edges that leave one view, its depths eliminated; poses in the order of the edges' targets, then itself."""

    H: Tensor  # (n, n, 6, 6) float64
    b: Tensor  # (n, 6)
    coupling: Tensor  # (6 n, P) poses against depths
    C_inv: Tensor  # (P,)
    gradient: Tensor  # (P,) of the depths
    known: Tensor  # (h, w) bool: depths that anything tells of
    information: Tensor  # (h, w)

    def depth_step(self, xi: Tensor) -> Tensor:
        """(h, w) step of the depths that goes with steps (n, 6) of the poses."""
        return (self.C_inv * (self.gradient - xi.flatten() @ self.coupling)).view(self.known.shape)


def _block(
    target_uv: Tensor,
    weight: Tensor,
    inv_depth: Tensor,
    prior: tuple[Tensor, Tensor],
    T_ji: Tensor,
    K: Tensor,
    huber_px: float | None,
) -> _Block:
    """Linearise the edges of one view: flows (E, h, w, 2), inverse depth (h, w), T_ji (E, 4, 4)."""
    E, n = len(T_ji), len(T_ji) + 1
    terms = bundle_terms(target_uv, weight, inv_depth, T_ji, K, huber_px)
    H_e, b_e = terms.H, terms.b
    C = (terms.information + prior[1].flatten()).double()
    gradient = (terms.gradient + (prior[1] * (prior[0] - inv_depth)).flatten()).double()
    known = C > 0
    C_inv = torch.where(known, 1 / C.clamp_min(1e-30), torch.zeros_like(C))

    A = se3.adjoint(
        T_ji
    )  # the view itself sees -A times what a target sees: exp(xi_j) T_ji exp(-xi_i) = exp(xi_j - A xi_i) T_ji
    AtH = A.mT @ H_e
    to_others = terms.coupling.double().flatten(0, 1)  # (6 E, P)
    coupling = torch.cat([to_others, -A.flatten(0, 1).mT @ to_others])
    H = torch.zeros(n, n, 6, 6, dtype=torch.float64, device=A.device)
    k = torch.arange(E, device=A.device)
    H[k, k], H[E, E], H[E, k], H[k, E] = H_e, (AtH @ A).sum(0), -AtH, -AtH.mT
    b = torch.cat([b_e, -(A.mT @ b_e[..., None]).squeeze(-1).sum(0, keepdim=True)])
    eliminated = coupling * C_inv
    H = H - (eliminated @ coupling.mT).view(n, 6, n, 6).permute(0, 2, 1, 3)
    b = b - (eliminated @ gradient).view(n, 6)
    return _Block(H, b, coupling, C_inv, gradient, known.view_as(inv_depth), terms.information.view_as(inv_depth))

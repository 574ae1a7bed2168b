"""Dense bundle adjustment: poses and inverse depths of a set of views from the flows between them.

Every pixel's inverse depth appears only in the edges that leave its view, so the depth block is diagonal and is
eliminated by the Schur complement, view by view, on the device of the maps; what is left is one small system over the
poses, solved where these are.

Reference: Teed & Deng, DROID-SLAM, NeurIPS 2021, sec. 3.3; Triggs et al., Bundle adjustment: a modern synthesis, 2000.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry import se3
from slam.kernels.bundle_terms import BundleTerms, bundle_terms
from slam.solvers.gauss_newton import Damping, solve_damped
from slam.solvers.lens import FreeLens, LensSolution, LensTerms, LinearisedEdges, lens_terms

GAUGE_CONDITION = 0.0  # the scale of a monocular window is free: a null direction is damped, not refused
MIN_INV_DEPTH = 1e-4  # relative to the mean of the view: a point 10,000 times as far as the mean
GAUGE_DAMPING = 1e-9  # relative, of the free scale, when the system is inverted
MAX_ZOOM = 0.2  # log change of the focal length in one step; a larger one is shortened, with all that goes with it


@dataclass(frozen=True, eq=False)
class BundleSolution:
    """Outcome of `bundle_adjust`; when not `ok` poses and depths are returned as they came."""

    T_cw: Tensor  # (N, 4, 4) float64
    inv_depth: Tensor  # (N, h, w)
    depth_information: Tensor  # (N, h, w): sum of w J^2, pixels^2 per inverse depth^2, without the prior
    ok: Tensor  # () bool
    lens: LensSolution | None = None  # where it was free


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
    free_lens: FreeLens | None = None,
) -> BundleSolution:
    """Damped Gauss-Newton on all free poses and all inverse depths, and on the lens if it is free.

    Maps (flows, weights, inverse depths, prior) are on one device; poses, edges, `fixed` and K may be on another.

    Args:
        target_uv: (E, h, w, 2) where the pixels of view i should lie in view j.
        weight: (E, h, w, 2) >= 0, or (E, h, w, 3) with what couples u and v.
        edges: (E, 2) int64, views (i, j).
        T_cw: (N, 4, 4) start poses.
        inv_depth: (N, h, w) start inverse depths.
        prior: inverse depth (N, h, w) and its weight (N, h, w), 1 / variance in units of one pixel^2 of flow error.
            Weight 0 leaves a pixel free, and as it came if no flow tells of it; the prior also fixes the scale.
        fixed: (N,) bool, poses held; with all held only the depths are adjusted.
        K: (3, 3) intrinsics at this size.
        steps, damping, huber_px: as `gauss_newton.pose_step`.
        free_lens: instead of K; flows are then in its pixels, float64, and everything is on the CPU.

    Returns:
        BundleSolution. Without parallax (pure rotation) `depth_information` is 0 and depths stay at the prior.
    """
    T, d = T_cw.double(), inv_depth.clone()
    order = edges[:, 0].argsort(stable=True)
    edges, target_uv, weight = edges[order], target_uv[order], weight[order]
    sources, counts = edges[:, 0].unique_consecutive(return_counts=True)
    views = [
        _View(i, slice(end - count, end))
        for i, count, end in zip(sources.tolist(), counts.tolist(), counts.cumsum(0).tolist(), strict=True)
    ]
    floor = MIN_INV_DEPTH * inv_depth.mean((1, 2), keepdim=True)
    free = (~fixed).nonzero().squeeze(-1)
    total = weight[..., :2].sum(dtype=torch.float64).to(T.device)
    ok_all = torch.ones((), dtype=torch.bool, device=T.device)
    information, finite = torch.zeros_like(d), torch.ones((), dtype=torch.bool, device=d.device)
    K = K.to(d)
    lens, unknowns = (None, 0) if free_lens is None else (free_lens.start, free_lens.unknowns)
    linearised: LinearisedEdges | None = None
    for _ in range(steps):
        T_ji = T[edges[:, 1]] @ se3.inverse(T[edges[:, 0]])
        on_device = T_ji.to(d)
        blocks = []
        if lens is not None and free_lens is not None:
            start = d[edges[:, 0]]
            linearised = lens_terms(free_lens.uv, target_uv, weight, start, on_device, lens, unknowns, huber_px)
        for v in views:
            of_lens: LensTerms | None = None
            if linearised is not None:
                terms, of_lens = linearised.of_view(v.edges)
            else:
                terms = bundle_terms(target_uv[v.edges], weight[v.edges], d[v.i], on_device[v.edges], K, huber_px)
            blocks.append(_Eliminated.of(terms, (prior[0][v.i], prior[1][v.i]), d[v.i], of_lens))
        A = se3.adjoint(T_ji)
        system, b = _joint(views, _on_host(blocks, T.device), edges, A, free, len(d), unknowns)
        if lens is not None and free_lens is not None and unknowns > 1:
            system[-1, -1] += free_lens.k1_weight
            b[-1] -= free_lens.k1_weight * lens.k1
        x, ok = solve_damped(system, b, total, damping, GAUGE_CONDITION) if len(b) else (b, total > 0)
        ok_all = ok_all & ok
        if lens is not None:
            x = x * (MAX_ZOOM / x[-unknowns].abs().clamp_min(MAX_ZOOM))
            lens = lens.changed(x[-unknowns:])
        xi, lens_step = x[: 6 * len(free)].view(-1, 6), x[6 * len(free) :].to(d.device)
        update = torch.zeros(len(d), 6, dtype=torch.float64, device=T.device).index_copy(0, free, xi)
        T = T.index_copy(0, free, se3.exp(xi) @ T[free])
        relative = update[edges[:, 1]] - (A @ update[edges[:, 0], :, None]).squeeze(-1)  # (E, 6), of T_ji
        relative = relative.to(d.device)
        for v, block in zip(views, blocks, strict=True):
            step = block.depth_step(torch.cat([relative[v.edges].flatten().double(), lens_step]))
            finite = finite & torch.isfinite(step).all()
            d[v.i] = torch.where(block.known, torch.maximum(d[v.i] + step.to(d), floor[v.i]), d[v.i])
            information[v.i] = block.information
    ok_all = ok_all & finite.to(T.device)
    solved = bool(ok_all)
    found: LensSolution | None = None
    if lens is not None and linearised is not None:
        found = LensSolution(lens, _lens_covariance(system, linearised.lens))
    return BundleSolution(T if solved else T_cw.double(), d if solved else inv_depth, information, ok_all, found)


@dataclass(frozen=True, eq=False)
class _View:
    """The edges that leave one view."""

    i: int
    edges: slice  # of all, by source


@dataclass(frozen=True, eq=False)
class _Eliminated:
    """What the E edges that leave one view say of their motions T_ji, and of S unknowns of the lens, once its P depths
    are eliminated; n = 6 E + S."""

    H: Tensor  # (n, n) float64
    b: Tensor  # (n,) float64
    coupling: Tensor  # (n, P) float64, motions and lens against depths
    C_inv: Tensor  # (P,)
    gradient: Tensor  # (P,) of the depths
    known: Tensor  # (h, w) bool: depths that anything tells of
    information: Tensor  # (h, w)

    @staticmethod
    def of(
        terms: BundleTerms, prior: tuple[Tensor, Tensor], inv_depth: Tensor, of_lens: LensTerms | None = None
    ) -> "_Eliminated":
        """The Schur complement of linearised edges, where the maps are."""
        C = (terms.information + prior[1].flatten()).double()
        gradient = (terms.gradient + (prior[1] * (prior[0] - inv_depth)).flatten()).double()
        known = C > 0
        C_inv = torch.where(known, 1 / C.clamp_min(1e-30), torch.zeros_like(C))
        H, b, coupling = torch.block_diag(*terms.H), terms.b.flatten(), terms.coupling.double().flatten(0, 1)
        if of_lens is not None:
            border = of_lens.motion.flatten(0, 1)
            H = torch.cat([torch.cat([H, border], 1), torch.cat([border.mT, of_lens.H.sum(0)], 1)])
            b, coupling = torch.cat([b, of_lens.b.sum(0)]), torch.cat([coupling, of_lens.coupling.sum(0)])
        weighed = coupling * C_inv
        return _Eliminated(
            H - weighed @ coupling.mT,
            b - weighed @ gradient,
            coupling,
            C_inv,
            gradient,
            known.view_as(inv_depth),
            terms.information.view_as(inv_depth),
        )

    def depth_step(self, x: Tensor) -> Tensor:
        """(h, w) step of the depths that goes with left updates of the motions, and of the lens, (n,)."""
        return (self.C_inv * (self.gradient - x @ self.coupling)).view(self.known.shape)


def _on_host(blocks: list[_Eliminated], host: torch.device) -> list[tuple[Tensor, Tensor]]:
    """H (n, n) and b (n,) of all blocks where the poses are, brought over in one copy."""
    both = [torch.cat([block.H, block.b[:, None]], 1) for block in blocks]
    flat = torch.cat([x.flatten() for x in both]).to(host)
    parts = [part.view_as(x) for part, x in zip(flat.split([x.numel() for x in both]), both, strict=True)]
    return [(part[:, :-1], part[:, -1]) for part in parts]


def _joint(
    views: list[_View],
    motions: list[tuple[Tensor, Tensor]],
    edges: Tensor,
    A: Tensor,
    free: Tensor,
    N: int,
    unknowns: int = 0,
) -> tuple[Tensor, Tensor]:
    """The system of all free poses and the unknowns of the lens, (n, n) and (n,) with n = 6 F + S, from those of the
    motions of each view's edges.

    The view itself sees -A = -adjoint(T_ji) times what a target sees: exp(xi_j) T_ji exp(-xi_i) = exp(xi_j - A xi_i)
    T_ji.
    """
    size = 6 * N + unknowns
    S = torch.zeros(size, size, dtype=torch.float64, device=A.device)
    rhs = torch.zeros(size, dtype=torch.float64, device=A.device)
    six, of_lens = torch.arange(6, device=A.device), torch.arange(6 * N, size, device=A.device)
    for v, (H, b) in zip(views, motions, strict=True):
        E = v.edges.stop - v.edges.start
        L = torch.cat(  # (6 E, 6 E + 6)
            [torch.eye(6 * E, dtype=b.dtype, device=b.device), -A[v.edges].flatten(0, 1)], 1
        )
        L = torch.block_diag(L, torch.eye(unknowns, dtype=b.dtype, device=b.device)) if unknowns else L
        poses = torch.cat([edges[v.edges, 1], edges[v.edges.start, :1]])  # in the order of the columns of L
        at = torch.cat([(6 * poses[:, None] + six).flatten(), of_lens])
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        S.index_put_((rows, columns), L.mT @ H @ L, accumulate=True)
        rhs.index_put_((at,), L.mT @ b, accumulate=True)
    index = torch.cat([(6 * free[:, None] + six).flatten(), of_lens])
    return S[index][:, index], rhs[index]


def _lens_covariance(system: Tensor, terms: LensTerms) -> Tensor:
    """(S, S) of the lens, by the misfit that is left; infinite where the system has no inverse."""
    unknowns = terms.b.shape[1]
    variance = terms.misfit.sum() / terms.weight.sum().clamp_min(1e-12)
    scale = system.diagonal().clamp_min(1e-300).rsqrt()
    scaled = scale[:, None] * system * scale + GAUGE_DAMPING * torch.eye(len(system), dtype=system.dtype)
    inverse, info = torch.linalg.inv_ex(scaled)
    if info != 0:
        return torch.full((unknowns, unknowns), torch.inf, dtype=system.dtype)
    return variance * (scale[:, None] * inverse * scale)[-unknowns:, -unknowns:]

"""What the flows from one view to others say of their motions and of the view's inverse depths.

Loops, for float32 on the CPU without gradients; tensors elsewhere.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import reproject, reprojection_jacobians
from slam.kernels.compile import REASSOCIATED, compiled, runs_as_loop
from slam.kernels.normal_equations import (
    BY_DEPTH,
    RESIDUAL,
    ROWS,
    SIZE,
    add_row,
    huber_weight,
    linearise_row,
    mirror,
    weighed,
)


@dataclass(frozen=True, eq=False)
class BundleTerms:
    """Sums over the pixels of each edge, and over the edges at each pixel, for left updates of T_ji; P = h w."""

    H: Tensor  # (E, 6, 6) float64, of w J^T J
    b: Tensor  # (E, 6) float64, of w J^T r
    coupling: Tensor  # (E, 6, P) of pose and depth, w J^T J_d
    information: Tensor  # (P,) w J_d^2
    gradient: Tensor  # (P,) w J_d r


def bundle_terms(
    target_uv: Tensor, weight: Tensor, inv_depth: Tensor, T_ji: Tensor, K: Tensor, huber_px: float | None = None
) -> BundleTerms:
    """Linearise the edges that leave one view.

    Args:
        target_uv: (E, h, w, 2) where its pixels should lie in the others.
        weight: (E, h, w, 2), or (E, h, w, 3) with what couples u and v.
        inv_depth: (h, w) of the view.
        T_ji: (E, 4, 4) the others from the view.
        K: (3, 3) intrinsics at this size.
        huber_px: robust threshold; None is plain least squares.
    """
    if runs_as_loop(target_uv, target_uv, weight, inv_depth, T_ji, K):
        return _by_loops(target_uv, weight, inv_depth, T_ji, K, huber_px)
    E = len(T_ji)
    T_ji, K_e = T_ji.to(inv_depth), K.to(inv_depth).expand(E, 3, 3)
    depths = inv_depth.expand(E, *inv_depth.shape)
    uv, q, valid = reproject(depths, T_ji, K_e)
    J, J_d = reprojection_jacobians(q, depths, T_ji, K_e)
    r = target_uv - uv
    w = weight * valid[..., None]
    if huber_px is not None:
        w = w * huber_weight(r, huber_px)
    J, J_d, r, w = J.flatten(1, 2), J_d.flatten(1, 2), r.flatten(1, 2), w.flatten(1, 2)  # (E, P, 2[, 6])
    wJ, wJ_d = weighed(w, J), weighed(w, J_d[..., None])[..., 0]
    return BundleTerms(
        H=torch.einsum("epci,epcj->eij", wJ, J).double(),
        b=torch.einsum("epci,epc->ei", wJ, r).double(),
        coupling=torch.einsum("epci,epc->eip", wJ, J_d),
        information=(wJ_d * J_d).sum((0, -1)),
        gradient=(wJ_d * r).sum((0, -1)),
    )


def _by_loops(
    target_uv: Tensor, weight: Tensor, inv_depth: Tensor, T_ji: Tensor, K: Tensor, huber_px: float | None
) -> BundleTerms:
    E, P = len(T_ji), inv_depth.numel()
    terms = BundleTerms(
        H=torch.zeros(E, SIZE, SIZE, dtype=torch.float64),
        b=torch.zeros(E, SIZE, dtype=torch.float64),
        coupling=torch.empty(E, SIZE, P),
        information=torch.zeros(P),
        gradient=torch.zeros(P),
    )
    given = (x.float().contiguous().numpy() for x in (target_uv, weight, inv_depth, T_ji, K))
    outputs = (x.numpy() for x in vars(terms).values())
    _terms_loop(*given, math.inf if huber_px is None else huber_px, *outputs)
    return terms


@compiled(REASSOCIATED)
def _terms_loop(
    target_uv: np.ndarray,
    weight: np.ndarray,
    inv_depth: np.ndarray,
    T_ji: np.ndarray,
    K: np.ndarray,
    huber_px: float,
    H: np.ndarray,
    b: np.ndarray,
    coupling: np.ndarray,
    information: np.ndarray,
    gradient: np.ndarray,
) -> None:
    """As `bundle_terms`; the outputs but `coupling` are 0 at first."""
    h, w = inv_depth.shape
    J, ws, wJ = np.empty((ROWS, 2 * w), np.float32), np.empty(3 * w, np.float32), np.empty((SIZE, 2 * w), np.float32)
    by_depth, residual = J[BY_DEPTH], J[RESIDUAL]
    for e in range(len(T_ji)):
        for v in range(h):
            linearise_row(target_uv[e, v], weight[e, v], inv_depth[v], v, T_ji[e], K, huber_px, J, ws)
            add_row(J, ws, wJ, H[e], b[e])
            at = v * w
            for m in range(SIZE):
                for u in range(w):
                    coupling[e, m, at + u] = wJ[m, u] * by_depth[u] + wJ[m, w + u] * by_depth[w + u]
            for u in range(w):
                along_u = ws[u] * by_depth[u] + ws[2 * w + u] * by_depth[w + u]
                along_v = ws[w + u] * by_depth[w + u] + ws[2 * w + u] * by_depth[u]
                information[at + u] += along_u * by_depth[u] + along_v * by_depth[w + u]
                gradient[at + u] += along_u * residual[u] + along_v * residual[w + u]
        mirror(H[e])

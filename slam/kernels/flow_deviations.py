"""How far measured flow is from what depth and pose induce, in standard deviations.

Loops, for float32 on the CPU without gradients: four times faster than tensors there.
"""

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import depth_jacobian, in_image, reproject
from slam.kernels.compile import REASSOCIATED, compiled, runs_as_loop
from slam.kernels.normal_equations import BY_DEPTH, RESIDUAL, ROWS, linearise_row

FLOW_SIGMA = 0.0625  # cells: standard deviation of flow of full weight; a quarter of a pixel
MOST_TYPICAL = 0.25  # cells: residual of a pair as a whole that is put down to the poses; a pixel
RAYLEIGH_MEDIAN = 1.1774  # of the length of a vector, standard deviations of its coordinates
LEAST_WEIGHT = 1e-3  # of a flow, when its variance is divided by it


def flow_deviations(
    inv_depth: Tensor, relative_sigma: Tensor, uv_ij: Tensor, weight: Tensor, T_ji: Tensor, K: Tensor
) -> tuple[Tensor, Tensor]:
    """Mahalanobis distances of the measured flow of E pairs of views from the flow that depth and pose induce.

    The covariance is diag(FLOW_SIGMA^2 / weight + m^2) + s s^T. Here s is the way along the epipolar line for one sigma
    of the depth, and m the median residual of the pair, as a standard deviation: the poses are not exact. Beyond
    MOST_TYPICAL they are wrong, and most cells are contradicted.

    Args:
        inv_depth: (E, h, w) of views i at cells; 0 is unknown.
        relative_sigma: (E, h, w) standard deviation of that, relative to it.
        uv_ij: (E, h, w, 2) measured positions in views j, cells.
        weight: (E, h, w, 2) confidence of their u and v in [0, 1]; more is not asked.
        T_ji: (E, 4, 4) view j from view i.
        K: (3, 3) or (E, 3, 3) intrinsics at cells.

    Returns:
        (E, h, w) distances, standard deviations, and bool where they are known.
    """
    K = K.expand(len(T_ji), 3, 3)
    given = (uv_ij, weight, inv_depth, relative_sigma, T_ji, K)
    if runs_as_loop(inv_depth, *given):
        deviation, known = torch.zeros_like(inv_depth), torch.zeros(inv_depth.shape, dtype=torch.bool)
        arrays = (x.float().contiguous().numpy() for x in given)
        _deviations_loop(*arrays, deviation.numpy(), known.numpy())
        return deviation, known
    T_ji, K = T_ji.to(inv_depth), K.to(inv_depth)
    uv, q, in_front = reproject(inv_depth, T_ji, K)
    shift = depth_jacobian(q, T_ji, K) * (relative_sigma * inv_depth)[..., None]  # s, cells
    residual = uv_ij - uv
    known = (weight[..., :2] > 0).any(-1) & (inv_depth > 0) & in_front & in_image(uv_ij, *inv_depth.shape[1:])
    alone = _deviations(residual, shift, residual.new_full((), FLOW_SIGMA**2))
    median = torch.where(known, alone, torch.nan).flatten(1).nanmedian(1).values.nan_to_num(0.0)[:, None, None, None]
    typical = (FLOW_SIGMA / RAYLEIGH_MEDIAN * median).clamp_max(MOST_TYPICAL)
    variance = FLOW_SIGMA**2 / weight[..., :2].clamp_min(LEAST_WEIGHT) + typical.square()
    return _deviations(residual, shift, variance), known


def _deviations(residual: Tensor, shift: Tensor, variance: Tensor) -> Tensor:
    """(E, h, w) Mahalanobis distance of residuals (E, h, w, 2) under diag(variance) + shift shift^T."""
    unexplained = (residual.square() / variance).sum(-1)
    along = (residual * shift / variance).sum(-1)
    explained = along.square() / (1 + (shift.square() / variance).sum(-1))  # Sherman & Morrison
    return (unexplained - explained).clamp_min(0).sqrt()


@compiled(REASSOCIATED)
def _deviations_loop(
    uv_ij: np.ndarray,
    weight: np.ndarray,
    inv_depth: np.ndarray,
    relative_sigma: np.ndarray,
    T_ji: np.ndarray,
    K: np.ndarray,
    deviation: np.ndarray,
    known: np.ndarray,
) -> None:
    """As `flow_deviations`; both outputs are 0 at first."""
    E, h, w = inv_depth.shape
    J, ws = np.empty((ROWS, 2 * w), np.float32), np.empty(3 * w, np.float32)
    residual, shift = np.empty((h, 2 * w), np.float32), np.empty((h, 2 * w), np.float32)  # of all u, then of all v
    alone = np.empty(h * w, np.float32)
    flow_variance, least = np.float32(FLOW_SIGMA**2), np.float32(LEAST_WEIGHT)
    for e in range(E):
        count = 0
        for v in range(h):
            linearise_row(uv_ij[e, v], weight[e, v], inv_depth[e, v], v, T_ji[e], K[e], np.inf, J, ws)
            for u in range(w):
                sigma = relative_sigma[e, v, u] * inv_depth[e, v, u]
                shift[v, u], shift[v, w + u] = J[BY_DEPTH, u] * sigma, J[BY_DEPTH, w + u] * sigma
                residual[v, u], residual[v, w + u] = J[RESIDUAL, u], J[RESIDUAL, w + u]
                at_u, at_v = uv_ij[e, v, u, 0], uv_ij[e, v, u, 1]
                is_inside = (at_u >= 0) & (at_u <= w - 1) & (at_v >= 0) & (at_v <= h - 1)
                if is_inside & (inv_depth[e, v, u] > 0) & (ws[u] + ws[w + u] > 0):  # no weight behind the camera
                    known[e, v, u] = True
                    alone[count] = _deviation(residual[v], shift[v], u, flow_variance, flow_variance)
                    count += 1
        if count == 0:
            continue
        middle = (count - 1) // 2
        typical = np.float32(FLOW_SIGMA / RAYLEIGH_MEDIAN) * np.partition(alone[:count], middle)[middle]
        typical = min(typical, np.float32(MOST_TYPICAL))
        for v in range(h):
            for u in range(w):
                variance_u = flow_variance / max(weight[e, v, u, 0], least) + typical * typical
                variance_v = flow_variance / max(weight[e, v, u, 1], least) + typical * typical
                deviation[e, v, u] = _deviation(residual[v], shift[v], u, variance_u, variance_v)


@compiled(REASSOCIATED, part=True)
def _deviation(residual: np.ndarray, shift: np.ndarray, u: int, variance_u: float, variance_v: float) -> float:
    """As `_deviations`, of cell u of a row (2 w,)."""
    v = u + len(residual) // 2
    by_u, by_v = np.float32(1) / variance_u, np.float32(1) / variance_v
    unexplained = residual[u] * residual[u] * by_u + residual[v] * residual[v] * by_v
    along = residual[u] * shift[u] * by_u + residual[v] * shift[v] * by_v
    spread = np.float32(1) + shift[u] * shift[u] * by_u + shift[v] * shift[v] * by_v
    return np.sqrt(max(unexplained - along * along / spread, np.float32(0)))

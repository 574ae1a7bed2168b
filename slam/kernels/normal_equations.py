"""The normal equations of poses: what the flow of an edge says of its motion.

Loops, for float32 on the CPU without gradients: ten times faster than tensors there. Sums run along whole rows, which
the compiler turns into vector instructions, and from row to row in float64.
"""

import math

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import MIN_DEPTH_RATIO, reproject, reprojection_jacobians
from slam.kernels.compile import REASSOCIATED, compiled, runs_as_loop

NEAR = np.float32(MIN_DEPTH_RATIO)
SIZE = 6  # of a twist
RESIDUAL, BY_DEPTH, ROWS = SIZE, SIZE + 1, SIZE + 2  # what follows it in a linearised row


def huber_weight(residual: Tensor, huber_px: float) -> Tensor:
    """Reweighting factor (..., 1) of residuals (..., 2), pixels: 1 inside the threshold, then falling as 1/r."""
    norm = residual.norm(dim=-1, keepdim=True)
    return huber_px / norm.clamp_min(huber_px)


def weighed(weight: Tensor, J: Tensor) -> Tensor:
    """W J (..., 2, n) of derivatives (..., 2, n) and weights (..., 2) of u and v, or (..., 3) with what couples them:
    the information W is [[u, c], [c, v]]."""
    wJ = weight[..., :2, None] * J
    return wJ if weight.shape[-1] == 2 else wJ + weight[..., 2:, None] * J.flip(-2)


def trust_of(weight: Tensor) -> Tensor:
    """(...) what weights (..., 2 or 3) of u and v come to, their mean."""
    return weight[..., :2].mean(-1)


def normal_equations(
    target_uv: Tensor, weight: Tensor, inv_depth: Tensor, T_ji: Tensor, K: Tensor, huber_px: float | None = None
) -> tuple[Tensor, Tensor]:
    """H (E, 6, 6) and b (E, 6) of each edge, float64, for a left update of T_ji. Shapes as `pose_step`.

    They are where the poses are, wherever the maps are: both come over in one copy.
    """
    given = (target_uv, weight, inv_depth, T_ji, K)
    if runs_as_loop(target_uv, *given):
        E = len(T_ji)
        H, b = torch.empty(E, 6, 6, dtype=torch.float64), torch.empty(E, 6, dtype=torch.float64)
        flow, trust, depth, motion, camera = (x.float().contiguous().numpy() for x in given)
        threshold = math.inf if huber_px is None else huber_px
        _accumulate(flow, trust, depth, motion, camera, threshold, H.numpy(), b.numpy())
        return H, b
    T, K = T_ji.to(inv_depth), K.to(inv_depth)
    uv, q, valid = reproject(inv_depth, T, K)
    J, _ = reprojection_jacobians(q, inv_depth, T, K)  # (E, h, w, 2, 6)
    residual = target_uv - uv
    w = weight * valid[..., None]
    if huber_px is not None:
        w = w * huber_weight(residual.detach(), huber_px)
    wJ, J, residual = (x.reshape(len(T_ji), -1, x.shape[-1]) for x in (weighed(w, J), J, residual[..., None]))
    both = wJ.mT @ torch.cat([J, residual], -1)  # (E, 6, 7)
    both = both.to(T_ji.device, torch.float64)
    return both[..., :SIZE], both[..., SIZE]


@compiled(REASSOCIATED)
def _accumulate(
    target_uv: np.ndarray,
    weight: np.ndarray,
    inv_depth: np.ndarray,
    T_ji: np.ndarray,
    K: np.ndarray,
    huber_px: float,
    H: np.ndarray,
    b: np.ndarray,
) -> None:
    """As `normal_equations`; `accumulate_edge` for each of E edges."""
    for e in range(len(T_ji)):
        accumulate_edge(target_uv[e], weight[e], inv_depth[e], T_ji[e], K[e], huber_px, H[e], b[e])


@compiled(REASSOCIATED, part=True)
def accumulate_edge(
    target_uv: np.ndarray,
    weight: np.ndarray,
    inv_depth: np.ndarray,
    T_ji: np.ndarray,
    K: np.ndarray,
    huber_px: float,
    H: np.ndarray,
    b: np.ndarray,
) -> None:
    """The normal equations of one edge.

    Args:
        target_uv: (h, w, 2).
        weight: (h, w, 2), or (h, w, 3) with what couples u and v.
        inv_depth: (h, w).
        T_ji: (4, 4) float32.
        K: (3, 3) float32.
        huber_px: robust threshold, infinite for plain least squares.
        H: (6, 6) float64 output.
        b: (6,) float64 output.
    """
    h, w = inv_depth.shape
    J, ws, wJ = np.empty((ROWS, 2 * w), np.float32), np.empty(3 * w, np.float32), np.empty((SIZE, 2 * w), np.float32)
    H[:] = 0
    b[:] = 0
    for v in range(h):
        linearise_row(target_uv[v], weight[v], inv_depth[v], v, T_ji, K, huber_px, J, ws)
        add_row(J, ws, wJ, H, b)
    mirror(H)


@compiled(REASSOCIATED, part=True)
def linearise_row(
    target_uv: np.ndarray,
    weight: np.ndarray,
    inv_depth: np.ndarray,
    v: int,
    T: np.ndarray,
    K: np.ndarray,
    huber_px: float,
    J: np.ndarray,
    ws: np.ndarray,
) -> None:
    """One row of pixels: derivatives of the reprojection, residuals and weights; first of all u, then of all v.

    Args:
        target_uv: (w, 2); weight: (w, 2 or 3); inv_depth: (w,); v: the row.
        J: (ROWS, 2 w) output: by the twist, RESIDUAL, and by the inverse depth (BY_DEPTH).
        ws: (3 w,) output: of all u, of all v, and what couples them.
    """
    w, is_coupled = len(inv_depth), weight.shape[1] == 3
    one, zero, huber = np.float32(1), np.float32(0), np.float32(huber_px)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    tx, ty, tz = T[0, 3], T[1, 3], T[2, 3]
    ray_y = (np.float32(v) - cy) / fy
    for u in range(w):
        ray_x, d = (np.float32(u) - cx) / fx, inv_depth[u]
        qx = T[0, 0] * ray_x + T[0, 1] * ray_y + T[0, 2] + d * tx
        qy = T[1, 0] * ray_x + T[1, 1] * ray_y + T[1, 2] + d * ty
        qz = T[2, 0] * ray_x + T[2, 1] * ray_y + T[2, 2] + d * tz
        z = one / max(qz, NEAR)
        x, y, inv = qx * z, qy * z, d * z  # inv: inverse depth in view j
        off_u, off_v = target_uv[u, 0] - (fx * x + cx), target_uv[u, 1] - (fy * y + cy)
        trust = huber / max(np.sqrt(off_u * off_u + off_v * off_v), huber) if huber < np.inf else one
        trust = trust if qz > NEAR else zero
        ws[u], ws[w + u] = trust * weight[u, 0], trust * weight[u, 1]
        ws[2 * w + u] = trust * weight[u, 2] if is_coupled else zero
        J[0, u], J[1, u], J[2, u] = fx * inv, zero, -fx * x * inv
        J[3, u], J[4, u], J[5, u] = -fx * x * y, fx * (one + x * x), -fx * y
        J[RESIDUAL, u], J[BY_DEPTH, u] = off_u, fx * z * (tx - x * tz)
        J[0, w + u], J[1, w + u], J[2, w + u] = zero, fy * inv, -fy * y * inv
        J[3, w + u], J[4, w + u], J[5, w + u] = -fy * (one + y * y), fy * x * y, fy * x
        J[RESIDUAL, w + u], J[BY_DEPTH, w + u] = off_v, fy * z * (ty - y * tz)


@compiled(REASSOCIATED, part=True)
def add_row(J: np.ndarray, ws: np.ndarray, wJ: np.ndarray, H: np.ndarray, b: np.ndarray) -> None:
    """Add a row of `linearise_row` to the upper triangle of H (6, 6) and to b (6,); wJ (6, 2 w) becomes W J."""
    w = len(ws) // 3
    for m in range(SIZE):
        for k in range(w):
            wJ[m, k] = ws[k] * J[m, k] + ws[2 * w + k] * J[m, w + k]
        for k in range(w):
            wJ[m, w + k] = ws[w + k] * J[m, w + k] + ws[2 * w + k] * J[m, k]
        for n in range(m, SIZE + 1):
            total = np.float32(0)
            for k in range(2 * w):
                total += wJ[m, k] * J[n, k]
            if n < SIZE:
                H[m, n] += total
            else:
                b[m] += total


@compiled(part=True)
def mirror(H: np.ndarray) -> None:
    """Fill the lower triangle from the upper one."""
    for m in range(SIZE):
        for n in range(m):
            H[m, n] = H[n, m]

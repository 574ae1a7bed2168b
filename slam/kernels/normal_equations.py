"""The normal equations of poses: what the flow of an edge says of its motion.

Loops, for float32 on the CPU without gradients: ten times faster than tensors there. Sums run along whole rows, which
the compiler turns into vector instructions, and from row to row in float64.
"""

import math

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import MIN_DEPTH_RATIO, reproject, reprojection_jacobians
from slam.kernels.compile import REASSOCIATED, compiled

NEAR = np.float32(MIN_DEPTH_RATIO)
SIZE = 6  # of a twist; the residual follows it as one column more


def huber_weight(residual: Tensor, huber_px: float) -> Tensor:
    """Reweighting factor (..., 1) of residuals (..., 2), pixels: 1 inside the threshold, then falling as 1/r."""
    norm = residual.norm(dim=-1, keepdim=True)
    return huber_px / norm.clamp_min(huber_px)


def normal_equations(
    target_uv: Tensor, weight: Tensor, inv_depth: Tensor, T_ji: Tensor, K: Tensor, huber_px: float | None = None
) -> tuple[Tensor, Tensor]:
    """H (E, 6, 6) and b (E, 6) of each edge, float64, for a left update of T_ji. Shapes as `pose_step`."""
    given = (target_uv, weight, inv_depth, T_ji, K)
    on_cpu = target_uv.device.type == "cpu" and target_uv.dtype == torch.float32
    if on_cpu and not any(x.requires_grad for x in given):
        E = len(T_ji)
        H, b = torch.empty(E, 6, 6, dtype=torch.float64), torch.empty(E, 6, dtype=torch.float64)
        flow, trust, depth, motion, camera = (x.float().contiguous().numpy() for x in given)
        threshold = math.inf if huber_px is None else huber_px
        _accumulate(flow, trust, depth, motion, camera, threshold, H.numpy(), b.numpy())
        return H, b
    uv, q, valid = reproject(inv_depth, T_ji, K)
    J, _ = reprojection_jacobians(q, inv_depth, T_ji, K)  # (E, h, w, 2, 6)
    residual = target_uv - uv
    w = weight * valid[..., None]
    if huber_px is not None:
        w = w * huber_weight(residual.detach(), huber_px)
    E = len(T_ji)
    J, residual, w = J.reshape(E, -1, 6), residual.reshape(E, -1, 1), w.reshape(E, -1, 1)
    wJ = w * J
    H = wJ.mT @ J
    b = (wJ.mT @ residual).squeeze(-1)
    return H.double(), b.double()


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
    """As `normal_equations`.

    Args:
        target_uv, weight: (E, h, w, 2).
        inv_depth: (E, h, w).
        T_ji: (E, 4, 4).
        K: (E, 3, 3).
        huber_px: robust threshold, infinite for plain least squares.
        H: (E, 6, 6) float64 output.
        b: (E, 6) float64 output.
    """
    E, h, w = inv_depth.shape
    one, zero = np.float32(1), np.float32(0)
    huber = np.float32(huber_px)
    J, ws, wJ = np.empty((SIZE + 1, 2 * w), np.float32), np.empty(2 * w, np.float32), np.empty(2 * w, np.float32)
    H[:] = 0
    b[:] = 0
    for e in range(E):
        T = T_ji[e]
        fx, fy, cx, cy = K[e, 0, 0], K[e, 1, 1], K[e, 0, 2], K[e, 1, 2]
        for v in range(h):
            ray_y = (np.float32(v) - cy) / fy
            for u in range(w):
                ray_x, d = (np.float32(u) - cx) / fx, inv_depth[e, v, u]
                qx = T[0, 0] * ray_x + T[0, 1] * ray_y + T[0, 2] + d * T[0, 3]
                qy = T[1, 0] * ray_x + T[1, 1] * ray_y + T[1, 2] + d * T[1, 3]
                qz = T[2, 0] * ray_x + T[2, 1] * ray_y + T[2, 2] + d * T[2, 3]
                z = one / max(qz, NEAR)
                x, y, inv = qx * z, qy * z, d * z  # inv: inverse depth in view j
                off_u, off_v = target_uv[e, v, u, 0] - (fx * x + cx), target_uv[e, v, u, 1] - (fy * y + cy)
                trust = huber / max(np.sqrt(off_u * off_u + off_v * off_v), huber) if huber < np.inf else one
                trust = trust if qz > NEAR else zero
                ws[u], ws[w + u] = trust * weight[e, v, u, 0], trust * weight[e, v, u, 1]
                J[0, u], J[1, u], J[2, u] = fx * inv, zero, -fx * x * inv
                J[3, u], J[4, u], J[5, u] = -fx * x * y, fx * (one + x * x), -fx * y
                J[6, u] = off_u
                J[0, w + u], J[1, w + u], J[2, w + u] = zero, fy * inv, -fy * y * inv
                J[3, w + u], J[4, w + u], J[5, w + u] = -fy * (one + y * y), fy * x * y, fy * x
                J[6, w + u] = off_v
            for m in range(SIZE):
                for k in range(2 * w):
                    wJ[k] = ws[k] * J[m, k]
                for n in range(m, SIZE + 1):
                    total = zero
                    for k in range(2 * w):
                        total += wJ[k] * J[n, k]
                    if n < SIZE:
                        H[e, m, n] += total
                    else:
                        b[e, m] += total
        for m in range(SIZE):
            for n in range(m):
                H[e, m, n] = H[e, n, m]

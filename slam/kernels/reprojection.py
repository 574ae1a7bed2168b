"""Where the cells of a view lie in another one, and what an unsure depth leaves of the trust in that.

Loops, for float32 on the CPU without gradients: twenty times faster than tensors there.
"""

import numpy as np
import torch
from torch import Tensor

from slam.geometry.flow import MIN_DEPTH_RATIO, reproject, reprojection_jacobians
from slam.kernels.compile import REASSOCIATED, compiled, runs_as_loop

NEAR = np.float32(MIN_DEPTH_RATIO)


def reproject_with_trust(
    inv_depth: Tensor, T_ji: Tensor, K: Tensor, sigma: Tensor | None = None, flow_sigma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Reprojection of the cells of views i, and how far each can be trusted as a measurement of the pose.

    A cell weighs less the more of its position hangs on an unsure depth; in a pure rotation none does.

    Args:
        inv_depth: (E, h, w) of views i.
        T_ji: (E, 4, 4) view j from view i.
        K: (E, 3, 3) intrinsics at this size.
        sigma: (E, h, w) standard deviation of the inverse depth; None: it is sure.
        flow_sigma: standard deviation of the flow, pixels of this size.

    Returns:
        uv (E, h, w, 2), pixels of view j, and trust (E, h, w) in [0, 1], 0 behind the camera.
    """
    given = (inv_depth, T_ji, K) if sigma is None else (inv_depth, T_ji, K, sigma)
    if runs_as_loop(inv_depth, *given):
        uv, trust = torch.empty(*inv_depth.shape, 2), torch.empty(inv_depth.shape)
        depth, motion, camera = (x.float().contiguous().numpy() for x in (inv_depth, T_ji, K))
        deviation = depth if sigma is None else sigma.float().contiguous().numpy()
        shift = 0.0 if sigma is None else 1 / flow_sigma
        _reproject_loop(depth, deviation, motion, camera, shift, uv.numpy(), trust.numpy())
        return uv, trust
    T_ji, K = T_ji.to(inv_depth), K.to(inv_depth)
    uv, q, valid = reproject(inv_depth, T_ji, K)
    trust = valid.to(uv)
    if sigma is not None:
        _, J_depth = reprojection_jacobians(q, inv_depth, T_ji, K)
        trust = trust / (1 + (J_depth.norm(dim=-1) * sigma / flow_sigma).square())
    return uv, trust


@compiled(REASSOCIATED)
def _reproject_loop(
    inv_depth: np.ndarray,
    sigma: np.ndarray,
    T_ji: np.ndarray,
    K: np.ndarray,
    per_flow_sigma: float,
    uv: np.ndarray,
    trust: np.ndarray,
) -> None:
    """As `reproject_with_trust`; `per_flow_sigma` is 1 / flow_sigma, 0 where depth is sure."""
    E, h, w = inv_depth.shape
    one, zero, share = np.float32(1), np.float32(0), np.float32(per_flow_sigma)
    for e in range(E):
        T = T_ji[e]
        fx, fy, cx, cy = K[e, 0, 0], K[e, 1, 1], K[e, 0, 2], K[e, 1, 2]
        tx, ty, tz = T[0, 3], T[1, 3], T[2, 3]
        for v in range(h):
            ray_y = (np.float32(v) - cy) / fy
            ax, ay, az = (T[0, 1] * ray_y + T[0, 2], T[1, 1] * ray_y + T[1, 2], T[2, 1] * ray_y + T[2, 2])
            for u in range(w):
                ray_x, d = (np.float32(u) - cx) / fx, inv_depth[e, v, u]
                qz = T[2, 0] * ray_x + az + d * tz
                z = one / max(qz, NEAR)
                x, y = (T[0, 0] * ray_x + ax + d * tx) * z, (T[1, 0] * ray_x + ay + d * ty) * z
                uv[e, v, u, 0], uv[e, v, u, 1] = fx * x + cx, fy * y + cy
                shift_u, shift_v = fx * z * (tx - x * tz), fy * z * (ty - y * tz)  # by the inverse depth
                unsure = share * sigma[e, v, u]
                weight = one / (one + (shift_u * shift_u + shift_v * shift_v) * unsure * unsure)
                trust[e, v, u] = weight if qz > NEAR else zero

"""Which pixels of a depth map does another one confirm?"""

import numpy as np

from slam.kernels.compile import compiled


@compiled()
def vote(
    inv_depth: np.ndarray, T_jk: np.ndarray, K: np.ndarray, inv_depth_j: np.ndarray, limit: float, votes: np.ndarray
) -> None:
    """Add one to the pixels of k whose depth keyframe j confirms."""
    H, W = inv_depth.shape
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    for v in range(H):
        for u in range(W):
            d = inv_depth[v, u]
            if d <= 0:
                continue
            x, y = (u - cx) / fx, (v - cy) / fy
            qx = T_jk[0, 0] * x + T_jk[0, 1] * y + T_jk[0, 2] + d * T_jk[0, 3]
            qy = T_jk[1, 0] * x + T_jk[1, 1] * y + T_jk[1, 2] + d * T_jk[1, 3]
            qz = T_jk[2, 0] * x + T_jk[2, 1] * y + T_jk[2, 2] + d * T_jk[2, 3]
            if qz <= 0.05:
                continue
            uj, vj = int(np.floor(fx * qx / qz + cx + 0.5)), int(np.floor(fy * qy / qz + cy + 0.5))
            if 0 <= uj < W and 0 <= vj < H and inv_depth_j[vj, uj] > 0:
                a, b = d / qz, inv_depth_j[vj, uj]  # |1/a - 1/b| / (1/a + 1/b) = |a - b| / (a + b)
                if abs(a - b) < limit * (a + b):
                    votes[v, u] += 1

"""Forward warping of an inverse depth with a depth buffer."""

import numpy as np

from slam.kernels.compile import compiled


@compiled()
def splat(uv: np.ndarray, inv_depth: np.ndarray, weight: np.ndarray, out: np.ndarray, out_weight: np.ndarray) -> None:
    """Nearest points win; each covers the 2x2 pixels around its position."""
    H, W = out.shape
    for n in range(uv.shape[0]):
        if inv_depth[n] <= 0:
            continue
        u0, v0 = int(np.floor(uv[n, 0])), int(np.floor(uv[n, 1]))
        for v in range(v0, v0 + 2):
            for u in range(u0, u0 + 2):
                if 0 <= u < W and 0 <= v < H and inv_depth[n] > out[v, u]:
                    out[v, u] = inv_depth[n]
                    out_weight[v, u] = weight[n]

"""Damped Gauss-Newton on the pose of each edge as one loop: normal equations, solution and update in turn.

For float32 on the CPU without gradients; `solvers.gauss_newton` does the same by tensors elsewhere. A step takes a
fifth of a millisecond there, of which the tensors' overhead was three quarters.
"""

import numpy as np

from slam.kernels.compile import REASSOCIATED, compiled
from slam.kernels.normal_equations import SIZE, accumulate_edge

SMALL_ANGLE_RAD = 1e-4  # below it the series to second order are exact in float64


@compiled(REASSOCIATED)
def pose_steps(
    target_uv: np.ndarray,
    weight: np.ndarray,
    inv_depth: np.ndarray,
    T_ji: np.ndarray,
    K: np.ndarray,
    huber_px: float,
    steps: int,
    damping: tuple[float, float],
    min_condition: float,
    max_update: float,
    ok: np.ndarray,
) -> None:
    """As `gauss_newton.pose_step`.

    Args:
        target_uv: (E, h, w, 2) float32.
        weight: (E, h, w, 2 or 3) float32.
        inv_depth: (E, h, w) float32.
        T_ji: (E, 4, 4) float64, changed in place where ok.
        K: (E, 3, 3) float32.
        huber_px: robust threshold, infinite for plain least squares.
        steps: linearisations.
        damping: absolute, for each unit of weight, and relative.
        min_condition: smallest accepted ratio of eigenvalues.
        max_update: of a component of the step.
        ok: (E,) bool output.
    """
    H, b, xi = np.empty((SIZE, SIZE)), np.empty(SIZE), np.empty(SIZE)
    for e in range(len(T_ji)):
        total = 0.0
        for row in weight[e]:
            total += row[:, :2].sum()
        T = T_ji[e].copy()
        ok[e] = True
        for _ in range(steps):
            accumulate_edge(target_uv[e], weight[e], inv_depth[e], T.astype(np.float32), K[e], huber_px, H, b)
            if not _solve(H, b, total, damping, min_condition, max_update, xi):
                ok[e] = False
                break
            T = _exp(xi) @ T
        if ok[e]:
            T_ji[e] = T


@compiled(part=True)
def _solve(
    H: np.ndarray,
    b: np.ndarray,
    total: float,
    damping: tuple[float, float],
    min_condition: float,
    max_update: float,
    x: np.ndarray,
) -> bool:
    """As `gauss_newton.solve_damped`, of one (6, 6) system; False where it is refused."""
    scale = np.empty(SIZE)
    finite = total > 0
    for m in range(SIZE):
        scale[m] = 1 / np.sqrt(max(H[m, m], 1e-300))
        finite &= np.isfinite(b[m])
        for n in range(SIZE):
            finite &= np.isfinite(H[m, n])
    if not finite:
        return False
    scaled, damped = np.empty((SIZE, SIZE)), np.empty((SIZE, SIZE))
    for m in range(SIZE):
        for n in range(SIZE):
            scaled[m, n] = scale[m] * H[m, n] * scale[n]
            damped[m, n] = H[m, n]
        damped[m, m] += damping[1] * H[m, m] + damping[0] * total
    eigenvalues = np.linalg.eigvalsh(scaled)
    if not eigenvalues[0] > min_condition * eigenvalues[-1]:
        return False
    x[:] = np.linalg.solve(damped, b)
    for m in range(SIZE):
        x[m] = min(max(x[m], -max_update), max_update)
    return True


@compiled(part=True)
def _exp(xi: np.ndarray) -> np.ndarray:
    """Exponential of a twist [v, omega], (4, 4); as `geometry.se3.exp`."""
    x, y, z = xi[3], xi[4], xi[5]
    square = x * x + y * y + z * z
    angle = np.sqrt(square)
    if angle < SMALL_ANGLE_RAD:
        a, b, c = 1 - square / 6, 0.5 - square / 24, 1 / 6 - square / 120
    else:
        a, c = np.sin(angle) / angle, (angle - np.sin(angle)) / (square * angle)
        b = 2 * np.sin(0.5 * angle) ** 2 / square
    W = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    WW = W @ W
    T = np.eye(4)
    T[:3, :3] += a * W + b * WW
    T[:3, 3] = xi[:3] + b * (W @ xi[:3]) + c * (WW @ xi[:3])
    return T

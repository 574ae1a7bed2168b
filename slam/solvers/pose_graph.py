"""Pose graph over similarities: what relative poses and scales between keyframes say of all of them at once.

A monocular map drifts in scale too, so a loop is closed over Sim(3).

Reference: Strasdat, Montiel, Davison, Scale drift-aware large scale monocular SLAM, RSS 2010.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slam.geometry import sim3

CONVERGED = 1e-6  # largest update that ends the iteration


@dataclass(frozen=True, eq=False)
class PoseGraphSolution:
    """Outcome of `pose_graph`."""

    S_wk: Tensor  # (N, 4, 4) float64
    residual: Tensor  # (E,) root of each edge's weighted square, before the robust kernel


def pose_graph(
    S_wk: Tensor,
    edges: Tensor,
    S_ij: Tensor,
    weight: Tensor,
    fixed: int = 0,
    steps: int = 20,
    huber: float | None = None,
) -> PoseGraphSolution:
    """Gauss-Newton on the similarities of N nodes by E relative measurements, with a sparse factorisation.

    Args:
        S_wk: (N, 4, 4) float64 start.
        edges: (E, 2) int64, nodes (i, j).
        S_ij: (E, 4, 4) float64 measured S_wi^-1 S_wj.
        weight: (E, 7) information of `[v, omega, log s]`, > 0.
        fixed: the node that is held.
        steps: at most.
        huber: weighted residual from which an edge counts linearly; None: always squared.

    Returns:
        S_wk (N, 4, 4) float64, and the weighted residual (E,) of each edge.
    """
    from scipy.sparse.linalg import splu  # takes half a second to load: not before there is a loop

    N = len(S_wk)
    i, j = edges.unbind(-1)
    S = S_wk.clone()
    M_inv = sim3.inverse(S_ij)
    free = np.delete(np.arange(7 * N), np.s_[7 * fixed : 7 * fixed + 7])
    residual = torch.zeros(len(edges), dtype=torch.float64)
    for _ in range(steps):
        r = sim3.log(M_inv @ sim3.inverse(S[i]) @ S[j])
        residual = (weight * r.square()).sum(-1).sqrt()
        w = weight
        if huber is not None:
            w = weight * (huber / residual.clamp_min(huber))[:, None]
        J_j = sim3.adjoint(sim3.inverse(S[j]))  # of r by the left update of S_j, and minus it by that of S_i
        H_e = J_j.mT @ (w[..., None] * J_j)  # (E, 7, 7)
        b_e = -(J_j.mT @ (w * r)[..., None]).squeeze(-1)
        H, b = _assembled(H_e.numpy(), b_e.numpy(), i.numpy(), j.numpy(), N)
        step = np.zeros(7 * N)
        step[free] = splu(H[free][:, free].tocsc()).solve(b[free])
        S = sim3.exp(torch.from_numpy(step.reshape(N, 7))) @ S
        if np.abs(step).max() < CONVERGED:
            break
    return PoseGraphSolution(S, residual)


def _assembled(H_e: np.ndarray, b_e: np.ndarray, i: np.ndarray, j: np.ndarray, N: int) -> tuple[Any, np.ndarray]:
    """Blocks of each edge -> joint system, sparse (7 N, 7 N) and (7 N,)."""
    from scipy import sparse

    blocks = np.concatenate([H_e, H_e, -H_e, -H_e])
    rows, columns = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
    offset = np.arange(7)
    at_row = (7 * rows[:, None, None] + offset[:, None]).repeat(7, 2)
    at_column = (7 * columns[:, None, None] + offset[None, :]).repeat(7, 1)
    H = sparse.coo_matrix((blocks.ravel(), (at_row.ravel(), at_column.ravel())), shape=(7 * N, 7 * N)).tocsr()
    b = np.zeros((N, 7))
    np.add.at(b, j, b_e)
    np.add.at(b, i, -b_e)
    return H, b.ravel()

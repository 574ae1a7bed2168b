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
    system = _Assembly(i.numpy(), j.numpy(), N, fixed)
    residual = torch.zeros(len(edges), dtype=torch.float64)
    for _ in range(steps):
        S_inv = sim3.inverse(S)
        r = sim3.log(M_inv @ S_inv[i] @ S[j])
        residual = (weight * r.square()).sum(-1).sqrt()
        w = weight
        if huber is not None:
            w = weight * (huber / residual.clamp_min(huber))[:, None]
        J_j = sim3.adjoint(S_inv)[j]  # of r by the left update of S_j, and minus it by that of S_i
        H_e = J_j.mT @ (w[..., None] * J_j)  # (E, 7, 7)
        b_e = -(J_j.mT @ (w * r)[..., None]).squeeze(-1)
        H, b = system.assembled(H_e.numpy(), b_e.numpy())
        factors = splu(H, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        step = np.insert(factors.solve(b).reshape(N - 1, 7), fixed, 0, axis=0)
        S = sim3.exp(torch.from_numpy(step)) @ S
        if np.abs(step).max() < CONVERGED:
            break
    return PoseGraphSolution(S, residual)


class _Assembly:
    """Where the blocks of each edge go in the joint system of all nodes but the fixed one."""

    def __init__(self, i: np.ndarray, j: np.ndarray, N: int, fixed: int) -> None:
        self.i, self.j, self.N, self.fixed = i, j, N, fixed
        rows, columns = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
        (self.used,) = np.nonzero((rows != fixed) & (columns != fixed))
        row, column = (n[self.used] - (n[self.used] > fixed) for n in (rows, columns))
        places, self.block = np.unique(row * (N - 1) + column, return_inverse=True)  # several edges may share one
        self.column = places % (N - 1)
        self.first = np.searchsorted(places, np.arange(N) * (N - 1))  # block of each row, and the end

    def assembled(self, H_e: np.ndarray, b_e: np.ndarray) -> tuple[Any, np.ndarray]:
        """Blocks (E, 7, 7) and (E, 7) -> sparse (7 (N - 1), 7 (N - 1)) and (7 (N - 1),)."""
        from scipy import sparse

        size = 7 * (self.N - 1)
        data = np.zeros((len(self.column), 7, 7))
        np.add.at(data, self.block, np.concatenate([H_e, H_e, -H_e, -H_e])[self.used])
        b = np.zeros((self.N, 7))
        np.add.at(b, self.j, b_e)
        np.add.at(b, self.i, -b_e)
        H = sparse.bsr_matrix((data, self.column, self.first), shape=(size, size)).tocsr()
        H = sparse.csc_matrix((H.data, H.indices, H.indptr), shape=(size, size))  # symmetric
        return H, np.delete(b, self.fixed, axis=0).ravel()

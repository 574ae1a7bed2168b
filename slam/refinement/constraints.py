"""What the frames of a clip demand of each other's depth: flow and poses of pairs, and what may count of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry.camera import sample
from slam.geometry.flow import reproject
from slam.refinement.flows import Flows
from slam.refinement.losses import ConsistencyWeights, PairErrors, consistency_loss, pair_errors

AT_ONCE = 128  # pairs
AGREED = 0.1  # difference of log depth at which two measurements hardly support each other
SWEEPS = 4  # of averaging
CORRELATED = 3.0  # measurements count as one: neighbours share what they were measured with


@dataclass(frozen=True, eq=False)
class Constraints:
    """E directed pairs of a clip of N frames at cells; maps and motions on one device."""

    flows: Flows
    T_ji: Tensor  # (E, 4, 4) float32 frame j from frame i, map units
    K: Tensor  # (3, 3) float32 at cells
    static: Tensor  # (N, h, w) probability that a cell does not move
    stride: int  # pixels of a cell's side

    def __len__(self) -> int:
        return len(self.flows)

    def errors(self, edges: Tensor, inv_depth_i: Tensor, inv_depth_j: Tensor) -> PairErrors:
        """Disagreement of pairs (B,) by the depth (B, h, w) of their frames."""
        seen, T_ji = self.flows.mutual[edges], self.T_ji[edges]
        return pair_errors(inv_depth_i, inv_depth_j, self.flows.uv(edges), T_ji, self.K, self.stride, seen)

    def weight(self, edges: Tensor, uv: Tensor) -> Tensor:
        """(B, h, w) how much a cell of pairs (B,) may count that lies at uv (B, h, w, 2) in frame j: at rest in both.

        What the flow does not find counts too, by its depth; if something hides it, the robust losses leave it out.
        """
        i, j = self.flows.index[edges].unbind(1)
        there = sample(self.static[j][:, None], uv, padding="border")[:, 0]
        return self.static[i] * there

    def loss(
        self, edges: Tensor, log_i: Tensor, log_j: Tensor, weights: ConsistencyWeights
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Consistency loss of pairs (B,) by the log inverse depth (B, h, w) of their frames."""
        errors = self.errors(edges, log_i.exp(), log_j.exp())
        trust = self.flows.confidence[edges].float().mean(-1) * self.flows.mutual[edges]
        return consistency_loss(errors, trust, self.weight(edges, errors.uv), weights)


def averaged(log_inv_depth: Tensor, relative_sigma: Tensor, constraints: Constraints) -> tuple[Tensor, Tensor]:
    """Depth of each frame as the robust mean of its own measurement and those of its partners.

    Their measurements are read where the flow, or the frame's own depth, says that its cells lie; what differs by more
    than AGREED counts little (Geman-McClure weights, by iteration).

    Args:
        log_inv_depth, relative_sigma: (N, h, w) of each frame's own measurement.

    Returns:
        log inverse depth and relative sigma (N, h, w).
    """
    information = relative_sigma.square().reciprocal()
    mean = log_inv_depth.clone()
    squares = total = information
    for _ in range(SWEEPS):
        own = information * _support(log_inv_depth - mean)
        total, shift = own.clone(), own * (log_inv_depth - mean)
        squares = own * (log_inv_depth - mean).square()
        for n in range(0, len(constraints), AT_ONCE):
            edges = torch.arange(n, min(n + AT_ONCE, len(constraints)))
            i, difference, weight = _told(edges, mean, log_inv_depth, information, constraints)
            total.index_add_(0, i, weight)
            shift.index_add_(0, i, weight * difference)
            squares.index_add_(0, i, weight * difference.square())
        mean = mean + shift / total
    return mean, (squares / total + CORRELATED / total).sqrt()


def _told(
    edges: Tensor, mean: Tensor, log_inv_depth: Tensor, information: Tensor, constraints: Constraints
) -> tuple[Tensor, Tensor, Tensor]:
    """Frames i (B,) of pairs, what frames j say of their log inverse depth, as difference (B, h, w), and its weight."""
    i, j = constraints.flows.index[edges].unbind(1)
    B, K = len(edges), constraints.K.expand(len(edges), 3, 3)
    p, q, valid = reproject(mean[i].exp(), constraints.T_ji[edges], K)
    uv = torch.where(constraints.flows.mutual[edges][..., None], constraints.flows.uv(edges), p)
    there = torch.stack([log_inv_depth[j], information[j], torch.ones_like(mean[j])], 1)
    told, trust, inside = sample(there, uv).unbind(1)  # zero outside
    difference = (told / inside.clamp_min(1e-6) + q[..., 2].log() - mean[i]).view(B, *mean.shape[1:])
    weight = trust * (inside > 1 - 1e-3) * valid * constraints.weight(edges, uv) * _support(difference)
    return i.to(mean.device), difference, weight


def _support(difference: Tensor) -> Tensor:
    """Weight of a measurement by its difference of log depth from the mean."""
    return (1 + (difference / AGREED).square()).square().reciprocal()

"""Probability that what a cell shows stands still, from measured flow, poses and depth of single pictures.

Flow: where a cell is found in other views against where its depth and the pose say it should be. Across the epipolar
line no depth explains a difference; along it the sigma of the depth explains its share. Depth: what moves along its
epipolar line has a stereo depth that fits all views and is wrong; a network that sees one picture alone says another
depth. Numbers by `tools/bench_movers.py`.

References: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (only flow: fails along the line); Bian et al.,
Unsupervised scale-consistent depth learning from video, IJCV 2021 (masks by the disagreement of two depths).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.camera import pixel_grid
from slam.kernels.flow_deviations import LEAST_WEIGHT, flow_deviations
from slam.kernels.normal_equations import trust_of
from slam.solvers.gauss_newton import redescending_weight

PRIOR_SIGMA = 0.2  # relative standard deviation of the depth of a single picture, where it fits the frame well
CONTRADICTED = 3.0  # standard deviations at which a cell is as likely to move as to stand still
STILL = 4.0  # log odds of a cell that nothing contradicts, or of which nothing is known
MOST_MOVING = 8.0  # log odds that one view can bring up against a cell
MIN_PARTNERS = 3  # views that must see a cell before their vote counts, or all that its frame has
DILATION = 1  # cells by which moving areas grow: at their edges flow and depth are those of either side
MAX_MASKED = 0.6  # share of a frame: if more seems to move, it is the camera's pose that is wrong
FIT_STEPS = 10  # of the depth of a single picture to stereo; each weighs anew
FIT_DEVIATIONS = 1.5  # standard deviations at which a cell counts half in that fit
LEAST_SPREAD = 0.03  # of the log ratio of two depths, in that fit
RIDGE = 1e-3  # share of the weights, against a picture with a constant depth
MAD_TO_SIGMA = 1.4826  # of a Gaussian


@dataclass(frozen=True, eq=False)
class Evidence:
    """What E views say of cells."""

    log_odds: Tensor  # (E, h, w) of standing still against moving; 0 where nothing is said
    speaks: Tensor  # (E, h, w) bool: something is said


@dataclass(frozen=True, eq=False)
class StaticCells:
    """How likely the cells of N frames stand still."""

    probability: Tensor  # (N, h, w) in [0, 1], that of STILL where nothing is known; 1 in suspect frames
    suspect: Tensor  # (N,) bool: too much would move; the frame's pose is not to be trusted


def flow_evidence(
    inv_depth: Tensor, relative_sigma: Tensor, uv_ij: Tensor, weight: Tensor, T_ji: Tensor, K: Tensor
) -> Evidence:
    """Measured flow of E pairs of views against the flow that depth and pose induce; where a flow has no weight or the
    depth is 0, nothing is said.

    Args: as `flow_deviations`.

    Returns:
        what views j say of the cells of views i.
    """
    return _evidence(*flow_deviations(inv_depth, relative_sigma, uv_ij, weight, T_ji, K))


def consensus(
    inv_depth: Tensor,
    relative_sigma: Tensor,
    uv_ij: Tensor,
    weight: Tensor,
    T_ji: Tensor,
    K: Tensor,
    scale: float,
) -> Tensor:
    """(E, h, w) redescending weights in (0, 1] of the flows of `flow_evidence`: 1 of what is as depth and pose have it,
    a quarter at `scale` standard deviations; 1 where nothing is known."""
    deviations, speaks = flow_deviations(inv_depth, relative_sigma, uv_ij, weight, T_ji, K)
    return torch.where(speaks, redescending_weight((deviations / scale).square()), 1.0)


def static_share(agreeing: Tensor, weight: Tensor, i: Tensor, frames: int) -> Tensor:
    """(N, h, w) how far the flows of each cell agree with depth and poses, in [0, 1]; 1 where there are none, and in
    frames where most do not: it is their pose that is wrong.

    Args:
        agreeing: (E, h, w) as `consensus`.
        weight: (E, h, w, 2) of the flows.
        i: (E,) int64 the frames that they lead from, 0 .. N - 1.
        frames: N.
    """
    i, trust = i.to(weight.device), trust_of(weight)
    none = trust.new_zeros(frames, *trust.shape[1:])
    total, agreed = none.index_add(0, i, trust), none.index_add(0, i, trust * agreeing)
    both = torch.stack([agreed + LEAST_WEIGHT, total + LEAST_WEIGHT], 1)
    agreed, total = F.avg_pool2d(both, 3, 1, 1).unbind(1)
    share = agreed / total
    suspect = (share < 0.5).float().mean((1, 2)) > MAX_MASKED
    return torch.where(suspect[:, None, None], 1.0, share)


def depth_evidence(inv_depth: Tensor, relative_sigma: Tensor, inv_depth_prior: Tensor) -> Evidence:
    """Stereo depth of N frames against the depth that a network sees in each picture alone.

    The latter is first brought to the former by the robust fit of a power, a factor and a bend over the image, and
    then weighed by how well the frame as a whole fits. Bian et al. compare by D = |z - z'| / (z + z'), here it is
    |log z / z'| = 2 artanh D.

    Args:
        inv_depth: (N, h, w) at cells, 0 is unknown: nothing is said.
        relative_sigma: (N, h, w) standard deviation of that, relative to it.
        inv_depth_prior: (N, h, w) in any unit, of each frame another; 0 is unknown.
    """
    known = (inv_depth > 0) & (inv_depth_prior > 0)
    log_stereo, log_prior = (torch.where(known, x, torch.ones_like(x)).log() for x in (inv_depth, inv_depth_prior))
    misfit = _misfit(log_stereo, log_prior, known)
    variance = _spread(misfit, known).square() + PRIOR_SIGMA**2 + relative_sigma.square()
    return _evidence(misfit.abs() / variance.sqrt(), known)


def static_probability(flow: Evidence, i: Tensor, frames: int, depth: Evidence | None = None) -> StaticCells:
    """How likely cells stand still, by a vote of the views that each frame was compared with.

    Args:
        flow: of E pairs (i, j).
        i: (E,) int64 the frames whose cells are judged, 0 .. N - 1.
        frames: N.
        depth: of the N frames, if there is a depth of single pictures.
    """
    i = i.to(flow.log_odds.device)
    none = flow.log_odds.new_zeros(frames, *flow.log_odds.shape[1:])
    votes, total = (none.index_add(0, i, x.to(none)) for x in (flow.speaks, flow.log_odds))
    needed = i.bincount(minlength=frames).clamp(1, MIN_PARTNERS)[:, None, None]
    log_odds = torch.where(votes >= needed, (STILL + total) / (1 + votes), STILL)  # one more vote, for standing still
    if depth is not None:
        log_odds = torch.where(depth.speaks, torch.minimum(log_odds, depth.log_odds), log_odds)
    log_odds = F.avg_pool2d(log_odds[:, None], 3, 1, 1, count_include_pad=False)
    moving = F.max_pool2d(torch.sigmoid(-log_odds), 2 * DILATION + 1, 1, DILATION)[:, 0]
    suspect = (moving > 0.5).float().mean((1, 2)) > MAX_MASKED
    return StaticCells(torch.where(suspect[:, None, None], 1.0, 1 - moving), suspect)


def _evidence(deviations: Tensor, speaks: Tensor) -> Evidence:
    """Log odds by a disagreement in standard deviations (E, h, w), where there is one."""
    log_odds = (STILL * (1 - deviations / CONTRADICTED)).clamp_min(-MOST_MOVING)
    return Evidence(torch.where(speaks, log_odds, torch.zeros_like(log_odds)), speaks)


def _misfit(values: Tensor, model: Tensor, known: Tensor) -> Tensor:
    """(N, h, w) what is left of values after a robust fit of a constant, the model and a quadric over the image."""
    N, h, w = values.shape
    x, y = (2 * pixel_grid(h, w, like=values.double()) / values.new_tensor([w - 1, h - 1]).clamp_min(1) - 1).unbind(-1)
    bend = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], -1).expand(N, h, w, 6)
    known_share = known.double()
    centred = (model - _median(model, known)).double()
    A = torch.cat([bend, centred[..., None]], -1).flatten(1, 2)  # (N, h w, 7)
    b = (values.double() - model.double()).flatten(1)[..., None]
    damping = torch.diag(b.new_tensor([1e-9, *[RIDGE] * 6]))
    weight, misfit = known_share, values.double()
    for _ in range(FIT_STEPS):
        WA = weight.flatten(1)[..., None] * A
        amount = weight.sum((1, 2)).clamp_min(1)[:, None, None]
        solution = torch.linalg.solve(A.mT @ WA + amount * damping, WA.mT @ b)
        misfit = (b - A @ solution).view(N, h, w)
        scale = FIT_DEVIATIONS * _spread(misfit, known).clamp_min(LEAST_SPREAD)
        weight = known_share / (1 + (misfit / scale).square())  # Cauchy
    return misfit.to(values)


def _spread(values: Tensor, known: Tensor) -> Tensor:
    """(N, 1, 1) robust standard deviation about 0 of known values (N, h, w)."""
    return MAD_TO_SIGMA * _median(values.abs(), known)


def _median(values: Tensor, known: Tensor) -> Tensor:
    """(N, 1, 1) median of known values (N, h, w); 0 where none is."""
    seen = torch.where(known, values, torch.full_like(values, torch.nan))
    return seen.flatten(1).nanmedian(1).values.nan_to_num(0.0)[:, None, None]

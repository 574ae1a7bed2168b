"""Probability that what a cell shows stands still, from measured flow, poses and depth of single pictures.

Two kinds of evidence are voted on. Flow: where a cell is found in another view against where its depth and the pose
say it should be; across the epipolar line no depth explains a difference, along it the sigma of the depth explains its
share. Depth: what moves along its epipolar line has a stereo depth that fits all views and is wrong, but a network that
sees one picture says another depth.

References: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (the failure along the line); Bian et al.,
Unsupervised scale-consistent depth learning, IJCV 2021 (M_s = 1 - D_diff); Li et al., MegaSaM, CVPR 2025.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.flow import in_image, reproject, reprojection_jacobians

FLOW_SIGMA = 0.125  # cells: standard deviation of measured flow, half a pixel
CONTRADICTED = 3.0  # standard deviations of a residual at which a cell is as likely to move as not
STEEPNESS = 2.0  # log odds for a cell without any residual
MOST_MOVING = 4.0  # log odds against a cell that one view can bring
MIN_PARTNERS = 3  # views that must have something to say of a cell, of those that a frame has
DILATION = 1  # cells by which what moves is enlarged: the flow at its edge is that of either side
MAX_MASKED = 0.6  # share of a frame: if more seems to move, its pose is wrong
MAD_TO_SIGMA = 1.4826  # of a Gaussian


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for or against cells standing still."""

    log_odds: Tensor  # (E, h, w) of standing still against moving; 0 where nothing is said
    speaks: Tensor  # (E, h, w) bool: there is something to say


@dataclass(frozen=True, eq=False)
class StaticCells:
    """Which cells of N frames stand still."""

    probability: Tensor  # (N, h, w) in [0, 1]; 1 in suspect frames, one half or more where nothing is known
    suspect: Tensor  # (N,) bool: too much would move, so the pose is not to be trusted


def flow_evidence(
    inv_depth: Tensor, relative_sigma: Tensor, uv_ij: Tensor, weight: Tensor, T_ji: Tensor, K: Tensor
) -> Evidence:
    """Measured flow of E pairs of views against the flow that depth and pose induce.

    Args:
        inv_depth: (E, h, w) of views i at cells; 0 is unknown: such a cell says nothing.
        relative_sigma: (E, h, w) standard deviation of that, relative to it.
        uv_ij: (E, h, w, 2) measured positions in views j, cells.
        weight: (E, h, w) of the flow in [0, 1]; it scales what is said.
        T_ji: (E, 4, 4) view j from view i.
        K: (3, 3) or (E, 3, 3) intrinsics at cells.
    """
    E, h, w = inv_depth.shape
    K = K.to(inv_depth).expand(E, 3, 3)
    T_ji = T_ji.to(inv_depth)
    uv, q, in_front = reproject(inv_depth, T_ji, K)
    _, J_depth = reprojection_jacobians(q, inv_depth, T_ji, K)
    shift = J_depth * (relative_sigma * inv_depth)[..., None]  # cells along the epipolar line for one sigma
    residual = uv_ij - uv
    explained = (residual * shift).sum(-1).square() / (FLOW_SIGMA**2 + shift.square().sum(-1))
    deviations = (residual.square().sum(-1) - explained).clamp_min(0).sqrt() / FLOW_SIGMA  # Mahalanobis distance
    speaks = (weight > 0) & (inv_depth > 0) & in_front & in_image(uv_ij, h, w)
    log_odds = (STEEPNESS * (1 - deviations / CONTRADICTED)).clamp_min(-MOST_MOVING) * weight
    return Evidence(torch.where(speaks, log_odds, torch.zeros_like(log_odds)), speaks)


def depth_evidence(inv_depth: Tensor, relative_sigma: Tensor, inv_depth_prior: Tensor) -> Evidence:
    """Stereo depth of N frames against the depth that a network sees in each picture alone.

    Args:
        inv_depth: (N, h, w) at cells, 0 is unknown.
        relative_sigma: (N, h, w) standard deviation of that, relative to it.
        inv_depth_prior: (N, h, w) in any unit, another one for each frame.
    """
    known = (inv_depth > 0) & (inv_depth_prior > 0)
    log_ratio = inv_depth.clamp_min(1e-9).log() - inv_depth_prior.clamp_min(1e-9).log()
    offset = _median(log_ratio, known)
    difference = (log_ratio - offset).abs()
    spread = (MAD_TO_SIGMA * _median(difference, known)).clamp_min(0.02)
    deviations = difference / (spread.square() + relative_sigma.square()).sqrt()
    log_odds = (STEEPNESS * (1 - deviations / CONTRADICTED)).clamp_min(-MOST_MOVING)
    return Evidence(torch.where(known, log_odds, torch.zeros_like(log_odds)), known)


def static_probability(flow: Evidence, i: Tensor, frames: int, depth: Evidence | None = None) -> StaticCells:
    """Probability of standing still by the vote of all pairs of each frame.

    Args:
        flow: of E pairs (i, j).
        i: (E,) int64 frame of each pair whose cells are judged.
        frames: N, how many there are.
        depth: of the N frames, if there is a depth of single pictures.
    """
    i = i.to(flow.log_odds.device)
    shape = (frames, *flow.log_odds.shape[1:])
    votes = flow.log_odds.new_zeros(shape).index_add_(0, i, flow.speaks.to(flow.log_odds))
    total = flow.log_odds.new_zeros(shape).index_add_(0, i, flow.log_odds)
    partners = torch.bincount(i, minlength=frames)[:, None, None]
    heard = (votes >= partners.clamp(1, MIN_PARTNERS)) & (votes > 0)
    log_odds = torch.where(heard, total / votes.clamp_min(1), torch.zeros_like(total))
    if depth is not None:
        log_odds = log_odds + depth.log_odds.clamp_max(0)
    moving = 1 - torch.sigmoid(2 * log_odds)
    moving = F.max_pool2d(moving[:, None], 2 * DILATION + 1, 1, DILATION)[:, 0]
    suspect = (moving > 0.5).float().mean((1, 2)) > MAX_MASKED
    return StaticCells(torch.where(suspect[:, None, None], torch.ones_like(moving), 1 - moving), suspect)


def _median(values: Tensor, known: Tensor) -> Tensor:
    """(N, 1, 1) median of each of N maps where it is known; 0 where it is known nowhere."""
    nan = torch.full_like(values, torch.nan)
    return torch.where(known, values, nan).flatten(1).nanmedian(1).values.nan_to_num(0.0)[:, None, None]

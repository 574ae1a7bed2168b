"""Scores of the networks on clips with truth: pairs for motion, keyframes for stereo."""

from collections.abc import Sequence

import torch
from torch import Tensor

from slam.geometry import se3
from slam.networks.motion import FlowSE3
from slam.networks.prior import PriorNet
from slam.networks.stereo import StereoNet
from slam.solvers.flow_se3 import MotionStep
from slam.training.clips import Clip
from slam.training.data import AugmentConfig, Edges, all_edges, make_batch, mean_flow

NO_CHANGE = AugmentConfig(
    crop_height=0, crop_width=0, flip=0, flip_upright=0, gray=0, exposure=0, gamma=0, blur=0, noise=0, rolling=0, lens=0
)
FLOW_BANDS = ((0.0, 1.0), (1.0, 2.5), (2.5, 6.0))  # mean flow of a pair, pixels at 1/8


def pair_errors(steps: Sequence[MotionStep], edges: Edges) -> dict[str, Tensor]:
    """Errors of each pair after the last iteration, and before it.

    Returns:
        flow: (E,) mean true flow over visible pixels, pixels at the stride; epe: (E,) end-point error of the
        network's flow; rotation_deg, translation: (E,) errors, the latter as a share of the true translation.
    """
    last = steps[-1]
    error = (last.uv + last.residual_uv - edges.true_uv).norm(dim=-1)
    epe = (error * edges.visible).sum((1, 2)) / edges.visible.sum((1, 2)).clamp_min(1)
    difference = last.T_ji @ se3.inverse(edges.T_ji)
    t_true, t = edges.T_ji[:, :3, 3], last.T_ji[:, :3, 3]
    centre_true = -(edges.T_ji[:, :3, :3].mT @ t_true[..., None]).squeeze(-1)
    centre = -(last.T_ji[:, :3, :3].mT @ t[..., None]).squeeze(-1)
    return {
        "flow": mean_flow(edges),
        "epe": epe,
        "rotation_deg": torch.rad2deg(se3.angle_rad(difference)),
        "translation": (centre - centre_true).norm(dim=-1) / centre_true.norm(dim=-1).clamp_min(1e-9),
        "overlap": edges.visible.float().mean((1, 2)),
    }


@torch.no_grad()
def validate_motion(motion: FlowSE3, clips: Sequence[Clip], iters: int = 3) -> dict[str, float]:
    """Median errors of pairs from rest with true depth, for each band of motion size."""
    found: dict[str, list[Tensor]] = {}
    device = next(motion.parameters()).device
    for clip in clips:
        batch = make_batch([clip], len(clip.images), NO_CHANGE, torch.Generator().manual_seed(0), device)
        edges = all_edges(batch, motion.stride)
        maps = motion.encode(batch.images.flatten(0, 1))
        rest = torch.eye(4, dtype=torch.float64, device=device).repeat(len(edges.K), 1, 1)
        steps = motion(maps, edges.index, edges.inv_depth, rest, edges.K, iters, 2)
        for name, value in pair_errors(steps, edges).items():
            found.setdefault(name, []).append(value)
    errors = {k: torch.cat(v) for k, v in found.items()}
    scores = {}
    for low, high in FLOW_BANDS:
        kept = (errors["flow"] >= low) & (errors["flow"] < high) & (errors["overlap"] > 0.35)
        if kept.any():
            band = f"{low:g}-{high:g}px"
            scores[f"pairs_{band}"] = float(kept.sum())
            for name in ("flow", "epe", "rotation_deg", "translation"):
                scores[f"{name}_{band}"] = errors[name][kept].median().item()
    return scores


@torch.no_grad()
def validate_stereo(motion: FlowSE3, stereo: StereoNet, clips: Sequence[Clip]) -> dict[str, float]:
    """Depth errors of the first view of each clip from its three nearest views, wide hypotheses, true poses."""
    rel, good = [], []
    device = next(motion.parameters()).device
    for clip in clips:
        T_wc, K = clip.T_wc.to(device), clip.K[None].to(device)
        distance = (T_wc[:, :3, 3] - T_wc[:1, :3, 3]).norm(dim=-1)
        near = distance[1:].argsort()[:3] + 1
        images = clip.images.to(device).float() / 255
        maps = motion.encode_for_stereo(motion.encode(images), images)
        T_jk = (se3.inverse(T_wc[near]) @ T_wc[:1])[None]
        truth = clip.inv_depth[0].to(device)
        known = truth > 0
        unit = truth[known].median()[None]
        neighbours = [maps[j[None]] for j in near]
        inv_depth = stereo(maps[:1], neighbours, T_jk, K, 0.05 * unit, 3.5 * unit).inv_depth
        ratio = truth[known] / inv_depth[0][known].clamp_min(1e-4)  # predicted over true depth
        rel.append((ratio - 1).abs().mean())
        good.append((torch.maximum(ratio, 1 / ratio.clamp_min(1e-6)) < 1.25).float().mean())
    return {
        "abs_rel_median": torch.stack(rel).median().item(),
        "abs_rel_mean": torch.stack(rel).mean().item(),
        "delta_1.25": torch.stack(good).mean().item(),
    }


@torch.no_grad()
def validate_prior(motion: FlowSE3, prior: PriorNet, clips: Sequence[Clip]) -> dict[str, float]:
    """Depth errors of every view from its picture alone: one scale a picture, one scale a clip, and with none."""
    device = next(motion.parameters()).device
    by_picture, by_clip, metric, constant = [], [], [], []
    for clip in clips:
        images, truth = clip.images.to(device), clip.inv_depth.to(device)
        output = prior(motion.encode(images), clip.K.expand(len(images), 3, 3).to(device))
        known = truth > 0
        ratios = truth / output.full_size()  # predicted over true depth
        by_picture += [_abs_rel(r[k] / r[k].median()) for r, k in zip(ratios, known)]
        by_clip.append(_abs_rel(ratios[known] / ratios[known].median()))
        metric.append(_abs_rel(ratios[known]))
        constant += [_abs_rel(t[k] / t[k].median()) for t, k in zip(truth, known)]
    names = ("prior_abs_rel", "prior_abs_rel_one_scale_a_clip", "prior_abs_rel_in_metres", "constant_abs_rel")
    return {n: torch.stack(v).mean().item() for n, v in zip(names, (by_picture, by_clip, metric, constant))}


def _abs_rel(ratio: Tensor) -> Tensor:
    return (ratio - 1).abs().mean()

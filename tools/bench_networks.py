"""Accuracy of the networks, and of DIS flow and the classical plane sweep beside them, on clips with truth.

    python tools/bench_networks.py --weights fast --clips DIR --rgbd FOLDER [FOLDER ...]

Motion: from rest, with the true (or sensor) depth of the first view, errors by size of the motion. Stereo: the first
view of each clip from its last three with true poses, errors relative to the true depth, medians over keyframes.
Clips are those that v2d-train keeps in OUT/validation; RGB-D folders are in TUM layout with ground truth. Times are of
one edge or keyframe, encoding of a new picture included.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slam.classical.dis import DisFlow
from slam.classical.plane_sweep import plane_sweep
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.networks.depth import StereoNet, wide_hypotheses
from slam.networks.motion import FlowSE3
from slam.networks.storage import load_network
from slam.solvers.cascade import Cascade
from slam.solvers.flow_se3 import flow_se3
from slam.training.clips import Clip, ClipPool
from slam.training.data import at_cells
from slam.training.rgbd import RgbdFolder

PIXELS = 256 * 192
FAILED_DEG, FAILED_SHARE = 5.0, 0.5  # a pair is lost if its rotation, or its translation, is worse than this
MIN_OVERLAP = 0.4

# clip, indices of the neighbours, lowest and highest inverse depth -> inverse depth (H, W), certainty (H, W)
Sweep = Callable[[Clip, list[int], float, float], tuple[Tensor, Tensor]]


def read_rgbd(folder: Path, views: int, gaps: tuple[int, ...]) -> list[Clip]:
    """Clips of an RGB-D folder: every first view has depth, the others follow it by `gaps` frames."""
    recording = RgbdFolder.read(folder, PIXELS)
    starts = [int(i) for i in recording.has_depth.nonzero()[0] if i + max(gaps) < len(recording.has_depth)]
    return [recording.clip([i, *(i + g for g in gaps)]) for i in starts[:: max(1, len(starts) // views)]]


def motion_errors(correspondence: Any, clips: list[Clip], iters: int) -> dict[str, Tensor]:
    """Errors of pairs (first view, other view) by size of the motion, and the time of each, milliseconds."""
    rows = []
    for clip in clips:
        stride = correspondence.stride
        cells, smooth = at_cells(clip.inv_depth[:1], stride)
        cells = torch.where(smooth, cells, torch.zeros_like(cells))
        K = scaled_intrinsics(clip.K[None], 1 / stride)
        h, w = cells.shape[-2:]
        images = clip.images.float() / 255
        first = correspondence.encode(images[:1])[0]
        for j in range(1, len(images)):
            T_true = (se3.inverse(clip.T_wc[j]) @ clip.T_wc[0])[None]
            uv, _, _ = reproject(cells, T_true, K)
            rest, _, _ = reproject(cells, torch.eye(4, dtype=torch.float64)[None], K)
            seen = (cells > 0) & in_image(uv, h, w)
            if seen.sum() < MIN_OVERLAP * (cells > 0).sum() or (cells > 0).float().mean() < 0.1:
                continue
            began = time.perf_counter()
            state = correspondence.start([first], correspondence.encode(images[j : j + 1]))
            eye = torch.eye(4, dtype=torch.float64)[None]
            steps = flow_se3(correspondence.update, state, cells, eye, K, iters, 2, huber_px=1.0)
            spent = 1e3 * (time.perf_counter() - began)
            last = steps[-1]
            epe = (last.uv + last.residual_uv - uv).norm(dim=-1)[seen].mean() * stride
            motion_px = (uv - rest).norm(dim=-1)[seen].mean() * stride
            T = last.T_ji
            angle = torch.rad2deg(se3.angle_rad(T @ se3.inverse(T_true)))[0]
            angle_true = torch.rad2deg(se3.angle_rad(T_true))[0]
            t = (se3.inverse(T) - se3.inverse(T_true))[0, :3, 3].norm()
            t_true = se3.inverse(T_true)[0, :3, 3].norm()
            rows.append([motion_px, epe, angle, angle_true, t, t_true, spent, last.weight.mean()])
    names = ("motion_px", "epe_px", "rotation_deg", "true_deg", "translation_m", "true_m", "ms", "weight")
    table = torch.tensor([[float(v) for v in row] for row in rows]).T
    return dict(zip(names, table))


def learned_depth(networks: tuple[FlowSE3, StereoNet]) -> Sweep:
    """The stereo network: inverse depth and certainty of the first view."""
    motion, stereo = networks

    def run(clip: Clip, views: list[int], low: float, high: float) -> tuple[Tensor, Tensor]:
        features = motion.encode(clip.images[[0, *views]].float() / 255)
        T_jk = (se3.inverse(clip.T_wc[views]) @ clip.T_wc[0])[None]
        hypotheses = wide_hypotheses(torch.tensor([low]), torch.tensor([high]), stereo.config.planes)
        inv_depth, sigma = stereo(features[:1], [[f] for f in features[1:]], T_jk, clip.K[None], hypotheses)
        return inv_depth[0], -(sigma / inv_depth)[0]

    return run


def classical_depth(clip: Clip, views: list[int], low: float, high: float) -> tuple[Tensor, Tensor]:
    """The plane sweep without training."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    gray = (clip.images.float() * weights[:, None, None]).sum(1).round().to(torch.uint8).numpy()
    T_jk = (se3.inverse(clip.T_wc[views]) @ clip.T_wc[0]).numpy()
    found = plane_sweep(gray[0], [gray[v] for v in views], clip.K.numpy(), list(T_jk), (low, high))
    return torch.from_numpy(found.inv_depth), torch.from_numpy(found.confidence)


def stereo_errors(sweep: Sweep, clips: list[Clip]) -> dict[str, float]:
    """Depth of the first view of each clip from its three last, true poses, a range somewhat wider than the truth."""
    rows = []
    for clip in clips:
        truth = clip.inv_depth[0]
        known = truth > 0
        if known.float().mean() < 0.1:
            continue
        views = list(range(1, len(clip.images)))[-3:]
        low, high = 0.4 * truth[known].quantile(0.01).item(), 1.6 * truth[known].quantile(0.99).item()
        began = time.perf_counter()
        found, certainty = sweep(clip, views, low, high)
        spent = 1e3 * (time.perf_counter() - began)
        ratio = (truth / found.clamp_min(1e-4))[known]
        error = (ratio - 1).abs()
        sure = certainty[known] >= certainty[known].median()
        good = (torch.maximum(ratio, 1 / ratio.clamp_min(1e-6)) < 1.25).float().mean()
        rows.append([error.mean(), error.median(), error[sure].mean(), good, spent])
    names = ("abs_rel", "abs_rel_of_medians", "abs_rel_surer_half", "delta_1.25", "ms")
    return dict(zip(names, torch.tensor(rows).median(0).values.tolist())) | {"keyframes": len(rows)}


def summary(errors: dict[str, Tensor], bands: tuple[float, ...] = (0, 4, 12, 28, 60)) -> dict[str, dict[str, float]]:
    """Medians by band of the mean flow, pixels of the network size."""
    lost = (errors["rotation_deg"] > FAILED_DEG) | (
        (errors["translation_m"] > FAILED_SHARE * errors["true_m"].clamp_min(0.02))
        & (errors["rotation_deg"] > 0.3 * errors["true_deg"])
    )
    rows = {}
    for low, high in itertools.pairwise(bands):
        kept = (errors["motion_px"] >= low) & (errors["motion_px"] < high)
        if kept.sum() >= 3:
            row = {name: value[kept].median().item() for name, value in errors.items()}
            rows[f"{low}-{high}px"] = row | {"pairs": int(kept.sum()), "lost": lost[kept].float().mean().item()}
    return rows


def line(r: dict[str, float]) -> str:
    """One band's medians as text."""
    return (
        f"epe {r['epe_px']:6.2f} px  rotation {r['rotation_deg']:6.3f} of {r['true_deg']:5.2f} deg  translation "
        f"{1e3 * r['translation_m']:6.1f} of {1e3 * r['true_m']:6.1f} mm  weight {r['weight']:.2f}  {r['ms']:.0f} ms"
    )


def main() -> None:
    """Print one table for each data set and method; --json keeps the numbers."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", nargs="*", default=["fast"], help="profiles or files")
    p.add_argument("--clips", type=Path, help="folder of clips")
    p.add_argument("--rgbd", type=Path, nargs="*", default=[], help="folders in TUM layout with depth and truth")
    p.add_argument("--views", type=int, default=20, help="first views of each RGB-D folder")
    p.add_argument("--gaps", type=int, nargs="*", default=[1, 2, 4, 8, 12], help="frames from the first view")
    p.add_argument("--iters", type=int, default=3)
    p.add_argument("--classical", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    sets = {"rendered": ClipPool(10**6, a.clips).clips} if a.clips else {}
    sets |= {folder.name: read_rgbd(folder, a.views, tuple(a.gaps)) for folder in a.rgbd}
    networks = {str(w): load_network(w) for w in a.weights}
    methods: dict[str, Any] = {name: motion for name, (motion, _) in networks.items()}
    if a.classical:
        methods["DIS"] = DisFlow()
        methods |= {f"{name}, then DIS": Cascade(motion, DisFlow(), a.iters) for name, (motion, _) in networks.items()}
    results: dict[str, Any] = {}
    with torch.inference_mode():
        for data, clips in sets.items():
            for name, method in methods.items():
                iters = a.iters + (2 if isinstance(method, Cascade) else 0)
                rows = summary(motion_errors(method, clips, iters))
                results[f"{data}/{name}"] = rows
                print(f"\n{data}, motion by {name}, medians")
                for band, r in rows.items():
                    print(f"  {band:>9}: {r['pairs']:3} pairs, lost {100 * r['lost']:3.0f} %  " + line(r))
            sweeps: dict[str, Sweep] = {name: learned_depth(pair) for name, pair in networks.items()}
            if a.classical:
                sweeps["plane sweep"] = classical_depth
            for name, sweep in sweeps.items():
                scores = stereo_errors(sweep, clips)
                results[f"{data}/{name}/stereo"] = scores
                print(f"{data}, stereo by {name}: " + "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""Accuracy of the networks, and of DIS flow and the classical plane sweep beside them, on clips with truth.

    python tools/bench_networks.py --weights fast --clips DIR --rgbd FOLDER [FOLDER ...]

Motion: from rest, with the true (or sensor) depth of the first view and with that depth wrong by a smooth 5 %; errors
by size of the motion, in folders also by frames between views; epe_8 is the end-point error of the flow in pixels at
1/8. A pair fails if its pose shifts the pixels wrongly by over 20 % of the true motion. Stereo: the first view of each
clip from its last 1, 3 and 5 with true poses, and with poses wrong by 2 % of the baseline and 0.03 degrees a
coordinate; in folders also from three views chosen as keyframes are, by a parallax of about 5, 10 and 15 pixels at the
median depth. Scored are pixels that a neighbour sees; in folders not those more than 5 % off the median of 5x5
(rendered depth has stray pixels along edges, sensor depth flies there). Every number is a median / 90th percentile of
pairs or keyframes. Of the errors 63 % and 86 % should be within one and two sigma of the network (a Laplace
distribution's width), 68 % and 95 % of the plane sweep.
Clips are those that v2d-train keeps in OUT/validation; RGB-D folders are in TUM layout with ground truth. Times are of
one edge or keyframe, encoding of a new image included.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slam.evaluation.depth import without_strays
from slam.frames import Image
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.matching.correspondence import Correspondence
from slam.matching.dis import DisConfig, DisFlow
from slam.matching.learned_flow import LearnedFlow, LearnedFlowConfig
from slam.matching.photometric import PhotometricRefinement
from slam.networks.storage import Networks, load_networks
from slam.solvers.flow_se3 import flow_se3
from slam.stereo.plane_sweep import plane_sweep
from slam.training.clips import Clip, ClipPool
from slam.training.data import at_cells, smooth_field
from slam.training.rgbd import RgbdFolder

PIXELS = 256 * 192
FAILED_SHARE = 0.2  # of the true motion: a pair whose pose shifts the pixels worse than this has failed
MIN_OVERLAP = 0.4
BANDS = (0, 4, 12, 28, 60)  # mean motion, pixels of the network size
DEPTH_ERROR = 0.05  # standard deviation of the logarithm of a wrong depth, smooth over the image
POSE_ERROR = (0.02, 5e-4)  # of a wrong pose: share of the baseline, radians
VIEWS = (1, 3, 5)  # neighbours in stereo
PARALLAX_PX = (5.0, 10.0, 15.0)  # of neighbours as keyframes have them, at the median depth
PARALLAX_FACTOR = 1.4  # a frame whose parallax is further off cannot stand for one of these
SEED = 0
QUICK = 4  # clips
MOTION_COLUMNS = {
    "pairs": 0,
    "failed": 2,
    "epe_8": 3,
    "rotation_deg": 3,
    "translation_mm": 1,
    "true_deg": 1,
    "true_mm": 0,
    "ms": 0,
}
STEREO_COLUMNS = {"keyframes": 0, "abs_rel": 4, "delta_1.25": 3, "within_sigma": 2, "within_2_sigma": 2, "ms": 0}

# images (V, 3, H, W) uint8, T_jk (V - 1, 4, 4), K (3, 3), lowest and highest inverse depth
# -> inverse depth (H, W), its sigma (H, W)
Sweep = Callable[[Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]


def by_gaps(recording: RgbdFolder, views: int, gaps: tuple[int, ...]) -> list[Clip]:
    """Clips of a recording: every first view has depth, the others follow it by `gaps` frames."""
    starts = [int(i) for i in recording.has_depth.nonzero()[0] if i + max(gaps) < len(recording.has_depth)]
    return [recording.clip([i, *(i + g for g in gaps)]) for i in starts[:: max(1, len(starts) // views)]]


def by_parallax(recording: RgbdFolder, views: int) -> list[Clip]:
    """Clips of a recording: every first view has depth, the others are those nearest to it with PARALLAX_PX."""
    frames, clips = recording.frames, []
    centres = frames.T_wc[:, :3, 3]
    number = torch.arange(len(centres))
    starts = recording.has_depth.nonzero()[0]
    for i in (int(i) for i in starts[:: max(1, len(starts) // views)]):
        inv_depth = recording.clip([i]).inv_depth[0]
        parallax_px = (centres - centres[i]).norm(dim=-1) * frames.K[0, 0] * inv_depth[inv_depth > 0].median()
        off = torch.stack([(parallax_px / wanted).log().abs() for wanted in PARALLAX_PX])
        nearest = (off + 0.01 * (number - i).abs()).argmin(1)
        if off.gather(1, nearest[:, None]).max() < math.log(PARALLAX_FACTOR):
            clips.append(recording.clip([i, *nearest.tolist()]))
    return clips


def on_surfaces(inv_depth: Tensor) -> Tensor:
    """Inverse depth (H, W) with 0 at stray pixels."""
    depth = torch.where(inv_depth > 0, 1 / inv_depth.clamp_min(1e-4), 0)
    return torch.where(torch.from_numpy(without_strays(depth.numpy())) > 0, inv_depth, 0)


def motion_errors(
    correspondence: Correspondence[Any, Any], clips: list[Clip], depth_error: float, gaps: tuple[int, ...]
) -> dict[str, Tensor]:
    """Errors of pairs (first view, other view), and the time of each, milliseconds; `gaps` as of the other views."""
    generator = torch.Generator().manual_seed(SEED)
    rows = []
    for clip in clips:
        stride = correspondence.stride
        cells, smooth = at_cells(clip.inv_depth[:1], stride)
        cells = torch.where(smooth, cells, torch.zeros_like(cells))
        K = scaled_intrinsics(clip.K[None], 1 / stride)
        h, w = cells.shape[-2:]
        given = cells * (depth_error * smooth_field(1, h, w, generator)).exp()
        images = [Image(np.ascontiguousarray(rgb)) for rgb in clip.images.permute(0, 2, 3, 1).numpy()]
        eye = torch.eye(4, dtype=torch.float64)[None]
        rest, _, _ = reproject(cells, eye, K)
        first = correspondence.encode(images[:1])
        for j in range(1, len(images)):
            T_true = (se3.inverse(clip.T_wc[j]) @ clip.T_wc[0])[None]
            uv, _, _ = reproject(cells, T_true, K)
            seen = (cells > 0) & in_image(uv, h, w)
            if seen.sum() < MIN_OVERLAP * (cells > 0).sum() or (cells > 0).float().mean() < 0.1:
                continue
            began = time.perf_counter()
            state = correspondence.start(first, correspondence.encode(images[j : j + 1]))
            finished, most = correspondence.finished, correspondence.max_updates
            last = flow_se3(correspondence.update, state, given, eye, K, most, 2, huber_px=1.0, finished=finished)[-1]
            spent = 1e3 * (time.perf_counter() - began)
            T = last.T_ji
            motion = (uv - rest).norm(dim=-1)[seen].mean()
            shift = (reproject(cells, T, K)[0] - uv).norm(dim=-1)[seen].mean()
            epe_8 = (last.uv + last.residual_uv - uv).norm(dim=-1)[seen].mean() * stride / 8
            angle, angle_true = (torch.rad2deg(se3.angle_rad(M))[0] for M in (T @ se3.inverse(T_true), T_true))
            centre, centre_true = (se3.inverse(M)[0, :3, 3] for M in (T, T_true))
            error_mm, true_mm = 1e3 * (centre - centre_true).norm(), 1e3 * centre_true.norm()
            gap = gaps[j - 1] if gaps else 0
            rows.append([motion * stride, epe_8, angle, angle_true, error_mm, true_mm, spent, shift / motion, gap])
    names = ("motion_px", "epe_8", "rotation_deg", "true_deg", "translation_mm", "true_mm", "ms", "share", "gap")
    return dict(zip(names, torch.tensor([[float(v) for v in row] for row in rows]).reshape(-1, len(names)).T))


def summary(errors: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """[median, 90th percentile] by size of the motion and by frames between the views, and the share of failures."""
    motion, gap = errors["motion_px"], errors["gap"]
    groups = {f"{low}-{high} px": (motion >= low) & (motion < high) for low, high in itertools.pairwise(BANDS)}
    groups |= {f"{int(g)} frames": gap == g for g in gap.unique() if g > 0}
    rows = {}
    for name, kept in groups.items():
        if kept.sum() >= 3:
            row: dict[str, Any] = {k: spread(v[kept]) for k, v in errors.items() if k not in ("share", "gap")}
            failed = ~(errors["share"][kept] < FAILED_SHARE)
            rows[name] = row | {"pairs": int(kept.sum()), "failed": failed.float().mean().item()}
    return rows


def spread(values: Tensor) -> list[float]:
    """Median and 90th percentile."""
    return values.float().quantile(torch.tensor([0.5, 0.9])).tolist()


def learned_depth(networks: Networks) -> Sweep:
    """The stereo network."""

    def run(images: Tensor, T_jk: Tensor, K: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        floats = images.float() / 255
        maps = networks.motion.encode_for_stereo(networks.motion.encode(floats), floats)
        inv_depth_range = torch.tensor([low]), torch.tensor([high])
        neighbours = [maps[n : n + 1] for n in range(1, len(maps))]
        found = networks.stereo(maps[:1], neighbours, T_jk[None], K[None], *inv_depth_range)
        return found.inv_depth[0], found.sigma[0]

    return run


def classical_depth(images: Tensor, T_jk: Tensor, K: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The plane sweep without training."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    gray = (images.float() * weights[:, None, None]).sum(1).round().to(torch.uint8).numpy()
    found = plane_sweep(gray[0], list(gray[1:]), K.numpy(), list(T_jk.numpy()), (low, high))
    return torch.from_numpy(found.inv_depth), torch.from_numpy(found.sigma)


def stereo_errors(sweep: Sweep, clips: list[Clip], views: int, wrong_poses: bool, with_strays: bool) -> dict[str, Any]:
    """Depth of the first view of each clip from its last `views`, in a range somewhat wider than the truth."""
    generator = torch.Generator().manual_seed(SEED)
    rows = []
    for clip in clips:
        truth = on_surfaces(clip.inv_depth[0]) if with_strays else clip.inv_depth[0]
        if (truth > 0).float().mean() < 0.1 or len(clip.images) <= views:
            continue
        chosen = list(range(len(clip.images)))[-views:]
        T_jk = se3.inverse(clip.T_wc[chosen]) @ clip.T_wc[0]
        uv, _, ahead = reproject(truth.expand(views, -1, -1), T_jk, clip.K.expand(views, 3, 3))
        known = (truth > 0) & (ahead & in_image(uv, *truth.shape)).any(0)
        if wrong_poses:
            noise = torch.randn(views, 6, generator=generator).double()
            noise[:, :3] *= POSE_ERROR[0] * T_jk[:, :3, 3].norm(dim=-1, keepdim=True)
            noise[:, 3:] *= POSE_ERROR[1]
            T_jk = se3.exp(noise) @ T_jk
        low, high = 0.4 * truth[known].quantile(0.01).item(), 1.6 * truth[known].quantile(0.99).item()
        began = time.perf_counter()
        found, sigma = sweep(clip.images[[0, *chosen]], T_jk, clip.K, low, high)
        spent = 1e3 * (time.perf_counter() - began)
        ratio = (truth / found.clamp_min(1e-4))[known]
        good = (torch.maximum(ratio, 1 / ratio.clamp_min(1e-6)) < 1.25).float().mean()
        off = ((found - truth).abs() / sigma)[known]
        within = [(off < n).float().mean() for n in (1, 2)]
        rows.append([(ratio - 1).abs().mean(), good, *within, spent])
    table = torch.tensor(rows).reshape(-1, 5).T
    names = ("abs_rel", "delta_1.25", "within_sigma", "within_2_sigma", "ms")
    return {n: spread(v) for n, v in zip(names, table) if rows} | {"keyframes": len(rows)}


def show(title: str, rows: dict[str, dict[str, Any]], columns: dict[str, int]) -> None:
    """Methods side by side as lines of one group: numbers of `columns` (decimals by name), others as they are."""
    print(f"\n{title}")
    for name, row in rows.items():
        parts = []
        for column, digits in columns.items():
            value = row.get(column)
            if isinstance(value, list):
                parts.append(f"{column} {value[0]:.{digits}f} / {value[1]:.{digits}f}")
            elif value is not None:
                parts.append(f"{column} {value:.{digits}f}")
        print(f"  {name:<18} " + "  ".join(parts))


def motion_tables(
    data: str, methods: dict[str, Correspondence[Any, Any]], clips: list[Clip], gaps: tuple[int, ...]
) -> dict[str, Any]:
    """Print the methods side by side, with true and with wrong depth; the rows by title."""
    tables = {}
    for depth_error, which in ((0.0, "true depth"), (DEPTH_ERROR, f"depth wrong by {100 * DEPTH_ERROR:.0f} %")):
        found = {}
        for name, method in methods.items():
            found[name] = summary(motion_errors(method, clips, depth_error, gaps))
        for group in dict.fromkeys(g for rows in found.values() for g in rows):
            title = f"{data}, motion, {which}, {group}"
            tables[title] = {name: rows[group] for name, rows in found.items() if group in rows}
            show(title, tables[title], MOTION_COLUMNS)
    return tables


def stereo_tables(
    title: str, sweeps: dict[str, Sweep], clips: list[Clip], views: int, with_strays: bool
) -> dict[str, Any]:
    """Print the methods side by side, with true and with wrong poses; the rows by title."""
    tables = {}
    for wrong in (False, True):
        whole = f"{title}, {'wrong' if wrong else 'true'} poses"
        rows = {name: stereo_errors(sweep, clips, views, wrong, with_strays) for name, sweep in sweeps.items()}
        if any(row["keyframes"] for row in rows.values()):
            show(whole, rows, STEREO_COLUMNS)
            tables[whole] = rows
    return tables


def main() -> None:
    """Print one table for each data set and group of pairs, methods side by side."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", nargs="*", default=["fast"], help="profiles or files")
    p.add_argument("--clips", type=Path, help="folder of clips")
    p.add_argument("--rgbd", type=Path, nargs="*", default=[], help="folders in TUM layout with depth and truth")
    p.add_argument("--views", type=int, default=20, help="first views of each RGB-D folder")
    p.add_argument("--gaps", type=int, nargs="*", default=[1, 5, 10], help="frames from the first view")
    p.add_argument("--iters", type=int, default=3)
    p.add_argument("--parts", nargs="+", choices=("motion", "stereo"), default=("motion", "stereo"))
    p.add_argument("--classical", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--quick", action="store_true", help="a few clips and views only")
    p.add_argument("--json", type=Path, help="keep the numbers")
    a = p.parse_args()
    gaps, quick = tuple(a.gaps), QUICK if a.quick else None
    rendered = ClipPool(10**6, a.clips).clips[:quick] if a.clips else []
    recordings = {folder.name: RgbdFolder.read(folder, PIXELS) for folder in a.rgbd}
    sets = {"rendered": (rendered, ())} if a.clips else {}
    sets |= {name: (by_gaps(recording, quick or a.views, gaps)[:quick], gaps) for name, recording in recordings.items()}
    networks = {str(w): load_networks(w) for w in a.weights}
    updates = LearnedFlowConfig(a.iters)
    methods: dict[str, Correspondence[Any, Any]] = {
        name: LearnedFlow(each.motion, updates) for name, each in networks.items()
    }
    sweeps: dict[str, Sweep] = {name: learned_depth(each) for name, each in networks.items()}
    if a.classical:
        methods["DIS"] = DisFlow(DisConfig(updates=a.iters))
        sweeps["plane sweep"] = classical_depth
    methods |= {f"{name}, aligned": PhotometricRefinement(flow) for name, flow in methods.items()}
    results: dict[str, Any] = {}
    with torch.inference_mode():
        for data, (clips, frames) in sets.items():
            if "motion" in a.parts:
                results |= motion_tables(data, methods, clips, frames)
            for views in VIEWS if "stereo" in a.parts else ():
                results |= stereo_tables(f"{data}, stereo, {views} views", sweeps, clips, views, bool(frames))
        for data, recording in recordings.items() if "stereo" in a.parts else ():
            chosen, title = by_parallax(recording, quick or a.views)[:quick], f"{data}, stereo, 3 views by parallax"
            results |= stereo_tables(title, sweeps, chosen, len(PARALLAX_PX), True)
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

"""Depth of single pictures by the prior network, against truth and against two guesses that need no network.

    python tools/bench_prior.py --rgbd FOLDER [FOLDER ...] [--clips DIR] [--weights fast FILE ...] [--pictures DIR]

AbsRel with one scale a picture (the median), with one scale a video (the difference is flicker), and in metres. The
guesses are a constant depth and the vertical ramp of log inverse depth that fits the whole video best, which knows the
truth. RGB-D folders are in TUM layout with ground truth; `--part 0.6 1` takes the pictures after 60 % of each. Clips
are those that v2d-train keeps in OUT/validation. `--pictures` draws picture, prior, stereo of three views and truth
side by side, depth in one range of colours.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from bench_networks import by_parallax, learned_depth, on_surfaces
from torch import Tensor

from slam.geometry import se3
from slam.networks.storage import Networks, load_networks
from slam.training.clips import Clip, ClipPool
from slam.training.rgbd import RgbdFolder

PIXELS = 256 * 192
BATCH = 8  # pictures
SLOPES = torch.linspace(-4, 4, 81)  # of the log inverse depth, from the top of a picture to its bottom
COLUMNS = ("picture", "video", "metres")


def pictures_of(recording: RgbdFolder, part: tuple[float, float]) -> Clip:
    """The frames with depth of a part of a recording, stray pixels unknown."""
    usable = recording.has_depth.nonzero()[0]
    n = len(recording.has_depth)
    clip = recording.clip([int(i) for i in usable if part[0] * n <= i < part[1] * n])
    kept = [on_surfaces(d) > 0 for d in clip.inv_depth]
    return Clip(clip.images, clip.inv_depth_q * torch.stack(kept), clip.T_wc, clip.K)


def predicted(networks: Networks, clip: Clip) -> Tensor:
    """(V, H, W) log inverse depth of each picture."""
    found = []
    for images in clip.images.split(BATCH):
        maps = networks.motion.encode(images)
        found.append(networks.prior(maps, clip.K.expand(len(images), 3, 3)).full_size().log())
    return torch.cat(found)


def scores(log_inv_depth: Tensor, truth: Tensor) -> dict[str, float]:
    """AbsRel of log inverse depth (V, H, W) against true inverse depth (V, H, W), 0 unknown."""
    known = truth > 0
    log_ratios = truth.clamp_min(1e-6).log() - log_inv_depth  # log of estimated over true depth
    by_picture = [((r[k] - r[k].median()).exp() - 1).abs().mean() for r, k in zip(log_ratios, known) if k.any()]
    every = log_ratios[known]
    return {
        "picture": float(torch.stack(by_picture).mean()),
        "video": float(((every - every.median()).exp() - 1).abs().mean()),
        "metres": float((every.exp() - 1).abs().mean()),
    }


def best_ramp(truth: Tensor) -> Tensor:
    """(V, H, W) log inverse depth that grows evenly downwards, by the slope that fits best with one scale a picture."""
    down = torch.linspace(-0.5, 0.5, truth.shape[1])[:, None].expand(truth.shape[1:])
    few = truth[:: max(1, len(truth) // 40)]
    errors = [scores((slope * down).expand(few.shape), few)["picture"] for slope in SLOPES]
    return (SLOPES[int(np.argmin(errors))] * down).expand(truth.shape)


def table(clip: Clip, networks: dict[str, Networks]) -> dict[str, dict[str, float]]:
    """Scores of the networks and the guesses."""
    truth = clip.inv_depth
    rows = {name: scores(predicted(each, clip), truth) for name, each in networks.items()}
    rows["constant"] = scores(torch.zeros_like(truth), truth)
    rows["best ramp"] = scores(best_ramp(truth), truth)
    return rows


def mean_table(clips: list[Clip], networks: dict[str, Networks]) -> dict[str, dict[str, float]]:
    """The same over many clips, each its own video."""
    tables = [table(clip, networks) for clip in clips]
    return {row: {c: float(np.mean([t[row][c] for t in tables])) for c in COLUMNS} for row in tables[0]}


def drawn(networks: Networks, clip: Clip) -> np.ndarray:
    """Picture, prior, stereo and truth of the first view of a clip side by side, BGR."""
    truth = clip.inv_depth[0]
    known = truth > 0
    prior = predicted(networks, Clip(clip.images[:1], clip.inv_depth_q[:1], clip.T_wc[:1], clip.K))[0].exp()
    prior = prior * (truth[known] / prior[known]).median()
    low, high = 0.4 * truth[known].quantile(0.01).item(), 1.6 * truth[known].quantile(0.99).item()
    T_jk = se3.inverse(clip.T_wc[1:]) @ clip.T_wc[0]
    stereo, _ = learned_depth(networks)(clip.images, T_jk, clip.K, low, high)
    ends = (float(truth[known].quantile(0.02)), float(truth[known].quantile(0.98)))
    maps = [coloured_inv_depth(d, ends) for d in (prior, stereo, truth)]
    return np.hstack([clip.images[0].permute(1, 2, 0).numpy()[..., ::-1], *maps])


def coloured_inv_depth(inv_depth: Tensor, ends: tuple[float, float]) -> np.ndarray:
    """(H, W, 3) BGR, near is warm, unknown black."""
    share = ((inv_depth - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
    image = cv2.applyColorMap((255 * share).byte().numpy(), cv2.COLORMAP_TURBO)
    image[(inv_depth <= 0).numpy()] = 0
    return image


def main() -> None:
    """Print one table for each data set; draw pictures."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", nargs="*", default=["fast"], help="profiles or files")
    p.add_argument("--clips", type=Path, help="folder of clips")
    p.add_argument("--rgbd", type=Path, nargs="*", default=[], help="folders in TUM layout with depth and truth")
    p.add_argument("--part", type=float, nargs=2, default=(0.0, 1.0), help="of each folder, from 0 to 1")
    p.add_argument("--pictures", type=Path, help="folder for pictures")
    p.add_argument("--count", type=int, default=4, help="pictures of each folder")
    p.add_argument("--json", type=Path, help="keep the numbers")
    a = p.parse_args()
    networks = {str(w): load_networks(w) for w in a.weights}
    recordings = {folder.name: RgbdFolder.read(folder, PIXELS) for folder in a.rgbd}
    results = {}
    with torch.inference_mode():
        if a.clips:
            results["rendered"] = mean_table(ClipPool(10**6, a.clips).clips, networks)
        for name, recording in recordings.items():
            results[name] = table(pictures_of(recording, a.part), networks)
        for name, rows in results.items():
            print(f"\n{name}: AbsRel")
            for row, values in rows.items():
                print(f"  {row:<40} " + "  ".join(f"{c} {values[c]:.3f}" for c in COLUMNS))
        if a.pictures:
            a.pictures.mkdir(parents=True, exist_ok=True)
            for name, recording in recordings.items():
                rows_of_images = [drawn(networks[str(a.weights[0])], c) for c in by_parallax(recording, a.count)]
                if rows_of_images:
                    cv2.imwrite(str(a.pictures / f"prior_{name}.png"), np.vstack(rows_of_images))
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

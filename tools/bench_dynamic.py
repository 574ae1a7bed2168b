"""What movers do to whole runs: to the trajectory, to the map and to its loops.

    python tools/render_sequence.py office loop runs/office --frames 300 --seed 5
    python tools/render_sequence.py office loop runs/office-rigid --frames 300 --seed 5 --movers rigid --mover-share 0.2
    python tools/bench_dynamic.py runs/office runs/office-rigid

The first folder is the same walk without movers, the yardstick; one run of each on one thread. Columns: share of the
pixels of keyframes that show movers; ATE, Sim(3)-aligned, and how many times that of the yardstick; frames with a pose;
of the points of `map.ply` those on movers (most of what their voxel averages shows one); of the keyframes' pixels that
show none those that are in the map; loops, and how many of them are false, as `bench_loops.py` has it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from bench_loops import MAX_SHIFT, MAX_TURN_DEG, loop_errors

from slam.evaluation.depth import stamped_images
from slam.experiment import Experiment, run_and_score
from slam.frames import Image, Keyframe
from slam.io.images import read_mask
from slam.mapping.fusion import agreed_views, fused_cloud
from slam.processes import in_new_process


@dataclass(frozen=True)
class DynamicScores:
    """What a run made of a recording with movers."""

    covered: float  # by movers, share of the keyframes' pixels
    ate: float  # metres
    coverage: float
    on_movers: float  # share of the points of the map
    mapped: float  # share of the pixels that stand still
    keyframes: int
    loops: int
    false_loops: int
    cpu_ms: float  # a frame


def mover_mask(keyframe: Keyframe, files: dict[int, Path]) -> np.ndarray:
    """(h, w) bool: what moves in a keyframe's image, of masks by time, ns."""
    h, w = keyframe.view.image.size
    file = files.get(keyframe.view.time_ns)
    mask = np.zeros((h, w), np.uint8) if file is None else read_mask(file).astype(np.uint8)
    return cv2.resize(mask, (w, h), interpolation=cv2.INTER_NEAREST) > 0


def coloured_by(keyframe: Keyframe, mask: np.ndarray) -> Keyframe:
    """The keyframe with a mask (h, w) for its image: white where it is true."""
    rgb = np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, -1)
    return replace(keyframe, view=replace(keyframe.view, image=Image(rgb, keyframe.view.image.mask)))


def dynamic_scores(folder: Path, settings: Sequence[str] = ()) -> DynamicScores:
    """Of one run."""
    result: Experiment = run_and_score(folder, settings)
    files = stamped_images(folder / "movers") if (folder / "movers").is_dir() else {}
    keyframes = [k.on_host() for k in result.slam.store.everything()]
    masks = [mover_mask(k, files) for k in keyframes]
    config = result.slam.config.fusion
    cloud = fused_cloud([coloured_by(k, mask) for k, mask in zip(keyframes, masks)], config)
    entered = [view.depth > 0 for view in agreed_views(keyframes, config)]
    turns, shifts = loop_errors(result)
    scores = DynamicScores(
        covered=float(np.mean(masks)),
        ate=result.report.ate["sim3"].rmse,
        coverage=result.report.ate["sim3"].coverage,
        on_movers=float((cloud.colors[:, 0] > 127).mean()) if cloud.colors is not None and len(cloud) else 0.0,
        mapped=float(np.stack(entered)[~np.stack(masks)].mean()),
        keyframes=len(keyframes),
        loops=len(turns),
        false_loops=int(((turns > MAX_TURN_DEG) | (shifts > MAX_SHIFT)).sum()),
        cpu_ms=1e3 * result.cpu_s / result.slam.counts.seen,
    )
    result.slam.store.close()
    return scores


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of recordings; the first is the yardstick")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    options = parser.parse_args()
    print("| sequence | movers | ATE m | times | poses | on movers | mapped | keyframes | loops | false | CPU ms |")
    print("| --- " * 11 + "|")
    yardstick: float | None = None
    for folder in options.folders:
        s = in_new_process(dynamic_scores, folder, options.set)
        yardstick = yardstick or s.ate
        print(
            f"| {folder.name} | {s.covered:.0%} | {s.ate:.4f} | {s.ate / yardstick:.2f} | {s.coverage:.0%} "
            f"| {s.on_movers:.2%} | {s.mapped:.0%} | {s.keyframes} | {s.loops} | {s.false_loops} | {s.cpu_ms:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

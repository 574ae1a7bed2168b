"""Are the loops that a run closes true? Each against the ground truth.

    python tools/bench_loops.py runs/hall DATA/desk_gentle

One deterministic run of each folder. A loop is false if the motion between its two keyframes is wrong by over 3
degrees,
or by over a tenth of the median depth seen there, after fitting the map's unit of length to the truth.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from slam.build import build
from slam.config import SlamConfig, load_config
from slam.evaluation.trajectory import ate
from slam.geometry import se3, sim3
from slam.recognition.relative_pose import median_inv_depth
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import known_truth

MAX_TURN_DEG, MAX_SHIFT = 3.0, 0.1


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| sequence | keyframes | loops | false | turn wrong by, median / worst | shift, of the depth | ATE m |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for folder in options.folders:
        truth = known_truth(folder)
        if truth is None:
            raise SystemExit(f"{folder} has no ground truth")
        source = open_source(SourceSpec(path=str(folder)))
        slam = build(load_config(SlamConfig, None, options.set), source.camera, threads=False)
        slam.run(source)
        score = ate(slam.store.trajectory(), truth, "sim3")
        errors = []
        for loop in slam.parts.backend.loops:
            old, new = slam.store[loop.old_id], slam.store[loop.new_id]
            T_wo, T_wn = (
                torch.from_numpy(truth.T_wc[np.abs(truth.time_ns - k.view.time_ns).argmin()]) for k in (old, new)
            )
            S_on = loop.present(old, new)
            T_on = S_on.clone()
            T_on[:3, :3] /= sim3.scale(S_on)
            true = se3.inverse(T_wo) @ T_wn
            turn = float(torch.rad2deg(se3.angle_rad(se3.inverse(true) @ T_on)))
            shift = float((T_on[:3, 3] - true[:3, 3] / score.scale).norm()) * median_inv_depth(old)
            errors.append((turn, shift))
        turns, shifts = np.array(errors).reshape(-1, 2).T
        false = int(((turns > MAX_TURN_DEG) | (shifts > MAX_SHIFT)).sum())
        words = [f"{np.median(e):.2f} / {e.max():.2f}" if len(e) else "" for e in (turns, shifts)]
        print(
            f"| {folder.name} | {len(slam.store.everything())} | {len(errors)} | {false} | {words[0]} | {words[1]} "
            f"| {score.rmse:.4f} |",
            flush=True,
        )
        slam.store.close()


if __name__ == "__main__":
    main()

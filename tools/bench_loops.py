"""Are the loops that a run closes true? Each against the ground truth.

    python tools/bench_loops.py runs/hall DATA/desk_gentle

One run of each folder on one thread. A loop is false if the motion between its two keyframes is wrong by over 3
degrees, or by over a tenth of the median depth seen there, after fitting the map's unit of length to the truth.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from slam.experiment import Experiment, run_and_score
from slam.geometry import se3, sim3
from slam.recognition.relative_pose import median_inv_depth

MAX_TURN_DEG, MAX_SHIFT = 3.0, 0.1


def loop_errors(result: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Of each loop, how far its turn (degrees) and its shift (part of the depth seen there) are off."""
    store, truth = result.slam.store, result.truth
    errors = []
    for loop in result.slam.parts.backend.loops:
        old, new = store[loop.old_id], store[loop.new_id]
        T_wo, T_wn = (torch.from_numpy(truth.T_wc[np.abs(truth.time_ns - k.view.time_ns).argmin()]) for k in (old, new))
        S_on = loop.present(old, new)
        T_on = S_on.clone()
        T_on[:3, :3] /= sim3.scale(S_on)
        true = se3.inverse(T_wo) @ T_wn
        turn = float(torch.rad2deg(se3.angle_rad(se3.inverse(true) @ T_on)))
        shift = float((T_on[:3, 3] - true[:3, 3] / result.report.ate["sim3"].scale).norm()) * median_inv_depth(old)
        errors.append((turn, shift))
    turns, shifts = np.array(errors).reshape(-1, 2).T
    return turns, shifts


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    options = parser.parse_args()
    print("| sequence | keyframes | loops | false | turn wrong by, median / worst | shift, of the depth | ATE m |")
    print("| --- " * 7 + "|")
    for folder in options.folders:
        result = run_and_score(folder, options.set)
        turns, shifts = loop_errors(result)
        keyframes = len(result.slam.store.everything())
        false = int(((turns > MAX_TURN_DEG) | (shifts > MAX_SHIFT)).sum())
        words = [f"{np.median(e):.2f} / {e.max():.2f}" if len(e) else "" for e in (turns, shifts)]
        print(
            f"| {folder.name} | {keyframes} | {len(turns)} | {false} | {words[0]} | {words[1]} "
            f"| {result.report.ate['sim3'].rmse:.4f} |",
            flush=True,
        )
        result.slam.store.close()


if __name__ == "__main__":
    main()

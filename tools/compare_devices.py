"""The same frames through the loops of the CPU, through tensors on the CPU, and on a GPU where there is one.

    python tools/compare_devices.py DATA/desk_gentle --frames 150
    python tools/compare_devices.py DATA/desk_gentle --device cuda --set precision=auto

Runs are on one thread. `nudged` is by loops again, with robust thresholds that differ in the sixth digit: so far apart
are runs that only round differently. Apart: largest distance between the camera's positions and between its directions,
of a run and of the first, in metres by the first one's Sim(3) alignment to the ground truth. ms: wall time for each
frame, with that of the backend; the first frames, which compile the loops or load the GPU's kernels, are in it.
"""

import argparse
import os
import sys
from contextlib import nullcontext

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

import numpy as np
import torch

from apps.common import guarded
from slam.experiment import Experiment, run_and_score
from slam.frames import Trajectory
from slam.kernels.compile import tensors_only
from slam.sources import SourceSpec, open_source

LOOPS, NUDGED, TENSORS = "loops", "nudged", "tensors"
NUDGE = ("matcher.huber_px=1.00001", "backend.huber_px=0.500001")


def main() -> int:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", help="folder in TUM layout, with ground truth")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--device", help="besides the CPU (default: cuda, if torch sees a GPU)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="setting (precision=float32)")
    options = parser.parse_args()
    device = options.device or ("cuda" if torch.cuda.is_available() else None)
    return guarded("compare_devices", lambda: compare(options, [LOOPS, NUDGED, TENSORS, *filter(None, [device])]))


def compare(options: argparse.Namespace, ways: list[str]) -> int:
    """Run all ways, and print how far each is from the first."""
    first: Experiment | None = None
    for way in ways:
        done = run(options, way)
        first = first or done
        ate, trajectory = done.report.ate["sim3"], done.slam.store.trajectory()
        scale = first.report.ate["sim3"].scale
        shift, angle_deg = apart(first.slam.store.trajectory(), trajectory)
        print(
            f"{way:8s} {done.slam.record.device}: {len(trajectory)} poses, {len(done.slam.store)} keyframes, apart "
            f"{1e3 * scale * shift:.3f} mm {angle_deg:.4f} deg, ATE {1e3 * ate.rmse:.2f} mm, "
            f"{1e3 * done.seconds / done.slam.counts.seen:.1f} ms a frame",
            flush=True,
        )
    return 0


def run(options: argparse.Namespace, way: str) -> Experiment:
    """The first frames of the recording, one way."""
    device = "cpu" if way in (LOOPS, NUDGED, TENSORS) else way
    settings = ["precision=float32", *(NUDGE if way == NUDGED else ()), *options.set, f"device={device}"]
    source = open_source(SourceSpec(options.recording, max_frames=options.frames))
    with tensors_only() if way == TENSORS else nullcontext():
        return run_and_score(options.recording, settings, source=source)


def apart(a: Trajectory, b: Trajectory) -> tuple[float, float]:
    """Largest distance, units of the map, and angle between the poses that two trajectories have of the same frames."""
    _, i, j = np.intersect1d(a.time_ns, b.time_ns, return_indices=True)
    shift = np.linalg.norm(a.T_wc[i, :3, 3] - b.T_wc[j, :3, 3], axis=-1)
    cosine = (np.einsum("nij,nij->n", a.T_wc[i, :3, :3], b.T_wc[j, :3, :3]) - 1) / 2
    return float(shift.max()), float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)).max()))


if __name__ == "__main__":
    sys.exit(main())

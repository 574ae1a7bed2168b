"""How well the map finds the lens: recordings with a calibration and ground truth, run as if it were unknown.

    python tools/bench_self_calibration.py DATA/desk_gentle DATA/redwood_living
    python tools/bench_self_calibration.py runs/office --factors 0.75 --mode focal --frames 200

Each recording is run with its calibration, then with focal lengths that are too short or too long by a factor, and no
distortion, marked as a guess. Focal: found over true; +- by its own account. Recordings: tools/render_sequence.py makes
some, with --k1 through a lens that is not a pinhole.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

from apps.common import guarded
from slam.experiment import Experiment, run_and_score
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.sources import Source, SourceSpec, open_source


class Believed:
    """A source whose camera is taken for another."""

    live = False

    def __init__(self, source: Source, camera: Camera) -> None:
        self.source, self.camera, self.count, self.skipped = source, camera, source.count, 0

    def __iter__(self) -> Iterator[Frame]:
        return (replace(frame, camera=self.camera) for frame in self.source)

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()


def main() -> int:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path, help="folders with calibration and ground truth")
    parser.add_argument("--factors", nargs="+", type=float, default=[0.75, 1.25], help="of the focal length")
    parser.add_argument("--mode", choices=("focal", "radial"), default="radial")
    parser.add_argument("--frames", type=int, help="of each recording")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="setting of all runs")
    options = parser.parse_args()
    return guarded("bench_self_calibration", lambda: bench(options))


def bench(options: argparse.Namespace) -> int:
    """Run all."""
    print(f"{'recording':18s} {'start':>6s} {'focal':>7s} {'+-':>6s} {'k1':>7s} {'+-':>6s} {'ATE m':>8s} {'ratio':>6s}")
    for folder in options.recordings:
        true = open_source(SourceSpec(str(folder))).camera
        known = run(options, folder, true, "off")
        ate = known.report.ate["sim3"].rmse
        k1 = true.distortion[0] if true.distortion else 0.0
        print(f"{folder.name:18s} {'known':>6s} {1:7.4f} {'':6s} {k1:7.3f} {'':6s} {ate:8.4f}", flush=True)
        for factor in options.factors:
            guess = replace(true, fx=factor * true.fx, fy=factor * true.fy, distortion=(), is_guess=True)
            done = run(options, folder, guess, options.mode)
            print(f"{folder.name:18s} {factor:6.2f} {found(done, true)} {ratio(done, ate)}", flush=True)
    return 0


def run(options: argparse.Namespace, folder: Path, camera: Camera, mode: str) -> Experiment:
    """A recording with a camera that is believed."""
    source = open_source(SourceSpec(str(folder), max_frames=options.frames))
    settings = [f"self_calibrate={mode}", *options.set]
    return run_and_score(folder, settings, source=Believed(source, camera))


def found(done: Experiment, true: Camera) -> str:
    """What the map said of the lens."""
    calibration = done.slam.parts.backend.calibration
    if calibration is None or calibration.estimate is None:
        return f"{'cannot tell':>29s}"
    estimate = calibration.estimate
    focal = f"{estimate.focal / true.fx:7.4f} {estimate.focal_deviation:6.4f}"
    return f"{focal} {'':14s}" if estimate.k1 is None else f"{focal} {estimate.k1:7.3f} {estimate.k1_deviation:6.3f}"


def ratio(done: Experiment, ate: float) -> str:
    """The error, and its ratio to that with the calibration."""
    rmse = done.report.ate["sim3"].rmse
    return f"{rmse:8.4f} {rmse / ate:6.2f}"


if __name__ == "__main__":
    sys.exit(main())

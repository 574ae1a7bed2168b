"""What shocks a tracker, done to recordings with ground truth: how many frames keep a pose, and how good the path is.

    python tools/bench_shocks.py FOLDER... --shocks none stride10 dropped covered exposure

`strideN` takes every N-th frame; `dropped` cuts bursts of 5 to 15 frames; `covered` holds a hand over the lens for 10
frames; `exposure` jumps by up to 1.3 stops either way. The last three come at random places, about one in 50 frames,
the same ones in every run, and time stamps stay. For blurred, shaken, or rolling pictures give folders that
`render_sequence.py` made with --exposure, --shake, --readout. Columns: frames with a pose when they were new, and at
the end; ATE (Sim(3)-aligned) of the latter, its largest error, and in brackets the share of the path. Runs are on one
thread, so they repeat.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from apps.common import guarded
from slam.errors import SlamError, UsageError
from slam.experiment import run_and_score
from slam.frames import Frame
from slam.processes import in_new_process
from slam.sources import Source, SourceSpec, open_source

SHOCKS = ("none", "dropped", "covered", "exposure")
APART = (35, 65)  # frames from one shock to the next
BURST, COVERED = (5, 15), 10  # frames
STOPS = 1.3  # of exposure, at most, either way
SKIN, SKIN_NOISE = (96, 58, 44), 4.0  # RGB of a hand against the lens, and the deviation of a pixel


class Shocked:
    """A recording with one kind of shock."""

    live = False

    def __init__(self, source: Source, shock: str, seed: int) -> None:
        self.camera, self.skipped = source.camera, 0
        self.count: int | None = None
        self._source, self._shock, self._seed = source, shock, seed

    def __iter__(self) -> Iterator[Frame]:
        rng = np.random.default_rng(self._seed)
        at, length, gain, delivered = int(rng.integers(*APART)), 0, 1.0, 0
        for n, frame in enumerate(self._source):
            if n == at:  # a shock begins
                length = int(rng.integers(BURST[0], BURST[1] + 1)) if self._shock == "dropped" else COVERED
                gain = float(2 ** rng.uniform(-STOPS, STOPS))
            is_shock = at <= n < at + length
            if is_shock and n + 1 == at + length:
                at, length = n + int(rng.integers(*APART)), 0
            if is_shock and self._shock == "dropped":
                continue
            image = frame.image
            if is_shock and self._shock == "covered":
                image = covered(image.shape[:2], rng)
            elif self._shock == "exposure":
                image = exposed(image, gain)
            yield replace(frame, id=delivered, image=image)
            delivered += 1

    def close(self) -> None:
        """Close the recording."""
        self._source.close()


def covered(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A hand before the lens: (h, w, 3) uint8, without edges."""
    glow = cv2.resize(rng.uniform(0.7, 1.3, (3, 3, 1)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    image = glow[..., None] * np.array(SKIN, np.float32) + rng.normal(0, SKIN_NOISE, (*size, 1))
    return image.clip(0, 255).astype(np.uint8)


def exposed(image: np.ndarray, gain: float) -> np.ndarray:
    """An image with `gain` times the light, as a sensor with a gamma of 2.2 gives it: bright parts are cut off."""
    curve = 255 * (gain * (np.arange(256) / 255) ** 2.2) ** (1 / 2.2)
    return curve.clip(0, 255).round().astype(np.uint8)[image]


def shocked(folder: Path, shock: str, seed: int) -> Source:
    """A recording with a shock.

    Raises:
        UsageError: if there is no such shock.
    """
    stride = re.fullmatch(r"stride([1-9]\d*)", shock)
    if stride is None and shock not in SHOCKS:
        raise UsageError(f"no shock {shock!r}; there are strideN, {', '.join(SHOCKS)}")
    source = open_source(SourceSpec(path=str(folder), stride=int(stride[1]) if stride else 1))
    return source if stride or shock == "none" else Shocked(source, shock, seed)


def row(folder: Path, shock: str, seed: int, settings: list[str]) -> str:
    """One line of the table."""
    words = f"| {folder.name} | {shock} "
    try:
        result = run_and_score(folder, settings, source=shocked(folder, shock, seed))
    except SlamError as error:
        return f"{words}| {error} |"
    counts, ate = result.slam.counts, result.report.ate["sim3"]
    result.slam.store.close()
    return (
        f"{words}| {counts.seen} | {100 * counts.tracked / counts.seen:.1f} % | {100 * ate.coverage:.1f} % "
        f"| {ate.rmse:.4f} | {ate.max:.3f} | {result.report.drift_percent:.2f} % "
        f"| {1e3 * result.cpu_s / counts.seen:.0f} |"
    )


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    print("| recording | shock | frames | a pose at once | at the end | ATE m | worst m | of the path | CPU ms |")
    print("| --- " * 9 + "|")
    for folder in options.folders:
        for shock in options.shocks:
            print(in_new_process(row, folder, shock, options.seed, options.set), flush=True)
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--shocks", nargs="+", default=list(SHOCKS), metavar="SHOCK")
    parser.add_argument("--seed", type=int, default=0, help="of the places (default %(default)d)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    return guarded("bench_shocks", lambda: run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

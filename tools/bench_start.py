"""How soon a map begins, and what becomes of a camera that turns first: with the prior and without.

    python tools/render_sequence.py office turn runs/turn --frames 360
    python tools/bench_start.py runs/turn DATA/desk_gentle [--whole]

Frames until the first map, for each recording. With `--whole` the recordings are run to their ends: part of the frames
with a pose, largest rotation off the truth after aligning the first frame (degrees), ATE after Sim(3) alignment
(metres), and the unit of length in the last third of the way over that in the third before (1: it stayed).
"""

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.errors import EvaluationError
from slam.experiment import run_and_score
from slam.frames import Progress, Trajectory
from slam.processes import in_new_process
from slam.sources import SourceSpec, open_source
from slam.threads import limit_threads

VARIANTS = {"with": [], "without": ["prior.enabled=false"]}
LEAST_PATH = 1e-3  # of the whole, that a third of the way must have for a unit


@dataclass(frozen=True)
class Found:
    """What one run showed."""

    first_map: int | None  # frames; None: there was none
    coverage: float | None = None
    rotation_deg: float | None = None
    ate: float | None = None
    unit: float | None = None


def frames_until_map(folder: Path, settings: list[str]) -> Found:
    """Feed a recording until there is a map."""
    limit_threads()
    source = open_source(SourceSpec(str(folder)))
    slam = build_slam(load_config(SlamConfig, None, settings), source.camera, threads=False)
    for frame in source:
        slam.step(frame)
        if len(slam.store):
            return Found(slam.counts.seen)
    return Found(None)


def whole_run(folder: Path, settings: list[str]) -> Found:
    """Run a recording to its end."""
    first: list[int] = []

    def watch(progress: Progress) -> None:
        if not first and progress.snapshot.keyframes:
            first.append(progress.counts.seen)

    try:
        result = run_and_score(folder, settings, publish=watch)
    except EvaluationError:
        return Found(first[0] if first else None, 0.0)
    truth, found = result.truth, result.slam.store.trajectory()
    at = np.abs(truth.time_ns[None] - found.time_ns[:, None]).argmin(1)
    ate = result.report.ate["sim3"]
    rotation = rotation_errors_deg(found.T_wc, truth.T_wc[at])
    return Found(first[0], ate.coverage, float(rotation.max()), ate.rmse, unit_change(found, truth.T_wc[at]))


def rotation_errors_deg(T_wc: np.ndarray, true_T_wc: np.ndarray) -> np.ndarray:
    """(N,) angles between poses (N, 4, 4) and true ones, both from their first."""
    relative, truth = (T[0, :3, :3].T @ T[:, :3, :3] for T in (T_wc, true_T_wc))
    cosine = (np.trace(relative.transpose(0, 2, 1) @ truth, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def unit_change(found: Trajectory, true_T_wc: np.ndarray) -> float | None:
    """The unit in the last third of the true way over that in the third before; None where the camera hardly moves."""
    way = np.concatenate([[0], np.linalg.norm(np.diff(true_T_wc[:, :3, 3], axis=0), axis=1).cumsum()])
    ends = [int(np.searchsorted(way, share * way[-1])) for share in (1 / 3, 2 / 3, 1 - 1e-9)]
    p, p_true = found.T_wc[:, :3, 3], true_T_wc[:, :3, 3]
    units = []
    for a, b in itertools.pairwise(ends):
        length = float(np.linalg.norm(p_true[min(b, len(p) - 1)] - p_true[a]))
        if length < LEAST_PATH * max(way[-1], 1e-9):
            return None
        units.append(float(np.linalg.norm(p[min(b, len(p) - 1)] - p[a])) / length)
    return units[1] / units[0]


def words(found: Found) -> str:
    """A line."""
    parts = ["no map" if found.first_map is None else f"first map after {found.first_map} frames"]
    if found.coverage is not None:
        parts.append(f"{100 * found.coverage:.1f} % of the frames")
    if found.rotation_deg is not None:
        parts.append(f"rotation {found.rotation_deg:.2f} deg, ATE {found.ate:.4f} m")
    if found.unit is not None:
        parts.append(f"unit x {found.unit:.3f}")
    return ", ".join(parts)


def main() -> None:
    """Print a line for each recording and variant."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folders", type=Path, nargs="+")
    p.add_argument("--whole", action="store_true", help="run the recordings to their ends")
    p.add_argument("--set", action="append", default=[], metavar="A.B=V", help="for all of them")
    options = p.parse_args()
    for folder in options.folders:
        for name, settings in VARIANTS.items():
            run = whole_run if options.whole else frames_until_map
            found = in_new_process(run, folder, [*options.set, *settings])
            print(f"{folder.name:<20} {name:<8} {words(found)}", flush=True)


if __name__ == "__main__":
    main()

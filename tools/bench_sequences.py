"""Accuracy, coverage, depth and speed of whole runs on recordings with ground truth, as a table.

    python tools/bench_sequences.py DATA/desk_gentle DATA/tag_corner --runs 3 --set correspondence.tracking=dis

Each run is a process of its own, threaded, and one more is on one thread, so that it repeats. Columns: median (worst)
of the threaded runs, then that one. ATE is Sim(3)-aligned; AbsRel is of confident pixels, median-scaled; CPU is the
processor's time on all threads, for each frame.
"""

import argparse
import os
import resource
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

from slam.experiment import Scores, scores
from slam.processes import in_new_process


def one_run(folder: Path, settings: list[str], config_file: Path | None, threads: bool) -> tuple[Scores, float]:
    """Scores, and the most memory that the process held, MB."""
    result = scores(folder, settings, config_file, threads)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(folder: Path, settings: list[str], config_file: Path | None, runs: int) -> str:
    """The numbers of one recording."""
    measured = [in_new_process(one_run, folder, settings, config_file, threads=True) for _ in range(runs)]
    alone, _ = in_new_process(one_run, folder, settings, config_file, threads=False)
    threaded = [result for result, _ in measured]
    ate = [s.ate for s in threaded]
    abs_rel = [s.abs_rel for s in threaded if s.abs_rel is not None]
    confident = [s.confident for s in threaded if s.confident is not None]
    return (
        f"| {folder.name} | {median(ate):.4f} ({max(ate):.4f}) | {alone.ate:.4f} "
        f"| {100 * min(s.coverage for s in [*threaded, alone]):.1f} % "
        f"| {f'{median(abs_rel):.3f}' if abs_rel else ''} | {f'{median(confident):.3f}' if confident else ''} "
        f"| {median(s.fps for s in threaded):.1f} | {median(s.cpu_ms for s in threaded):.0f} "
        f"| {max(mb for _, mb in measured):.0f} |"
    )


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=3, help="threaded runs of each")
    parser.add_argument("--config", type=Path, help="YAML of settings")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    options = parser.parse_args()
    print(f"settings: {' '.join([str(options.config or ''), *options.set]).strip() or 'default'}")
    print("| recording | ATE m, threaded | repeated | coverage | AbsRel | confident | frames/s | CPU ms | memory MB |")
    print("| --- " * 9 + "|")
    for folder in options.folders:
        print(row(folder, options.set, options.config, options.runs), flush=True)


if __name__ == "__main__":
    main()

"""v2d-eval: the errors of a run against ground truth, as a table, JSON and a plot."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from apps.common import add_verbosity, guarded, set_up_logging
from slam.errors import EvaluationError, OutputError, SourceError, UsageError
from slam.evaluation.depth import DepthResult, compare_depth, mean_depth, resized_nearest
from slam.evaluation.plots import plot_trajectory
from slam.evaluation.report import table, trajectory_report
from slam.io.files import read_text
from slam.io.images import DEPTH_SCALE, read_confidence, read_depth
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import parse_time_ns, read_tum
from slam.sources.groundtruth import read_groundtruth

T = TypeVar("T")

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="v2d-eval", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory, or a trajectory file in TUM format")
    parser.add_argument("--groundtruth", type=Path, required=True, help="TUM trajectory, or the folder of a sequence")
    parser.add_argument("--depth", type=Path, help="TUM depth/ folder: also compare the keyframes' depth")
    parser.add_argument("--online", action="store_true", help="poses as first estimated, not the final ones")
    parser.add_argument("--max-difference", type=float, default=0.02, help="of matched stamps, s (default %(default)s)")
    parser.add_argument("--min-confidence", type=float, default=0.5, help="of compared depths (default %(default)s)")
    parser.add_argument("--out", type=Path, help="where metrics.json and the plot go (default: the run directory)")
    parser.add_argument("--no-plots", action="store_true", help="write no image")
    add_verbosity(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    options = build_parser().parse_args(argv)
    set_up_logging(options)
    return guarded("v2d-eval", lambda: evaluate(options))


def evaluate(options: argparse.Namespace) -> int:
    """Read, score, print, write; returns the exit code."""
    if not 0 <= options.max_difference <= 3600 or not 0 <= options.min_confidence <= 1:
        raise UsageError(
            "--max-difference must be in 0..3600 s and --min-confidence in 0..1, "
            f"got {options.max_difference:g} and {options.min_confidence:g}"
        )
    run_folder = options.run if options.run.is_dir() else None
    name = "trajectory_online.txt" if options.online else "trajectory.txt"
    estimate = read_tum(run_folder / name if run_folder else options.run, torn_end=options.online)
    max_difference_ns = round(options.max_difference * 1e9)
    truth = read_groundtruth(options.groundtruth)
    report = trajectory_report(estimate, truth, max_difference_ns, frames_seen(run_folder))
    depths = None
    if options.depth is not None:
        depths = keyframe_depths(run_folder or options.run.parent, options.depth, max_difference_ns, options)
    if not options.quiet:
        print(f"{'online' if options.online else 'final'} trajectory of {options.run} against {options.groundtruth}")
        print(table(report, depths))
    out_folder: Path | None = options.out or run_folder
    if out_folder is None:
        return 0
    out = RunDirectory(out_folder)
    numbers = {"online": options.online, "groundtruth": str(options.groundtruth), **report.numbers()}
    if depths is not None:
        numbers["depth"] = {"keyframes": len(depths), **mean_depth(depths).numbers()}
    metrics = read_json(out.path / "metrics.json", dict) if (out.path / "metrics.json").is_file() else {}
    section = "evaluation_online" if options.online else "evaluation"  # beside what the run itself wrote
    out.write_json("metrics.json", {**metrics, section: numbers})
    if not options.no_plots:
        out.write(f"{section}.png", lambda path: plot_trajectory(report.ate["sim3"], path, options.run.name))
    if out.missing:
        raise OutputError(f"results in {out.path} are incomplete: {out.missing_words()}")
    return 0


def frames_seen(run_folder: Path | None) -> int | None:
    """Images the run was given, where its run.json says so."""
    if run_folder is None or not (run_folder / "run.json").is_file():
        return None
    count = read_json(run_folder / "run.json", dict).get("frames_seen")
    return count if isinstance(count, int) else None


def read_json(path: Path, kind: type[T]) -> T:
    """The values of a JSON file that holds a `kind` (dict, list); raises SourceError."""
    try:
        values = json.loads(read_text(path, "JSON file"))
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, kind):
        raise SourceError(f"{path} must hold a {kind.__name__}, it holds a {type(values).__name__}")
    return values


def keyframe_depths(
    run_folder: Path, truth_folder: Path, max_difference_ns: int, options: argparse.Namespace
) -> list[DepthResult]:
    """Compare every keyframe that has a truth image near in time; a keyframe without common pixels is named."""
    truth_paths = stamped_images(truth_folder)
    stamps = np.array(sorted(truth_paths))
    folder, results = run_folder / "keyframes", []
    for number, keyframe in enumerate(read_json(folder / "keyframes.json", list)):
        try:
            stem, time_ns = f"{int(keyframe['id']):06d}", int(keyframe["time_ns"])
            depth_scale = float(keyframe["depth_scale"])
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{folder / 'keyframes.json'}, entry {number}: no usable {error}") from error
        nearest = int(stamps[np.abs(stamps - time_ns).argmin()])
        if abs(nearest - time_ns) > max_difference_ns:
            continue
        depth = read_depth(folder / f"{stem}_depth.png", depth_scale)
        confidence = read_confidence(folder / f"{stem}_confidence.png")
        truth = resized_nearest(read_depth(truth_paths[nearest], DEPTH_SCALE), *depth.shape)
        try:
            results.append(compare_depth(depth, truth, confidence, options.min_confidence))
        except EvaluationError as error:
            log.warning("keyframe %s is left out: %s", stem, error)
    if not results:
        raise EvaluationError(f"no keyframe of {folder} has ground truth within {options.max_difference:g} s")
    return results


def stamped_images(folder: Path) -> dict[int, Path]:
    """The PNGs of a folder by time, ns; their names are stamps in seconds."""
    try:
        images = {parse_time_ns(path.stem): path for path in folder.glob("*.png")}
    except ValueError as error:
        raise SourceError(f"the images of {folder} are not named by their time: {error}") from error
    if not images:
        raise SourceError(f"no depth images (*.png) in {folder}")
    return images


if __name__ == "__main__":
    sys.exit(main())

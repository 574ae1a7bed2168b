"""v2d-eval: the errors of a run against ground truth, as a table, JSON and a plot."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.common import add_verbosity, parsed, program
from slam.errors import OutputError, UsageError

if TYPE_CHECKING:
    from slam.frames import Trajectory

log = logging.getLogger(__name__)

MAX_OFFSET_NS = 4 * 10**18  # with a stamp of today still within 64 bits


def build_parser() -> argparse.ArgumentParser:
    from slam.io.images import DEPTH_SCALE

    parser = argparse.ArgumentParser(prog="v2d-eval", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory, or a trajectory file in TUM format")
    parser.add_argument(
        "--groundtruth",
        type=Path,
        required=True,
        help="poses as a data set has them (TUM, KITTI, EuRoC, transforms.json, ...), a recording's folder, a ROS bag",
    )
    parser.add_argument("--topic", metavar="NAME", help="poses of a ROS bag given as --groundtruth; if it has several")
    parser.add_argument("--depth", type=Path, help="TUM depth/ folder: also compare the run's depth")
    parser.add_argument(
        "--depth-scale",
        type=float,
        metavar="UNITS",
        help=f"value of one metre in the images of --depth (default {DEPTH_SCALE:g}; 1000: millimetres)",
    )
    parser.add_argument(
        "--mesh",
        type=Path,
        metavar="TRUTH",
        help="true mesh or cloud, or a recording with depth: score the surface too",
    )
    parser.add_argument(
        "--surface", type=Path, metavar="FILE", help="mesh or cloud that --mesh scores (default: map.ply of the run)"
    )
    parser.add_argument("--online", action="store_true", help="poses as first estimated, not the final ones")
    parser.add_argument("--max-difference", type=float, default=0.02, help="of matched stamps, s (default %(default)s)")
    parser.add_argument(
        "--time-offset",
        default="0",
        metavar="SECONDS|auto",
        help="added to the stamps of the run; auto finds it by how fast the camera turned and moved",
    )
    parser.add_argument("--min-confidence", type=float, default=0.5, help="of compared depths (default %(default)s)")
    parser.add_argument("--out", type=Path, help="where metrics.json and the plot go (default: the run directory)")
    parser.add_argument("--no-plots", action="store_true", help="write no image")
    add_verbosity(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    return program("v2d-eval", lambda: evaluate(parsed(build_parser(), argv)), argv is None)


def evaluate(options: argparse.Namespace) -> int:
    """Read, score, print, write; returns the exit code."""
    from slam.evaluation.plots import plot_trajectory
    from slam.evaluation.report import table, trajectory_report
    from slam.evaluation.run_depth import depth_report
    from slam.evaluation.run_surface import surface_report
    from slam.frames import Trajectory
    from slam.io.files import read_json
    from slam.io.images import DEPTH_SCALE
    from slam.io.run import Run
    from slam.io.run_directory import RunDirectory
    from slam.io.trajectory import read_tum
    from slam.sources.depth_format import SCALE_WORDS, SCALES
    from slam.sources.groundtruth import read_groundtruth
    from slam.sources.reopen import frame_times

    if not 0 <= options.max_difference <= 3600 or not 0 <= options.min_confidence <= 1:
        raise UsageError(
            "--max-difference must be in 0..3600 s and --min-confidence in 0..1, "
            f"got {options.max_difference:g} and {options.min_confidence:g}"
        )
    scale = DEPTH_SCALE if options.depth_scale is None else options.depth_scale
    if not SCALES[0] <= scale <= SCALES[1] or (options.depth is None and options.depth_scale is not None):
        raise UsageError(f"--depth-scale, of the images of --depth, is {SCALE_WORDS}, got {scale:g}")
    if options.surface is not None and options.mesh is None:
        raise UsageError("--surface is what --mesh TRUTH scores; give both")
    run = Run(options.run) if options.run.is_dir() else None
    estimate = read_tum(options.run, torn_end=options.online) if run is None else run.trajectory(options.online)
    offset_ns = parse_offset(options.time_offset)
    max_difference_ns = round(options.max_difference * 1e9)
    frames = None if run is None or not run.has_record else lambda: frame_times(run.record().source)
    truth = read_groundtruth(options.groundtruth, frames, options.topic)
    if offset_ns is None:
        offset_ns = found_offset_ns(estimate, truth)
    estimate = Trajectory(estimate.time_ns + offset_ns, estimate.T_wc)
    seen = run.record().frames_seen if run is not None and run.has_record else None
    report = trajectory_report(estimate, truth, max_difference_ns, seen)
    depth = None
    if options.depth is not None:
        folder = run or Run(options.run.parent)
        depth = depth_report(folder, options.depth, max_difference_ns, options.min_confidence, scale)
    surface = None
    if options.mesh is not None:
        folder = run or Run(options.run.parent)
        surface = surface_report(folder, options.surface, options.mesh, estimate, truth, max_difference_ns)
    if not options.quiet:
        print(f"{'online' if options.online else 'final'} trajectory of {options.run} against {options.groundtruth}")
        print("\n".join([table(report, depth), *([] if surface is None else surface.lines())]))
    out_folder: Path | None = options.out or (None if run is None else run.path)
    if out_folder is None:
        return 0
    out = RunDirectory(out_folder)
    numbers = {"online": options.online, "groundtruth": str(options.groundtruth), "time_offset_s": offset_ns * 1e-9}
    numbers |= report.numbers()
    if depth is not None:
        numbers |= depth.numbers()
    if surface is not None:
        numbers |= surface.numbers()
    metrics = read_json(out.path / "metrics.json", dict) if (out.path / "metrics.json").is_file() else {}
    section = "evaluation_online" if options.online else "evaluation"  # beside what the run itself wrote
    out.write_json("metrics.json", {**metrics, section: numbers})
    if not options.no_plots:
        out.write(f"{section}.png", lambda path: plot_trajectory(report.ate["sim3"], path, options.run.name))
    if out.missing:
        raise OutputError(f"results in {out.path} are incomplete: {out.missing_words()}")
    return 0


def parse_offset(text: str) -> int | None:
    """Nanoseconds, None for "auto"; raises UsageError."""
    from slam.io.trajectory import parse_time_ns

    if text == "auto":
        return None
    try:
        offset_ns = parse_time_ns(text)
    except ValueError as error:
        raise UsageError(f"--time-offset takes seconds or auto, got {text}") from error
    if abs(offset_ns) > MAX_OFFSET_NS:
        raise UsageError(f"--time-offset must be within {MAX_OFFSET_NS / 1e9:g} s, got {text}")
    return offset_ns


def found_offset_ns(estimate: "Trajectory", truth: "Trajectory") -> int:
    """The offset by which the speeds of both agree best, told."""
    from slam.evaluation.time_offset import find_time_offset

    found = find_time_offset(estimate, truth)
    log.info(
        "time offset %.3f s, added to the stamps of the run (correlation of the speeds %.2f over %.1f s)",
        found.offset_ns * 1e-9,
        found.correlation,
        found.overlap_s,
    )
    return found.offset_ns


if __name__ == "__main__":
    sys.exit(main())

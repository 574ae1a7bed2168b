"""v2d-refine: consistent depth for every frame of a finished run."""

import argparse
import logging
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.common import add_verbosity, parsed, program, stop_on_signals
from slam.errors import OutputError, RefinementError, SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from slam.frames import Keyframe
    from slam.io.run import Run
    from slam.io.run_record import RunRecord
    from slam.refinement.refiner import RefineConfig, Tools
    from slam.sources import Source

log = logging.getLogger(__name__)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve the other workers

TOLD_EVERY_S = 0.5  # on a terminal; elsewhere twenty times as long
STOPPED = "stopped by the user"
WORK = "refined.work"  # folder of what an interrupted refinement goes on from
PARTIAL = "refined.partial"  # folder of the result until it is whole
EARLIER = "refined.earlier"  # of an earlier result, while the new one takes its place
ENDINGS = """The poses and the map stay as they are; the result is RUN/refined, a run directory that v2d-view and
v2d-eval read, with the depth of every frame and preview.mp4. Ctrl-C and SIGTERM keep the best so far; the same
command then goes on. What the frames held out do not confirm is not used: exit code 1, and nothing is written."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-refine."""
    p = argparse.ArgumentParser(
        prog="v2d-refine", description="Consistent depth for every frame of a finished run.", epilog=ENDINGS
    )
    p.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run directory (default results/latest)")
    modes = "fast: depth is optimised directly; train: the single-picture network learns this video first"
    p.add_argument("--mode", choices=("fast", "train"), default="fast", help=modes)
    p.add_argument("--minutes", type=float, default=float("inf"), help="end after so long, with the best so far")
    p.add_argument("--again", action="store_true", help="replace an earlier result")
    p.add_argument("--device", metavar="NAME", default="auto", help="auto (a GPU that works, else the CPU), cpu, cuda")
    p.add_argument("--weights", type=Path, metavar="FILE", help="network weights, of a run that used others")
    p.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override a setting of the refinement")
    add_verbosity(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return program("v2d-refine", lambda: refine(parsed(build_parser(), argv)), argv is None)


def refine(options: argparse.Namespace) -> int:
    """Read the run, refine it, write the result."""
    from slam.config import SlamConfig, load_config
    from slam.frontend.preparation import network_size
    from slam.io.run import Run
    from slam.io.run_directory import latest_run
    from slam.refinement.build import build_tools
    from slam.refinement.refiner import RefineConfig
    from slam.report import METRIC_SCALE
    from slam.sources.reopen import reopened
    from slam.threads import limit_threads

    if not options.minutes > 0:
        raise UsageError(f"--minutes must be positive, got {options.minutes:g}")
    limit_threads()
    run = Run(options.run or latest_run())
    config = load_config(RefineConfig, None, [f"mode={options.mode}", *options.set])
    record, keyframes = finished(run, options.again)
    settings = load_config(SlamConfig, run.path / "config.yaml", [])
    tools = build_tools(settings, config.mode, options.device, options.weights)
    check_size(run, network_size(record.source.camera, tools.pixels), keyframes)
    is_metric = record.scale_source == METRIC_SCALE  # else the sensor's metres are not the map's unit
    source = reopened(record.source if is_metric else replace(record.source, with_depth=False))
    try:
        with stop_on_signals() as stop:
            status = Status(None if options.quiet else sys.stderr)
            return refine_and_write(
                *(run, record, keyframes, source, tools, config, options.minutes, status, stop.is_set)
            )
    finally:
        source.close()


def check_size(run: "Run", size: tuple[int, int], keyframes: "tuple[Keyframe, ...]") -> None:
    """Refuse keyframes that are not of the size (width, height) that the frames will have.

    Raises:
        SourceError: naming both.
    """
    h, w = keyframes[0].view.image.size
    if (w, h) != size:
        raise SourceError(
            f"the keyframes of {run.path} are of {w}x{h} pixels, its config.yaml asks for {size[0]}x{size[1]}: "
            "one of them was changed; run v2d-slam again"
        )


def is_unfinished(refined: Path) -> bool:
    """True of a result that its user stopped early."""
    from slam.io.files import read_json

    metrics = refined / "metrics.json"
    numbers = read_json(metrics, dict).get("refinement", {}) if metrics.is_file() else {}
    return isinstance(numbers, dict) and numbers.get("end") == STOPPED


class Status:
    """Shows what is done, a few times a second in place on a terminal, as lines every 10 s elsewhere."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._shown_s = 0.0

    def __call__(self, words: str) -> None:
        """Show words, if it is time to."""
        now_s = time.monotonic()
        if self.stream is None or now_s - self._shown_s < TOLD_EVERY_S * (1 if self.stream.isatty() else 20):
            return
        self._shown_s = now_s
        self.stream.write(f"\r{words}\033[K" if self.stream.isatty() else f"{words}\n")
        self.stream.flush()


def finished(run: "Run", again: bool) -> "tuple[RunRecord, tuple[Keyframe, ...]]":
    """The record and the keyframes of a run that can be refined.

    Raises:
        SourceError: if it has not ended, or has too little to work on.
        UsageError: if it was refined before.
    """
    from slam.io.refined import REFINED, has_frames

    if has_frames(run.path):
        raise UsageError(f"{run.path} is the result of v2d-refine; name the run that it came from")
    if not run.has_record:
        raise SourceError(f"{run.path} has not ended, or was killed: a run is refined when its run.json is there")
    record = run.record()
    if record.missing:
        raise SourceError(f"{run.path} is still being written, or incomplete: {', '.join(list(record.missing)[:3])}")
    keyframes = run.keyframes()
    if len(keyframes) < 2:
        raise SourceError(f"{run.path} has no two keyframes: there is nothing that its depth could agree with")
    if not any(bool(keyframe.dense.known.any()) for keyframe in keyframes):
        raise SourceError(f"{run.path} has no depth (depth.stereo of its config.yaml): there is nothing to refine")
    earlier = run.path / REFINED
    if earlier.exists() and not again and not is_unfinished(earlier):
        raise UsageError(f"{earlier} is there already; --again replaces it")
    return record, keyframes


def refine_and_write(
    run: "Run",
    record: "RunRecord",
    keyframes: "tuple[Keyframe, ...]",
    source: "Source",
    tools: "Tools",
    config: "RefineConfig",
    minutes: float,
    status: "Callable[[str], None]",
    stop: "Callable[[], bool]",
) -> int:
    """Refine stretch by stretch, write the frames as they are done, and the rest at the end."""
    from slam.io.refined import REFINED
    from slam.io.run_directory import RunDirectory
    from slam.refinement.result import Result
    from slam.refinement.video import refine_video

    partial, work = run.path / PARTIAL, run.path / WORK
    shutil.rmtree(partial, ignore_errors=True)
    try:
        directory = RunDirectory(partial)
    except OutputError as error:
        words = f"cannot make {partial}: {error.__cause__}; copy the run to where you may write"
        raise OutputError(words) from error
    result = Result(directory, run, record, keyframes)
    begin_s = time.monotonic()
    try:
        for refined, own in refine_video(
            *(record.source.name, source, tools.pixels, run.trajectory(), keyframes, tools, config, work),
            *(minutes, status, stop),
        ):
            result.add(refined, own)
            if stop() and not result.accepted:
                break
        late = time.monotonic() - begin_s > 60 * minutes
        if not result.accepted and (stop() or late):
            why = "stopped" if stop() else "the time was over"
            raise RefinementError(f"{why} before there was a result, {run.path} stays as it is; start again to go on")
        if not result.accepted:
            shutil.rmtree(work, ignore_errors=True)
            raise RefinementError(f"the result is not used, {run.path} stays as it is: {result.verdict()}")
        given = "complete" if minutes == float("inf") else f"complete, within {minutes:g} minutes"
        end = STOPPED if stop() else given
        words = result.finish(config, end, time.monotonic() - begin_s)
        if result.directory.missing:
            raise OutputError(f"{run.path / REFINED} is not written: {result.directory.missing_words()}")
        put_in_place(partial, run.path / REFINED)
    finally:
        result.close()
        shutil.rmtree(partial, ignore_errors=True)
    if not stop():
        shutil.rmtree(work, ignore_errors=True)
    log.info("%s\nresults in %s", words, run.path / REFINED)
    return 0


def put_in_place(partial: Path, target: Path) -> None:
    """Let a whole result take the place of an earlier one, which stays if that fails.

    Raises:
        OutputError: if the file system refuses.
    """
    from slam.io.files import reason

    earlier = target.with_name(EARLIER)
    shutil.rmtree(earlier, ignore_errors=True)
    try:
        if target.exists():
            target.replace(earlier)
        try:
            partial.replace(target)
        except OSError:
            if earlier.exists():
                earlier.replace(target)
            raise
    except OSError as error:
        raise OutputError(f"cannot put the result at {target}: {reason(error)}") from error
    shutil.rmtree(earlier, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

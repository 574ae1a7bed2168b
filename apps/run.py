"""v2d-slam: track and map a camera or a recording."""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from apps.common import Interrupted, add_verbosity, leave, parsed, program, stop_on_signals
from apps.inputs import add_inputs, kept, open_input, recorded
from apps.viewing import add_viewing, find_window, take_screenshot, watched
from slam.errors import OutputError, SlamError, SourceError

if TYPE_CHECKING:
    from slam.frames import Estimate, Progress
    from slam.io.run_record import Outcome, RecordingRecord
    from slam.system import Slam

log = logging.getLogger(__name__)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve the other workers

STOPPED = "stopped by the user"  # how a run ended
STOPPED_AT_ONCE = "stopped by the user, and again: the map was not adjusted at its end"
ENDINGS = """Ctrl-C, SIGTERM and SIGHUP end a run early and in order: everything is written, the exit code is 0. A
second Ctrl-C writes what there is without adjusting it, a third leaves at once: exit code 130. Other codes: 1 the
camera, the recording, a file or the disk failed (what there is, is written), 2 the command line is wrong."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-slam."""
    p = argparse.ArgumentParser(prog="v2d-slam", description="Real-time dense monocular SLAM.", epilog=ENDINGS)
    add_inputs(p)
    p.add_argument("--config", type=Path, metavar="FILE", help="settings, YAML")
    p.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override one setting")
    p.add_argument("--weights", type=Path, metavar="FILE", help="network weights other than the shipped ones")
    p.add_argument("--device", metavar="NAME", help="auto (a GPU that works, else the CPU), cpu, cuda, or cuda:1 ...")
    p.add_argument("--out", type=Path, metavar="DIR", help="new directory of the results (default results/<time>)")
    p.add_argument("--deterministic", action="store_true", help="one thread: same input, same bytes of trajectory")
    p.add_argument(
        "--self-calibrate",
        choices=("radial", "focal", "off"),
        help="find the focal length, and k1 with radial, by the map (default: radial where there is no calibration; "
        "where there is one, the two are compared)",
    )
    p.add_argument("--load-map", type=Path, metavar="FILE", help="go on in an earlier map, found by what it shows")
    p.add_argument("--save-map", type=Path, metavar="FILE", help="keep the map, for --load-map")
    p.add_argument("--max-keyframes", type=int, metavar="N", help="in memory; old ones that others cover go to disk")
    p.add_argument("--final-refine", choices=("on", "off"), help="adjust the whole map together at the end (on)")
    add_viewing(p)
    add_verbosity(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return program("v2d-slam", lambda: run(parsed(build_parser(), argv)), argv is None)


def run(options: argparse.Namespace) -> int:
    """Build the parts, track the source, write and report the results."""
    from slam.build import build_slam
    from slam.config import SlamConfig, dump_config, load_config
    from slam.io.files import check_writable
    from slam.io.map_file import load_map
    from slam.report import Report
    from slam.threads import limit_threads
    from slam.viewer.live import LiveRun

    limit_threads()
    config = load_config(SlamConfig, options.config, [*options.set, *shortcuts(options)])
    earlier = [] if options.load_map is None else load_map(options.load_map)
    if options.save_map is not None:
        check_writable(options.save_map)
    window = find_window(options)
    given = open_input(options)
    source, recorder = given.source, None
    try:
        slam = build_slam(
            config,
            source.camera,
            options.weights,
            threads=not options.deterministic,
            live=source.live,
            earlier=earlier,
        )
        report = Report(options.out, given.record, source.count, None if options.quiet else sys.stderr)
        slam.store.archive_in(report.directory.path / "evicted")
        source, recorder = recorded(source, options.record)
        report.source = kept(given, report.directory, options.record)
    except BaseException:
        source.close()
        raise
    live = LiveRun(report.directory.path, source.count)

    def publish(progress: "Progress") -> None:
        report.show(progress)
        if window is not None:
            live.publish(progress)

    def take_poses(estimates: "list[Estimate]") -> None:
        report.write_online(estimates)
        if window is not None:
            live.add(estimates)

    hurry = threading.Event()  # by a second Ctrl-C

    def again(number: int) -> None:
        if hurry.is_set():
            leave(number)
        hurry.set()

    def track_and_report() -> int:
        error: SlamError | None = None
        end = "crashed"
        try:
            slam.run(source, publish, take_poses, stop.is_set, lambda: live.gate.wait(stop.is_set), hurry.is_set)
            end = "complete" if not stop.is_set() else STOPPED_AT_ONCE if hurry.is_set() else STOPPED
        except SlamError as failure:  # the camera or the file broke off: keep what there is
            error, end = failure, str(failure)
        finally:
            source.close()
            if recorder is not None:
                recorder.close()
                error = error or recorder.error
            log.info("writing the results into %s", report.directory.path)
            calibration = slam.parts.backend.calibration
            outcome = outcome_of(slam, end, None if recorder is None else recorder.record())
            times, settings = slam.times.table(), dump_config(config)
            if calibration is not None:
                report.tell_camera(calibration)
            summary = report.finish(
                slam.store, slam.counts, times, slam.record, outcome, config.fusion, settings, given.truth
            )
            if options.save_map is not None and len(slam.store):
                no_map = keep_map(options.save_map, slam)  # also of a run that failed
                error = error or no_map
            slam.store.close()
        if options.screenshot is not None and len(slam.store) and not hurry.is_set():
            no_image = take_screenshot(report.directory.path, options.screenshot)
            error = error or no_image
        if not options.quiet:
            print(summary)
        if hurry.is_set():
            raise Interrupted(signal.SIGINT, f"what there was is in {report.directory.path}")
        if error is not None:
            raise error
        if report.directory.missing:
            raise OutputError(f"results in {report.directory.path} are incomplete: {report.directory.missing_words()}")
        if not len(slam.store) and not stop.is_set():
            frames = f"{slam.counts.seen} frame{'s' if slam.counts.seen != 1 else ''}"
            raise SourceError(f"no map of the {frames} of {given.record.name}: {slam.why_no_map()}")
        if len(slam.store) and not slam.counts.tracked and not earlier and not stop.is_set():
            raise SourceError(f"no frame of {given.record.name} got a pose in the map that its first frame began")
        if earlier and not stop.is_set() and not any(len(slam.store.trajectory(n)) for n in earlier_ids(slam)):
            raise SourceError(f"no frame of {given.record.name} shows a place of {options.load_map}")
        return 0

    with stop_on_signals(again) as stop:
        return track_and_report() if window is None else watched(window, live, stop, track_and_report)


def earlier_ids(slam: "Slam") -> set[int]:
    """The maps that hold keyframes of the earlier one; that which began a map never leaves."""
    return {k.map_id for k in slam.store.keyframes if k.view.frame_id < 0}


def outcome_of(slam: "Slam", end: str, recording: "RecordingRecord | None") -> "Outcome":
    """How a run ended, for `run.json`."""
    from slam.io.run_record import Outcome

    backend, client = slam.parts.backend, slam.backend
    counts = len(backend.loops), backend.adjustments_skipped, client.windows_skipped, client.jobs_deferred
    return Outcome(end, *counts, recording)


def keep_map(path: Path, slam: "Slam") -> OutputError | None:
    """Write all keyframes of the run into a file, also those that left the active map; the error if that fails."""
    from slam.io.map_file import save_map
    from slam.recognition.keypoints import with_keypoints

    try:
        save_map(path, [with_keypoints(k, slam.config.keypoints) for k in slam.store.everything()])
    except OutputError as error:
        log.error("%s", error)
        return error
    return None


def shortcuts(options: argparse.Namespace) -> list[str]:
    """Settings that have an option of their own, as `--set` takes them."""
    given = {name: getattr(options, name) for name in ("device", "max_keyframes", "final_refine", "self_calibrate")}
    return [f"{name}={value}" for name, value in given.items() if value is not None]


if __name__ == "__main__":
    sys.exit(main())

"""v2d-slam: track and map a recording."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from apps.common import add_verbosity, guarded, set_up_logging, stop_on_signals
from slam.errors import OutputError, SlamError, SourceError, UsageError
from slam.frames import Trajectory

log = logging.getLogger(__name__)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve the other workers

ENDINGS = """Ctrl-C and SIGTERM end a run early and in order: everything is written, the exit code is 0. Other codes:
1 the recording, a file or the disk failed (what there is, is written), 2 the command line makes no sense."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-slam."""
    p = argparse.ArgumentParser(prog="v2d-slam", description="Real-time dense monocular SLAM.", epilog=ENDINGS)
    inputs = p.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--sequence", metavar="NAME|PATH", help="a known sequence (tum/fr1_desk) or any recording")
    inputs.add_argument("--video", metavar="FILE", help="a video file")
    inputs.add_argument("--images", metavar="DIR", help="a folder of pictures")
    inputs.add_argument("--demo", action="store_true", help="a rendered room with known truth; needs nothing")
    p.add_argument("--calib", type=Path, metavar="FILE", help="calibration of the camera")
    p.add_argument("--hfov", type=float, metavar="DEG", help="horizontal field of view, instead of a calibration")
    p.add_argument("--fps", type=float, help="frames per second of pictures and videos without time stamps")
    p.add_argument("--start", type=int, default=0, metavar="N", help="first frame")
    p.add_argument("--stride", type=int, default=1, metavar="N", help="use every Nth frame")
    p.add_argument("--max-frames", type=int, metavar="N", help="length of the part used, in frames of the recording")
    p.add_argument("--data-root", type=Path, metavar="DIR", help="where known sequences lie (also $V2D_DATA)")
    p.add_argument("--download", action="store_true", help="fetch a known sequence that is missing")
    p.add_argument("--config", type=Path, metavar="FILE", help="settings, YAML")
    p.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override one setting")
    p.add_argument("--weights", type=Path, metavar="FILE", help="network weights other than the shipped ones")
    p.add_argument("--out", type=Path, metavar="DIR", help="new directory of the results (default results/<time>)")
    p.add_argument("--deterministic", action="store_true", help="one thread: same input, same bytes of trajectory")
    add_verbosity(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = build_parser().parse_args(argv)
    set_up_logging(options)
    return guarded("v2d-slam", lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Build the parts, track the source, write and report the results."""
    from slam.config import SlamConfig, dump_config, load_config
    from slam.report import Report
    from slam.system import build

    limit_threads()
    config = load_config(SlamConfig, options.config, options.set)
    source, name, truth = open_input(options)
    slam, facts = build(config, source.camera, options.weights, threads=not options.deterministic)
    report = Report(options.out, name, source.count, None if options.quiet else sys.stderr)
    error: SlamError | None = None
    facts["end"] = "crashed"
    with stop_on_signals() as stop:
        try:
            slam.run(source, report.show, report.write_online, stop.is_set)
            facts["end"] = "stopped by the user" if stop.is_set() else "complete"
        except SlamError as failure:  # the camera or the file broke off: keep what there is
            error, facts["end"] = failure, str(failure)
        finally:
            source.close()
            log.info("writing the results into %s", report.directory.path)
            summary = report.finish(
                slam.store, slam.counts, slam.times.table(), facts, config.fusion, dump_config(config), truth
            )
    if not options.quiet:
        print(summary)
    if error is not None:
        raise error
    if report.directory.missing:
        raise OutputError(f"results in {report.directory.path} are incomplete: {report.directory.missing_words()}")
    if not len(slam.store) and not stop.is_set():
        raise SourceError(
            f"no map: the {slam.counts.seen} frames of {name} never showed enough parallax; "
            "move the camera sideways, slowly"
        )
    return 0


def open_input(options: argparse.Namespace) -> tuple[Any, str, Trajectory | None]:
    """The source that the options name, what to call it, and its ground truth where it has one."""
    if options.demo:
        from slam.sources.demo import DemoConfig, DemoSource

        for option, default in {"calib": None, "hfov": None, "fps": None, "start": 0, "stride": 1}.items():
            if getattr(options, option) != default:
                raise UsageError(f"--{option} {getattr(options, option)} is for recordings, not for --demo")
        demo = DemoSource(DemoConfig() if options.max_frames is None else DemoConfig(frames=options.max_frames))
        return demo, "demo", demo.groundtruth()
    from slam.sources import SourceSpec, open_source
    from slam.sources.alias import resolve_sequence
    from slam.sources.groundtruth import known_truth

    choices = ((options.sequence, ""), (options.video, "video"), (options.images, "images"))
    path, kind = next((path, kind) for path, kind in choices if path is not None)
    if options.sequence is not None:
        path = str(resolve_sequence(path, options.data_root, options.download))
    spec = SourceSpec(
        path=path,
        kind=kind,
        hfov_deg=options.hfov,
        **{key: getattr(options, key) for key in ("calib", "fps", "start", "stride", "max_frames")},
    )
    return open_source(spec), path, known_truth(Path(path))


def limit_threads() -> None:
    """One thread for each worker: tracking and backend then share two cores without fighting."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    sys.exit(main())

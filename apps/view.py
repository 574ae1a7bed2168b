"""v2d-view: look at a finished run."""

import argparse
import logging
import sys
from pathlib import Path

from apps.common import add_verbosity, guarded, set_up_logging, stop_on_signals
from apps.viewing import import_window
from slam.errors import UsageError

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-view."""
    p = argparse.ArgumentParser(prog="v2d-view", description="Look at a finished run.", epilog="Keys: H shows them.")
    p.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run directory (default results/latest)")
    p.add_argument("--screenshot", type=Path, metavar="FILE", help="draw into a PNG or JPEG; needs no display")
    p.add_argument("--size", type=int, nargs=2, default=(1280, 800), metavar=("W", "H"), help="of image or window")
    add_verbosity(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = build_parser().parse_args(argv)
    set_up_logging(options)
    return guarded("v2d-view", lambda: view(options))


def view(options: argparse.Namespace) -> int:
    """Read the run, then draw it."""
    from slam.io.images import write_color
    from slam.io.refined import REFINED, has_frames
    from slam.io.run_directory import latest_run
    from slam.viewer.run import FinishedRun, Playback

    width, height = options.size
    if min(width, height) < 64 or max(width, height) > 8192:
        raise UsageError(f"--size {width} {height}: both must be from 64 to 8192")
    run = FinishedRun(options.run or latest_run())
    if has_frames(run.path / REFINED):
        log.info("there is refined depth of this run, which v2d-view %s shows", run.path / REFINED)
    window = import_window()
    if options.screenshot is None:
        with stop_on_signals() as stop:
            window(Playback(run), width, height).show(stop.is_set)
        return 0
    from slam.viewer.offscreen import render

    write_color(options.screenshot, render(run, width, height))
    log.info("wrote %s", options.screenshot)
    return 0


if __name__ == "__main__":
    sys.exit(main())

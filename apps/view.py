"""v2d-view: look at a finished run."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from apps.common import add_map_number, add_verbosity, leave, parsed, program, stop_on_signals
from apps.viewing import check_screenshot, import_window, load_page
from slam.errors import UsageError

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-view."""
    p = argparse.ArgumentParser(prog="v2d-view", description="Look at a finished run.", epilog="Keys: H shows them.")
    p.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run directory (default results/latest)")
    add_map_number(p)
    p.add_argument("--screenshot", type=Path, metavar="FILE", help="draw into a PNG or JPEG; needs no display")
    p.add_argument(
        "--web",
        nargs="?",
        const="",
        metavar="PORT",
        help="show it in browsers instead of a window (without PORT: at the first free one from 8080 on)",
    )
    p.add_argument("--host", help="where the page is served (127.0.0.1: this computer alone)")
    p.add_argument("--size", type=int, nargs=2, default=(1280, 800), metavar=("W", "H"), help="of image or window")
    add_verbosity(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return program("v2d-view", lambda: view(parsed(build_parser(), argv)), argv is None)


def view(options: argparse.Namespace) -> int:
    """Read the run, then draw it."""
    from slam.io.images import write_color
    from slam.io.refined import REFINED, has_frames
    from slam.io.run_directory import latest_run
    from slam.viewer.run import FinishedRun, Playback

    width, height = options.size
    if min(width, height) < 64 or max(width, height) > 8192:
        raise UsageError(f"--size {width} {height}: both must be from 64 to 8192")
    page = find_page(options)
    check_screenshot(options.screenshot)
    run = FinishedRun(options.run or latest_run(), options.map)
    if run.map_count > 1:
        log.info("map %d of %d that nothing joined; --map N shows another", run.number, run.map_count)
    if has_frames(run.path / REFINED):
        log.info("there is refined depth of this run, which v2d-view %s shows", run.path / REFINED)
    if page is not None:
        with stop_on_signals(leave) as stop:
            page(Playback(run)).show(stop.is_set)
        return 0
    window = import_window()
    if options.screenshot is None:
        with stop_on_signals(leave) as stop:
            window(Playback(run), width, height).show(stop.is_set)
        return 0
    from slam.viewer.offscreen import render

    write_color(options.screenshot, render(run, width, height))
    log.info("wrote %s", options.screenshot)
    return 0


def find_page(options: argparse.Namespace) -> Any:
    """What makes a page, if one is asked for.

    Raises:
        UsageError: if the options do not go together.
        ViewerError: if there can be no page there.
    """
    if options.web is None:
        if options.host is not None:
            raise UsageError("--host goes with --web")
        return None
    if options.screenshot is not None:
        raise UsageError("--screenshot draws without showing; ask for it or for --web")
    if options.web and options.run is None and not options.web.isdecimal():  # --web RUN
        options.run, options.web = Path(options.web), ""
    return load_page(f"--web {options.web}", options.host, options.web or None)


if __name__ == "__main__":
    sys.exit(main())

"""What v2d-slam shows: a window while it runs, a picture of the map at its end."""

import argparse
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from slam.errors import UsageError, ViewerError
from slam.frames import Estimate, Progress
from slam.report import Report
from slam.threads import Worker

log = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg")
SCREENSHOT_TIMEOUT_S = 300.0  # of a software renderer on a busy computer


def add_viewing(p: argparse.ArgumentParser) -> None:
    """The options on windows and pictures."""
    viewer = p.add_mutually_exclusive_group()
    viewer.add_argument("--viewer", choices=("open3d", "none"), help="default: open3d where there is a display")
    viewer.add_argument("--headless", action="store_const", const="none", dest="viewer", help="same as --viewer none")
    p.add_argument("--screenshot", type=Path, metavar="FILE", help="draw the final map (PNG, JPEG); needs no display")


def find_window(options: argparse.Namespace) -> Any:
    """The class of the window; None where none is wanted, or none is possible and none was asked for by name.

    Raises:
        UsageError: if the screenshot has no name of a picture.
        ViewerError: if a window was asked for by name, and there is none.
    """
    if options.screenshot is not None and options.screenshot.suffix.lower() not in PICTURES:
        raise UsageError(f"--screenshot {options.screenshot}: the name must end in {', '.join(PICTURES)}")
    if options.viewer == "none":
        return None
    try:
        return load_window()
    except ViewerError as error:
        if options.viewer is not None:
            raise
        log.info("going on without a window: %s", error)
        return None


def load_window() -> Any:
    """The class of the window, where one can be opened.

    Raises:
        ViewerError: if there is no display, no graphics driver, or no Open3D.
    """
    from slam.viewer.driver import check_display, check_driver

    check_display()
    os.environ.setdefault("LP_NUM_THREADS", "1")  # a software driver takes all cores otherwise; read when it is loaded
    check_driver()
    return import_window()


def import_window() -> Any:
    """The class of the window; raises ViewerError if Open3D cannot be loaded."""
    try:
        from slam.viewer.window import Window
    except (ImportError, OSError) as error:
        raise ViewerError(
            f"cannot load Open3D: {error}; pip install open3d, apt-get install libgl1 libegl1 libusb-1.0-0"
        ) from error
    return Window


def track(slam: Any, source: Any, report: Report, stop: threading.Event, window: Any) -> None:
    """Run the system to the end of the source or until `stop`, with a window unless `window` is None.

    Closing the window stops the run; what goes wrong with the window does not.

    Raises:
        SlamError: what the run died of.
    """
    if window is None:
        slam.run(source, report.show, report.write_online, stop.is_set)
        return
    from slam.viewer.live import LiveRun

    live, ended = LiveRun(report.directory.path, source.count), threading.Event()

    def publish(progress: Progress) -> None:
        report.show(progress)
        live.publish(progress)
        live.gate.wait(stop.is_set)  # a pause

    def take_poses(estimates: list[Estimate]) -> None:
        report.write_online(estimates)
        live.add(estimates)

    def run(source: Any) -> None:
        try:
            slam.run(source, publish, take_poses, stop.is_set)
        finally:
            ended.set()

    tracking: Worker[Any, None] = Worker(run, "tracking")
    tracking.submit(source)
    try:
        window(live).show(ended.is_set)
    except Exception as error:  # whatever it is, the run is worth more
        log.warning("the window failed, the run goes on without it: %s", str(error) or repr(error))
        live.gate.open()
    else:
        if not ended.is_set():
            stop.set()
    tracking.close()


def take_screenshot(run: Path, file: Path) -> ViewerError | None:
    """Draw the map of a finished run into a file; the error if that fails.

    A process of its own draws: a window may have used the renderer before, and a driver that breaks breaks only that.
    """
    command = [sys.executable, "-m", "apps.view", str(run), "--screenshot", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCREENSHOT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return ViewerError(f"no screenshot {file}: {error}")
    if done.returncode == 0:
        log.info("wrote %s", file)
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return ViewerError(f"no screenshot {file}: {lines[-1].removeprefix('v2d-view: ')}")

"""What v2d-slam shows: a window while it runs, an image of the map at its end."""

import argparse
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.common import guarded
from slam.errors import UsageError, ViewerError
from slam.threads import Worker
from slam.viewer.driver import check_display, check_driver, on_display_lost

if TYPE_CHECKING:
    from slam.viewer.live import LiveRun

log = logging.getLogger(__name__)

IMAGES = (".png", ".jpg", ".jpeg")
SCREENSHOT_TIMEOUT_S = 300.0  # of a software renderer on a busy computer


def add_viewing(p: argparse.ArgumentParser) -> None:
    """The options on windows and images."""
    viewer = p.add_mutually_exclusive_group()
    viewer.add_argument("--viewer", choices=("open3d", "none"), help="default: open3d where there is a display")
    viewer.add_argument("--headless", action="store_const", const="none", dest="viewer", help="same as --viewer none")
    p.add_argument("--screenshot", type=Path, metavar="FILE", help="draw the final map (PNG, JPEG); needs no display")


def find_window(options: argparse.Namespace) -> Any:
    """The class of the window; None where none is wanted, or none is possible and none was asked for by name.

    Raises:
        UsageError: if the screenshot has no name of an image.
        ViewerError: if a window was asked for by name, and there is none.
    """
    if options.screenshot is not None and options.screenshot.suffix.lower() not in IMAGES:
        raise UsageError(f"--screenshot {options.screenshot}: the name must end in {', '.join(IMAGES)}")
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


def watched(window: Any, live: "LiveRun", stop: threading.Event, job: Callable[[], int]) -> int:
    """Do a job, a run with its results, on a thread of its own while the window has this one; the job's exit code.

    Closing the window sets `stop`; what goes wrong with the window does not end the job.

    Args:
        window: class of the window.
        live: what the job shows.

    Raises:
        SlamError: what the job died of.
    """
    ended = threading.Event()

    def work(job: Callable[[], int]) -> int:
        try:
            return job()
        finally:
            ended.set()

    program: Worker[Callable[[], int], int] = Worker(work, "program")

    def display_lost() -> None:
        """Xlib ends the process when this returns."""
        log.warning("the display has gone, the run goes on without a window")
        live.gate.open()
        code = guarded("v2d-slam", lambda: program.close()[-1])
        sys.stdout.flush()
        os._exit(code)

    on_display_lost(display_lost)
    program.submit(job)
    try:
        window(live).show(ended.is_set)
    except Exception as error:  # whatever it is, the run is worth more
        log.warning("the window failed, the run goes on without it: %s", str(error) or repr(error))
        live.gate.open()
    else:
        if not ended.is_set():
            stop.set()
    return program.close()[-1]


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

"""What v2d-slam shows: a window or a page while it runs, an image of the map at its end."""

import argparse
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.common import guarded
from slam.errors import UsageError, ViewerError
from slam.processes import own_program
from slam.threads import Worker
from slam.viewer.driver import check_display, check_driver, on_display_lost
from slam.viewer.web_address import LOCAL_HOST, Address, import_page

if TYPE_CHECKING:
    from slam.viewer.live import LiveRun

log = logging.getLogger(__name__)

IMAGES = (".png", ".jpg", ".jpeg")
SCREENSHOT_TIMEOUT_S = 300.0  # of a software renderer on a busy computer


def add_viewing(p: argparse.ArgumentParser) -> None:
    """The options on windows and images."""
    viewer = p.add_mutually_exclusive_group()
    viewer.add_argument(
        "--viewer",
        metavar="{open3d,web[:PORT],none}",
        help="a window, a page for browsers (at the first free port from 8080 on), or nothing; "
        "default: open3d where there is a display",
    )
    viewer.add_argument("--headless", action="store_const", const="none", dest="viewer", help="same as --viewer none")
    p.add_argument("--viewer-host", metavar="HOST", help="where the page is served (127.0.0.1: this computer alone)")
    p.add_argument("--screenshot", type=Path, metavar="FILE", help="draw the final map (PNG, JPEG); needs no display")


def check_screenshot(file: Path | None) -> None:
    """Refuse early a name under which no image can be written.

    Raises:
        UsageError: if it is that of no image.
        OutputError: if there is no permission or no room there.
    """
    from slam.io.files import check_writable

    if file is not None:
        if file.suffix.lower() not in IMAGES:
            raise UsageError(f"--screenshot {file}: the name must end in {', '.join(IMAGES)}")
        check_writable(file)


def find_window(options: argparse.Namespace) -> Any:
    """What makes the window or page; None where none is wanted, or none is possible and none was asked for by name.

    Raises:
        UsageError: if the screenshot has no name of an image, or there is no such viewer.
        OutputError: if no screenshot can be written.
        ViewerError: if a window or page was asked for by name, and there is none.
    """
    check_screenshot(options.screenshot)
    viewer, *port = (options.viewer or "open3d").split(":", 1)
    if viewer not in ("open3d", "web", "none") or (port and viewer != "web"):
        raise UsageError(f"--viewer {options.viewer}: must be open3d, web, web:PORT or none")
    if viewer == "web":
        return load_page(f"--viewer {options.viewer}", options.viewer_host, port[0] if port else None)
    if options.viewer_host is not None:
        raise UsageError("--viewer-host goes with --viewer web")
    if viewer == "none":
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


def load_page(option: str, host: str | None, port: str | None) -> Any:
    """What makes a page, where it can be served; WARNs if others than this computer reach it.

    Args:
        option: that asks for it, as it was given.
        port: None for any that is free.

    Raises:
        UsageError: if that is no port or host.
        ViewerError: if the port is taken, the host is not of this computer, or there is no viser.
    """
    if port is not None and not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"{option}: PORT must be a number from 0 (any that is free) to 65535")
    if host is not None and not host.strip():
        raise UsageError("the host of a page must not be empty; 127.0.0.1 is this computer alone, 0.0.0.0 is everybody")
    address = Address(host or LOCAL_HOST, None if port is None else int(port))
    address.free_port()
    page = import_page()
    if not address.is_local:
        log.warning("anyone who reaches %s can look at the page, and stop the run there", address.host)
    return partial(page, address=address)


def watched(window: Any, live: "LiveRun", stop: threading.Event, job: Callable[[], int]) -> int:
    """Do a job, a run with its results, on a thread of its own while the window has this one; the job's exit code.

    Closing the window sets `stop`; what goes wrong with the window does not end the job.

    Args:
        window: makes the window or page.
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
    command = own_program("apps.view", run, "--screenshot", file)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCREENSHOT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return ViewerError(f"no screenshot {file}: {error}")
    if done.returncode == 0:
        log.info("wrote %s", file)
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return ViewerError(f"no screenshot {file}: {lines[-1].removeprefix('v2d-view: ')}")

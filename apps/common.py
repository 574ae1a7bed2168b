"""What the programs share: logging, errors as one line, and ending when asked to."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from slam.errors import SlamError

INTERRUPTED = 130  # exit code, as shells have it


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """The options --quiet and --verbose."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="only warnings and errors")
    group.add_argument("--verbose", action="store_true", help="what happens to each frame")


def set_up_logging(options: argparse.Namespace) -> None:
    """Log to standard error at the level asked for; libraries stay at WARNING, and those below OpenCV silent.

    What OpenCV and FFmpeg say of damaged files comes again in our own words, with the name of the file.
    """
    for variable, level in (("OPENCV_LOG_LEVEL", "ERROR"), ("OPENCV_FFMPEG_LOGLEVEL", "8")):  # 8: fatal
        os.environ.setdefault(variable, level)  # before cv2 is imported
    clear = "\r\033[K" if sys.stderr.isatty() else ""  # the status line that may be shown there
    logging.basicConfig(format=f"{clear}%(levelname)s: %(message)s", level=logging.WARNING)
    for name in ("slam", "apps", "__main__"):
        logging.getLogger(name).setLevel(
            logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO
        )


def guarded(program: str, job: Callable[[], int]) -> int:
    """Run a job; an expected failure becomes one line and its exit code."""
    try:
        return job()
    except SlamError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # before the run began, or a second time
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def request(number: int, _: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What the programs share: logging, errors as one line, and ending when asked to."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from apps.environment import check_environment, lacks_memory
from apps.streams import forgiving_streams
from slam.errors import SlamError, without_secrets

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SIGNALLED = 128  # exit code, plus the number of the signal: as shells have it


class Interrupted(KeyboardInterrupt):
    """A signal has ended the program; what it was doing adds words on what there is of it to `args`."""

    def __init__(self, number: int, *words: str) -> None:
        super().__init__(*words)
        self.number = number


class Masked(logging.Formatter):
    """Of lines that tell no secret of an address."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return without_secrets(super().format(record))


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """The options --quiet and --verbose."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="only warnings and errors")
    group.add_argument("--verbose", action="store_true", help="what happens to each frame")


def add_map_number(parser: argparse.ArgumentParser) -> None:
    """The option --map."""
    parser.add_argument(
        "--map", type=int, default=1, metavar="N", help="of a run with several maps that nothing joined (default 1)"
    )


def set_up_logging(options: argparse.Namespace) -> None:
    """Log to standard error at the level asked for; libraries stay at WARNING, and those below OpenCV silent.

    What OpenCV and FFmpeg say of damaged files comes again in our own words, with the name of the file.
    """
    for variable, level in (("OPENCV_LOG_LEVEL", "ERROR"), ("OPENCV_FFMPEG_LOGLEVEL", "8")):  # 8: fatal
        os.environ.setdefault(variable, level)  # before cv2 is imported
    clear = "\r\033[K" if sys.stderr.isatty() else ""  # the status line that may be shown there
    handler = logging.StreamHandler()
    handler.setFormatter(Masked(f"{clear}%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for name in ("slam", "apps", "__main__"):
        logging.getLogger(name).setLevel(
            logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO
        )


def program(name: str, job: Callable[[], int], owns_process: bool) -> int:
    """What a program does, from its command line on; its exit code. Words that nobody takes end nothing, signals and
    expected failures become one line.

    Args:
        owns_process: False where it is called by another: what was interrupted then goes the usual way to its end.
    """
    with forgiving_streams(), interrupted_by_signals():
        code = guarded(name, lambda: checked(job))
        if owns_process and code > SIGNALLED:
            sys.stdout.flush()
            os._exit(code)  # threads of libraries that still work would crash it at a usual end
        return code


def checked(job: Callable[[], int]) -> int:
    """Do a job in an environment in which it can be done."""
    check_environment()
    return job()


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line, with logging set up as they say."""
    options = parser.parse_args(argv)
    set_up_logging(options)
    return options


def guarded(program: str, job: Callable[[], int]) -> int:
    """Run a job; an expected failure becomes one line and its exit code."""
    try:
        return job()
    except SlamError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interruption:  # before the run began, or a second time
        number = interruption.number if isinstance(interruption, Interrupted) else signal.SIGINT
        words = [f"{program}: interrupted by {signal.Signals(number).name}", *map(str, interruption.args)]
        print("; ".join(words), file=sys.stderr)
        return SIGNALLED + number
    except Exception as error:
        if not lacks_memory(error):
            raise
        print(
            f"{program}: there is not enough memory, or its limit (ulimit) is too low: {error!r:.200}", file=sys.stderr
        )
        return 1


@contextmanager
def stop_on_signals(again: Callable[[int], None] | None = None) -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP (its terminal was closed) set.

    Args:
        again: is called, with the number of the signal, at each Ctrl-C after that; None: it interrupts at once.
    """
    stop = threading.Event()

    def request(number: int, _: Any) -> None:
        if number == signal.SIGINT and stop.is_set():
            (again or interrupt)(number)
        stop.set()

    with handled(request):
        yield stop


def interrupt(number: int) -> None:
    """End what is done, as Ctrl-C does; raises Interrupted."""
    raise Interrupted(number)


def leave(number: int) -> NoReturn:
    """End the process within a handler, without its end: threads of libraries that still work would crash it there."""
    with suppress(OSError):
        os.write(2, f"interrupted by {signal.Signals(number).name}, at once\n".encode())
    os._exit(SIGNALLED + number)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP end what is done as Ctrl-C does."""

    with handled(lambda number, _: interrupt(number)):
        yield


@contextmanager
def handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Within it the signals that stop programs call the handler, but for those that whoever started us ignores."""
    found = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: old for number, old in found.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)

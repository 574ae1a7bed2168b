"""What the programs share: logging, and errors as one line."""

import argparse
import logging
import sys
from collections.abc import Callable

from slam.errors import SlamError


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """The options --quiet and --verbose."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="only warnings and errors")
    group.add_argument("--verbose", action="store_true", help="what happens to each frame")


def set_up_logging(options: argparse.Namespace) -> None:
    """Log to standard error at the level asked for; libraries stay at WARNING."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    level = logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO
    logging.getLogger("slam").setLevel(level)


def guarded(program: str, job: Callable[[], int]) -> int:
    """Run a job; an expected failure becomes one line and its exit code."""
    try:
        return job()
    except SlamError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code

"""Standard output and error that nothing depends on: a full disk, a closed pipe or terminal turns the words off."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Forgiving:
    """A text stream that a write which fails turns off."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; nobody hears of a failure."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it was closed
            self._turn_off()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines; as `write`."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush; as `write`."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._turn_off()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _turn_off(self) -> None:
        """What the stream still holds, and what libraries write there, goes to the null device."""
        with suppress(OSError, ValueError):  # of a stream that is no file
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()
            return
        self._stream = open(os.devnull, "w")  # noqa: SIM115  for the rest of the process


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Within it standard output and error are `Forgiving`, also where the process was started without (`>&-`)."""
    for number in range(3):  # else the next file that is opened is what libraries take for standard error
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, Forgiving(_usable(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _usable(stream: TextIO | None) -> TextIO:
    """The stream, which writes what its encoding lacks as escapes; the null device where there is none."""
    if stream is None:
        return open(os.devnull, "w")
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # a name of a file may hold anything
    return stream

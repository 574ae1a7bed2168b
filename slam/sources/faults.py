"""Faults of single frames, told once for each kind: a recording of 5000 damaged images is not 5000 lines."""

import logging
from collections import Counter

MAX_KINDS = 4  # told; a recording of more kinds of faults is told so


class Faults:
    """Warns of the first fault of each kind, counts the others, and gives their number at the end."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, message: str) -> None:
        """One more fault.

        Args:
            kind: the fault without what differs from frame to frame.
            message: the fault of this frame.
        """
        self._counts[kind] += 1
        is_told = self._counts[kind] == 1 and len(self._counts) <= MAX_KINDS
        self._log.log(logging.WARNING if is_told else logging.DEBUG, "%s", message)

    def end(self) -> None:
        """Give the numbers, and start anew."""
        kinds = list(self._counts.items())
        self._counts = Counter()
        for kind, count in kinds[:MAX_KINDS]:
            if count > 1:
                self._log.warning("%d times in all: %s", count, kind)
        if len(kinds) > MAX_KINDS:
            others = sum(count for _, count in kinds[MAX_KINDS:])
            self._log.warning("%d more faults of %d more kinds (--verbose names them)", others, len(kinds) - MAX_KINDS)

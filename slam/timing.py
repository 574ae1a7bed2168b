"""Time spent in the stages of a run."""

import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StageTime:
    """One line of the table."""

    name: str
    count: int
    median_ms: float
    p90_ms: float
    total_s: float


class StageTimes:
    """Durations by stage, in the order the stages were first seen."""

    def __init__(self) -> None:
        self._seconds: dict[str, array[float]] = {}  # 8 bytes each, of a run of hours

    def add(self, name: str, seconds: float) -> None:
        """Count one duration."""
        self._seconds.setdefault(name, array("d")).append(seconds)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)

    def add_all(self, seconds: dict[str, float], prefix: str = "") -> None:
        """Count one duration of each stage."""
        for name, duration in seconds.items():
            self.add(prefix + name, duration)

    def totals(self) -> dict[str, float]:
        """Seconds of each stage."""
        return {name: sum(seconds) for name, seconds in self._seconds.items()}

    def table(self) -> list[StageTime]:
        """A line for each stage."""
        return [
            StageTime(name, len(s), 1e3 * float(np.median(s)), 1e3 * float(np.quantile(s, 0.9)), float(np.sum(s)))
            for name, s in self._seconds.items()
        ]

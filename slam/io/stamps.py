"""Times as recordings write them: seconds with decimals, or whole seconds, milli-, micro- or nanoseconds.

A unit is a property of a column of numbers, not of one number: it is read from the whole column.
"""

import itertools
import re
from collections.abc import Sequence
from decimal import Decimal

from slam.errors import shown

SECOND_NS = 10**9
UNITS_NS = (SECOND_NS, 10**6, 10**3, 1)
UNIT_NAMES = {SECOND_NS: "seconds", 10**6: "milliseconds", 10**3: "microseconds", 1: "nanoseconds"}
EPOCH_S = (946_684_800, 4_102_444_800)  # the years 2000 to 2100: no two units share a number of that time
MIN_STEP_NS = 10**6  # between images, usually: 1000 a second
MAX_STEP_NS = 86_400 * SECOND_NS
MIN_GAP_NS, GAP_STEPS = 5 * SECOND_NS, 30  # a hole in a recording is longer than both
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


def is_number(text: str) -> bool:
    """True of a finite decimal number."""
    return NUMBER.fullmatch(text) is not None


def epoch_unit_ns(texts: Sequence[str]) -> int | None:
    """Nanoseconds in one unit of a column of Unix times; None if its numbers are none, or too close or far apart.

    Args:
        texts: numbers, see `is_number`; at least one.
    """
    values = sorted(Decimal(text) for text in texts)
    middle, step = values[len(values) // 2], _usual_step(values)
    for unit in UNITS_NS:
        if EPOCH_S[0] * SECOND_NS <= middle * unit < EPOCH_S[1] * SECOND_NS:
            plausible = step is None or MIN_STEP_NS <= step * unit <= MAX_STEP_NS
            return unit if plausible else None
    return None


def other_unit_ns(texts: Sequence[str]) -> int | None:
    """The same of a clock that starts anywhere; None if the numbers are counters.

    Decimals are seconds. Whole numbers are counters, unless they usually differ by more than counters do and by what
    micro- or nanoseconds would.
    """
    if any("." in text for text in texts):
        return SECOND_NS
    step = _usual_step(sorted(Decimal(text) for text in texts))
    if step is None or step < 2000:
        return None
    return 1 if step >= MIN_STEP_NS else 10**3


def times_ns(texts: Sequence[str], unit_ns: int) -> list[int]:
    """Numbers of a unit as nanoseconds, exactly (what is below one is rounded).

    Raises:
        ValueError: naming a text that is no finite number, or past the range of 64 bits.
    """
    return [to_ns(text, unit_ns) for text in texts]


def to_ns(text: str, unit_ns: int) -> int:
    """One number of a unit as nanoseconds; raises ValueError as `times_ns`."""
    if not is_number(text):
        raise ValueError(f"{shown(text)} is no time in {UNIT_NAMES[unit_ns]}")
    value = int((Decimal(text) * unit_ns).to_integral_value())
    if abs(value) >= 2**63:
        raise ValueError(f"{shown(text)} is no time in {UNIT_NAMES[unit_ns]} (a wrong column?)")
    return value


def order_of(times: Sequence[int]) -> tuple[list[int], int, int]:
    """Indices of a column of times in their order, without repeats of a time (the first of them stays).

    Returns:
        the indices, how many times lie before their predecessor, and how many repeat one.
    """
    order = sorted(range(len(times)), key=times.__getitem__)
    kept = [i for n, i in enumerate(order) if n == 0 or times[i] != times[order[n - 1]]]
    backwards = sum(after < before for before, after in itertools.pairwise(times))
    return kept, backwards, len(times) - len(kept)


def gap_remark(times: Sequence[int]) -> str:
    """What is to be said of holes in increasing times; empty if there are none."""
    steps = [after - before for before, after in itertools.pairwise(times)]
    if len(steps) < 2:
        return ""
    limit = max(MIN_GAP_NS, GAP_STEPS * sorted(steps)[len(steps) // 2])
    gaps = [step for step in steps if step > limit]
    if not gaps:
        return ""
    at = times[steps.index(max(gaps))] - times[0]
    number = f"{len(gaps)} gaps, the longest" if len(gaps) > 1 else "a gap"
    return (
        f"{number} of {max(gaps) / SECOND_NS:.6g} s, {at / SECOND_NS:.6g} s after the start: tracking may be lost there"
    )


def _usual_step(values: Sequence[Decimal]) -> Decimal | None:
    """The median difference of increasing numbers that differ; None if they are all equal."""
    steps = sorted(after - before for before, after in itertools.pairwise(values) if after > before)
    return steps[len(steps) // 2] if steps else None

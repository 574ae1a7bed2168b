"""What the names of a folder's images say of their order and their times.

One rule for every folder of images. The numbers of the names are columns of a table; the first column of Unix times
is the time, else a date with time of day, else a column of decimals (seconds), else there is none: the names count.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

from slam.io.stamps import SECOND_NS, epoch_unit_ns, gap_remark, order_of, other_unit_ns, times_ns

NUMBER = re.compile(r"\d+(?:\.\d+)?")
DATE = re.compile(  # 20260101_120000, 2026-01-01 12.00.00, PXL_20260101_120000123
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)[-_ T.]{0,3}(\d\d)[-_.:hH]?(\d\d)[-_.:mM]?(\d\d)"
    r"(?:[-_.,]?(\d{9}|\d{6}|\d{3}))?(?!\d)"
)
MIN_STEP_NS = 10**6  # dates whose last digits step by less are dates and a counter
MIN_FRACTION = 3  # digits, above which decimals of unequal length may be parts of a second, not counters
MAX_DIGITS = 40  # of a number in a name: more are a hash


@dataclass(frozen=True)
class NamedImages:
    """Images in their order, with their times if their names say any."""

    files: tuple[Path, ...]
    time_ns: tuple[int, ...] | None  # increasing; None: the names are counters, or words
    remarks: tuple[str, ...] = ()  # for the user, each to be said once


def by_name(files: Sequence[Path]) -> NamedImages:
    """Order images by the times in their names, else naturally (2 before 10).

    Where most names have times, images without are left out, and all but the first of one time.
    """
    natural = sorted(files, key=natural_key)
    shapes = [NUMBER.sub("#", file.stem.lower()) for file in natural]
    usual = Counter(shapes).most_common(1)[0][0] if shapes else ""
    alike = sorted((file for file, shape in zip(natural, shapes) if shape == usual), key=_numbers_of)
    times, remarks = _times([file.stem for file in alike])
    is_reread = bool(remarks)
    if times is None or 2 * len(alike) <= len(natural):
        return NamedImages(tuple(natural), None, tuple(remarks))
    if len(alike) < len(natural):
        other = next(file for file, shape in zip(natural, shapes) if shape != usual)
        remarks.append(
            f"{len(natural) - len(alike)} of {len(natural)} images are left out: their names have no time stamp like "
            f"the others (first: {other.name})"
        )
    order, backwards, repeats = order_of(times)
    if backwards and not is_reread:
        remarks.append(f"the stamps go back {backwards} times while the names count on: ordered by time")
    if repeats:
        left = next(file for i, file in enumerate(alike) if i not in set(order))
        remarks.append(f"{repeats} of {len(alike)} images repeat a time stamp and are left out (first: {left.name})")
    ordered = [times[i] for i in order]
    remarks += [remark for remark in [gap_remark(ordered)] if remark]
    return NamedImages(tuple(alike[i] for i in order), tuple(ordered), tuple(remarks))


def natural_key(file: Path) -> list[tuple[int, int, str]]:
    """Sort key by which runs of digits compare as numbers of any length."""
    parts = re.split(r"([0-9]+)", file.name.lower())
    return [(1, len(n := part.lstrip("0")), n) if part[:1].isdecimal() else (0, 0, part) for part in parts]


def _numbers_of(file: Path) -> list[Decimal]:
    """Sort key of names that differ in their numbers only."""
    return [Decimal(text) for text in NUMBER.findall(file.stem)]


def counter_of(file: Path) -> int | None:
    """The last whole number of a name, None without one."""
    numbers = re.findall(r"[0-9]+", file.stem)
    return int(numbers[-1][:MAX_DIGITS]) if numbers else None


def _times(stems: Sequence[str]) -> tuple[list[int] | None, list[str]]:
    """Times of names of the same shape, in the order of the names, and remarks."""
    columns = list(zip(*(NUMBER.findall(stem) for stem in stems)))
    if any(len(text) > MAX_DIGITS for column in columns for text in column):
        return None, []
    for n, column in enumerate(columns):
        unit = epoch_unit_ns(column)
        is_whole = all(text.isdecimal() for text in column)
        if unit == SECOND_NS and is_whole and n + 1 < len(columns):
            split = _seconds_and_fraction(column, columns[n + 1])
            if split is not None:
                return split
        if unit is not None and (len(set(column)) > 1 or len(stems) == 1):
            return _numbers(column, unit)
    dates = _dates(stems)
    if dates is not None:
        return dates
    for column in columns:
        unit = other_unit_ns(column)
        if unit is not None and (len(set(column)) > 1 or len(stems) == 1):
            return _numbers(column, unit)
    return None, []


def _numbers(column: Sequence[str], unit_ns: int) -> tuple[list[int] | None, list[str]]:
    """A column of numbers as times; decimals may be counters (1.9, 1.10), or parts of a second that lost the zeros in
    front of them (.99999999, .133333333)."""
    times = times_ns(column, unit_ns)
    decimals = [text.partition(".")[2] for text in column if "." in text]
    if len(decimals) < 2 or len(set(map(len, decimals))) < 2 or any(d.startswith("0") and d != "0" for d in decimals):
        return times, []
    if len(set(times)) < len(set(column)) and max(map(len, decimals)) < MIN_FRACTION:
        return None, ["names such as 1.1 and 1.10 differ but are equal as decimal numbers: they are taken as counters"]
    digits = -(-max(map(len, decimals)) // 3) * 3  # of milli-, micro-, nanoseconds
    whole = times_ns([f"{s}.{d.zfill(digits)}" for s, _, d in (text.partition(".") for text in column)], unit_ns)
    if digits > MIN_FRACTION and _unevenness(whole) < 0.5 * _unevenness(times):
        return whole, [
            "the decimals of the names differ in length: they are taken as whole parts of a second without the zeros "
            f"in front of them (.{min(decimals, key=len)} is .{min(decimals, key=len).zfill(digits)}), which makes "
            "even steps"
        ]
    if "0" in decimals:
        return times, []
    short = min(decimals, key=len)
    return times, [
        f"the decimals of the names differ in length and are read as decimal numbers (.{short} is "
        f"{times_ns(['0.' + short], SECOND_NS)[0] / 1e6:g} ms); if zeros were lost in front of them, rename the images"
    ]


def _unevenness(times: Sequence[int]) -> float:
    """Mean deviation of the steps between times from their median, over that median."""
    ordered = sorted(times)
    steps = [after - before for before, after in itertools.pairwise(ordered)]
    middle = sorted(steps)[len(steps) // 2]
    return sum(abs(step - middle) for step in steps) / (len(steps) * max(middle, 1))


def _seconds_and_fraction(seconds: Sequence[str], rest: Sequence[str]) -> tuple[list[int], list[str]] | None:
    """Names like 1551915398_633333333; None if the second number is no part of a second."""
    if not all(text.isdecimal() and len(text) <= 9 for text in rest):
        return None
    lengths = {len(text) for text in rest}
    scale = (
        10 ** (9 - lengths.pop()) if len(lengths) == 1 else 1
    )  # of unequal length: nanoseconds without zeros in front
    times = [int(whole) * SECOND_NS + int(part) * scale for whole, part in zip(seconds, rest)]
    steps = sorted(after - before for before, after in zip(sorted(times), sorted(times)[1:]))
    return (times, []) if steps and steps[len(steps) // 2] >= MIN_STEP_NS else None


def _dates(stems: Sequence[str]) -> tuple[list[int] | None, list[str]] | None:
    """Times of names with a date and a time of day; None if they have none."""
    times = []
    for stem in stems:
        match = DATE.search(stem)
        if match is None:
            return None
        try:
            moment = datetime(*(int(match[n]) for n in (1, 3, 4, 5, 6, 7)), tzinfo=timezone.utc)  # type: ignore[arg-type,misc]
        except ValueError:
            return None
        times.append(int(moment.timestamp()) * SECOND_NS + int((match[8] or "0").ljust(9, "0")))
    if len(set(times)) < len(times) and not any(time_ns % SECOND_NS for time_ns in times):
        return None, ["the names give the time only to the second, some the same: they are taken in their order"]
    steps = sorted(after - before for before, after in zip(sorted(times), sorted(times)[1:]))
    if steps and steps[len(steps) // 2] < MIN_STEP_NS:
        return None, []
    return times, []

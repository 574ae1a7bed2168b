"""Text with one thing to a line, as recordings have it: images by time, poses by time.

Columns are separated by commas, semicolons, tabs or blanks. Lines of `#` are comments, and the first line may name
the columns.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from slam.errors import SourceError, shown, warn_once
from slam.io.stamps import SECOND_NS, epoch_unit_ns, gap_remark, is_number, order_of, other_unit_ns, to_ns

T = TypeVar("T")
STAMP = re.compile(r"""\s*["']?([^\s,;"']*)["']?\s*(?:[,;]|\s|$)\s*(.*?)[\s,;]*$""")


def content_lines(text: str) -> list[tuple[int, str]]:
    """Number and text of the lines that are neither empty, comments, nor names of columns."""
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith(("#", "%", "//"))]
    if len(lines) < 2 or _starts_with_number(lines[0][1]) or not _starts_with_number(lines[1][1]):
        return lines
    is_headed = not any(map(is_number, columns(lines[0][1])))
    return lines[1:] if is_headed else lines


def columns(line: str) -> list[str]:
    """The columns of a line; of quoted text the content."""
    separator = next((mark for mark in (",", ";", "\t") if mark in line), " ")
    if separator == " " and not line.startswith(('"', "'")):
        return line.split()
    quote = "'" if line.startswith("'") else '"'
    try:
        row = next(csv.reader([line], delimiter=separator, quotechar=quote, skipinitialspace=True))
    except csv.Error:  # a column longer than any
        row = line.split(separator)
    return [column.strip() for column in row if column or separator != " "]


def stamp_and_rest(line: str) -> tuple[str, str]:
    """The first column, and what follows it as it stands (names of files may have blanks)."""
    match = STAMP.match(line)
    return (match[1], match[2]) if match is not None else (line, "")


def in_time(
    file: Path, stamps: Sequence[tuple[int, str]], rows: Sequence[T], expected: str, unit_ns: int = SECOND_NS
) -> list[tuple[int, T]]:
    """Rows with their times, increasing; what was out of order, or repeats a time, is told once.

    Args:
        stamps: line and text of the time of each row.
        expected: what a line should be, for messages.
        unit_ns: of numbers that do not show their unit: small whole ones.

    Raises:
        SourceError: naming the line whose time is none.
    """
    for number, text in stamps:
        if not is_number(text):
            raise SourceError(f"{file}, line {number}: {shown(text)} is no time; expected {expected}")
    texts = [text for _, text in stamps]
    if texts:
        unit_ns = epoch_unit_ns(texts) or other_unit_ns(texts) or unit_ns
    times = []
    for number, text in stamps:
        try:
            times.append(to_ns(text, unit_ns))
        except ValueError as error:
            raise SourceError(f"{file}, line {number}: {error}; expected {expected}") from error
    order, backwards, repeats = order_of(times)
    if backwards:
        first = next(n for n in range(1, len(times)) if times[n] < times[n - 1])
        warn_once(f"{file} goes back in time {backwards} times (first: line {stamps[first][0]}): sorted")
    if repeats:
        kept = set(order)
        first = next(n for n in range(len(times)) if n not in kept)
        line = stamps[first][0]
        warn_once(f"{file}: {repeats} of {len(times)} lines repeat a time and are left out (first: line {line})")
    gap = gap_remark([times[i] for i in order])
    if gap:
        warn_once(f"{file} has {gap}")
    return [(times[i], rows[i]) for i in order]


def _starts_with_number(line: str) -> bool:
    return is_number(stamp_and_rest(line)[0])

"""What the containers of videos say of themselves, where OpenCV does not pass it on: is the file whole, is it trimmed.

References: ISO/IEC 14496-12 (MP4, MOV), RFC 8794 and RFC 9559 (Matroska, WebM), Microsoft's RIFF (AVI).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slam.reading import open_file

ISO_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")  # boxes that MP4 and MOV begin with
EBML, SEGMENT = 0x1A45DFA3, 0x18538067


@dataclass(frozen=True)
class Container:
    """What was found."""

    kind: str  # iso, matroska or riff; empty: another one, of which nothing is known
    is_cut_off: bool = False
    has_index: bool = True  # an MP4 without one cannot be read
    shown: float = 1.0  # the share of its frames that an edit list leaves, as trimming without encoding writes it


@dataclass(frozen=True)
class Box:
    """A box of MP4: its data is from `begin` to `end`, which may lie past the end of the file."""

    kind: bytes
    begin: int
    end: int


def examine(path: Path) -> Container:
    """Look at the structure of a video file; raises OSError."""
    size = path.stat().st_size
    with open_file(path) as file:
        head = file.read(64)
        if head[4:8] in ISO_FIRST:
            return _iso(file, size)
        if int.from_bytes(head[:4], "big") == EBML:
            return Container("matroska", _matroska_end(head, file) > size)
        if head[:4] in (b"RIFF", b"RIFX"):
            stated = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
            return Container("riff", stated == 0 or stated + 8 > size)
    return Container("")


def _iso(file: BinaryIO, size: int) -> Container:
    boxes = list(_boxes(file, 0, size))
    kinds = [box.kind for box in boxes]
    is_cut_off = bool(boxes) and boxes[-1].end > size
    movie = next((box for box in boxes if box.kind == b"moov" and box.end <= size), None)
    if movie is None:
        return Container("iso", is_cut_off or b"mdat" not in kinds, has_index=False)
    return Container("iso", is_cut_off, shown=_shown(file, movie))


def _shown(file: BinaryIO, movie: Box) -> float:
    """The share of the video track that its edit list shows."""
    header = _inside(file, movie, b"mvhd")
    for track in (box for box in _boxes(file, movie.begin, movie.end) if box.kind == b"trak"):
        handler = _inside(file, track, b"mdia", b"hdlr")
        edits, media = _inside(file, track, b"edts", b"elst"), _inside(file, track, b"mdia", b"mdhd")
        if header is None or media is None or edits is None or handler is None or _data(file, handler)[8:12] != b"vide":
            continue
        movie_scale, _ = _duration(_data(file, header))
        media_scale, units = _duration(_data(file, media))
        shown = _edited(_data(file, edits))
        if movie_scale and media_scale and units and shown:
            return min(1.0, shown / movie_scale / (units / media_scale))
    return 1.0


def _duration(data: bytes) -> tuple[int, int]:
    """Units per second and their number, of an mvhd or mdhd."""
    if data[:1] == b"\1":
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[24:32], "big")
    return int.from_bytes(data[12:16], "big"), int.from_bytes(data[16:20], "big")


def _edited(data: bytes) -> int:
    """Duration of the edits that show something, in units of the movie."""
    width = 8 if data[:1] == b"\1" else 4
    total = 0
    for entry in range(8, len(data) - 2 * width, 2 * width + 4):
        duration = int.from_bytes(data[entry : entry + width], "big")
        begin = int.from_bytes(data[entry + width : entry + 2 * width], "big", signed=True)
        total += duration if begin >= 0 else 0  # -1: nothing is shown
    return total


def _inside(file: BinaryIO, box: Box, *kinds: bytes) -> Box | None:
    """The first box of a kind in a box, and in that of the next kind."""
    found: Box | None = box
    for kind in kinds:
        found = (
            None if found is None else next((b for b in _boxes(file, found.begin, found.end) if b.kind == kind), None)
        )
    return found


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[Box]:
    position = begin
    while position + 8 <= end:
        file.seek(position)
        head = file.read(16)
        size, kind, first = int.from_bytes(head[:4], "big"), head[4:8], position + 8
        if size == 1:
            size, first = int.from_bytes(head[8:16], "big"), position + 16
        elif size == 0:  # to the end of the file
            size = end - position
        if size < first - position:
            return
        yield Box(kind, first, position + size)
        position += size


def _data(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.begin)
    return file.read(min(box.end - box.begin, 1 << 20))


def _matroska_end(head: bytes, file: BinaryIO) -> int:
    """Where the segment with the frames ends; 0 if it does not say, as in streams."""
    header_size, position = _number(head, 4)
    file.seek(position + header_size)
    segment = file.read(16)
    if int.from_bytes(segment[:4], "big") != SEGMENT:
        return 0
    size, length = _number(segment, 4)
    return 0 if size < 0 else position + header_size + length + size


def _number(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, -1 if it means that it is not known, and the position after it."""
    first = data[position] if position < len(data) else 0
    length = 9 - first.bit_length() if first else 8
    value = int.from_bytes(data[position : position + length], "big") & ((1 << (7 * length)) - 1)
    return (-1 if value == (1 << (7 * length)) - 1 else value), position + length

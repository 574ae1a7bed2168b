"""The size that the header of an image file states, before anything of it is decoded.

A file of a few kilobytes can state, and become, more pixels than there is memory.

References: ISO/IEC 15948 (PNG), ITU-T T.81 (JPEG), T.800 (JPEG 2000), TIFF 6.0, RFC 9649 (WebP), netpbm.sourceforge.net
(PNM), openexr.com (OpenEXR).
"""

import re
import struct
from collections.abc import Callable

MAX_PIXELS = 1 << 26  # 8192x8192: a camera of 61 million pixels, and 0.4 GB of colours in 16 bits
HEAD = 1 << 16  # bytes among which headers lie, that of JPEG excepted
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG that state a size
NUMBER_OR_NOTE = rb"(?:\s|#[^\n]*\n)+(\d{1,9})"
PNM = re.compile(rb"P[1-6Ff]" + 2 * NUMBER_OR_NOTE)
WINDOWS = re.compile(rb"dataWindow\0box2i\0.{4}(.{16})", re.DOTALL)
RADIANCE = re.compile(rb"[-+]Y (\d{1,9}) [-+]X (\d{1,9})")


class TooLargeError(ValueError):
    """An image has more than MAX_PIXELS."""


def check_size(data: bytes) -> None:
    """Refuse an image file that states no size, or one that is not to be decoded.

    Raises:
        ValueError: saying so in a few words.
    """
    size = stated_size(data)
    if size is None:
        raise ValueError("it is damaged, or of a kind that OpenCV cannot read")
    check_pixels(*size)


def check_pixels(width: int, height: int) -> None:
    """Refuse a size of more than MAX_PIXELS; raises TooLargeError."""
    if width * height > MAX_PIXELS:
        raise TooLargeError(
            f"it is {width}x{height}: images of more than {MAX_PIXELS // 10**6} million pixels are not read; make it "
            "smaller"
        )


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of an image file by its header; None if it has none, or is of a kind that is not known."""
    for magic, read in READERS.items():
        if data.startswith(magic):
            try:
                size = read(data)
            except (struct.error, IndexError):
                return None
            return size if size is not None and min(size) > 0 else None
    return None


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    is_old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if is_old else "<ii", data, 18)
    return width, abs(height)


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data.startswith(b"II") else ">"
    is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (begin,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, begin)
    step, first, value = (20, begin + 8, 12) if is_big else (12, begin + 2, 8)
    tags = {}
    for at in range(first, min(first + step * count, len(data)), step):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if tag in (256, 257):
            tags[tag] = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + value)[0]
    return (tags[256], tags[257]) if len(tags) == 2 else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16] if len(data) >= 30 else b""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _pnm(data: bytes) -> tuple[int, int] | None:
    match = PNM.match(data, 0, HEAD)
    return (int(match[1]), int(match[2])) if match is not None else None


def _jpeg_2000(data: bytes) -> tuple[int, int] | None:
    at = data.find(b"\xff\x4f\xff\x51", 0, HEAD)
    if at < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return right - left, bottom - top


def _exr(data: bytes) -> tuple[int, int] | None:
    windows = [struct.unpack("<iiii", window) for window in WINDOWS.findall(data, 0, HEAD)]
    sizes = [(right - left + 1, bottom - top + 1) for left, top, right, bottom in windows]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _radiance(data: bytes) -> tuple[int, int] | None:
    match = RADIANCE.search(data, 0, HEAD)
    return (int(match[2]), int(match[1])) if match is not None else None


READERS: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8": _jpeg,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"RIFF": _webp,
    **{b"P" + kind: _pnm for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"F", b"f")},
    b"\0\0\0\x0cjP  ": _jpeg_2000,
    b"\xff\x4f\xff\x51": _jpeg_2000,
    b"\x76\x2f\x31\x01": _exr,
    b"GIF8": _gif,
    b"#?": _radiance,
}

"""The bytes of image files, decoded by OpenCV.

The libraries below OpenCV fill what is missing with gray, and tell what is damaged to the terminal only. Damage that
shows in the structure of a JPEG or PNG is refused before. A few wrong bits in the middle of a JPEG do not show there.

References: ITU-T T.81 annex B (JPEG), ISO/IEC 15948 (PNG).
"""

import zlib

import cv2
import numpy as np

from slam.io.image_size import check_size

PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
START_OF_SCAN, END = 0xDA, b"\xff\xd9"
# behind pixels: tables, another scan, the number of lines, the end, data of programs
AFTER_SCAN = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xD9, *range(0xE0, 0xF0), 0xFE}


def decoded(data: bytes, flags: int) -> np.ndarray:
    """The pixels of an image file as OpenCV gives them for its IMREAD flags.

    Raises:
        ValueError: saying in a few words what is wrong with it.
    """
    if not data:
        raise ValueError("it is empty")
    if data.startswith(PNG_MAGIC) and not _is_whole_png(data):
        raise ValueError("it is damaged")
    if data.startswith(JPEG_MAGIC):
        _check_jpeg(data)
    check_size(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # such as a header that claims more pixels than OpenCV's limit
        pixels = None
    if pixels is None:
        raise ValueError("it is damaged, or of a kind that OpenCV cannot read")
    return np.asarray(pixels)


def _check_jpeg(data: bytes) -> None:
    """Follow the segments to the end; raises ValueError. What lies behind the end (as previews do) is not looked at."""
    octets = np.frombuffer(data, np.uint8)
    at_ff = np.flatnonzero(octets[:-1] == 0xFF)
    following = octets[at_ff + 1]
    is_marker = (following != 0x00) & (following != 0xFF)  # 0: the pixels have a byte ff; ff: one to fill up
    places, marks = at_ff[is_marker], following[is_marker]
    at = len(JPEG_MAGIC)
    while data[at : at + 2] != END:
        if data[at : at + 2] == b"\xff\xff":
            at += 1
            continue
        if data[at : at + 1] != b"\xff" or at + 4 > len(data):
            raise ValueError("it is cut off" if at + 4 > len(data) else "it is damaged")
        is_scan = data[at + 1] == START_OF_SCAN
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if is_scan:
            first = int(np.searchsorted(places, at))
            restarts = int(np.argmin(np.append((marks[first:] & 0xF8) == 0xD0, False)))
            counted = marks[first : first + restarts] & 7
            is_end = first + restarts == len(marks)
            if (counted != np.arange(restarts) % 8).any() or not (is_end or marks[first + restarts] in AFTER_SCAN):
                raise ValueError("it is damaged")
            at = len(data) if is_end else int(places[first + restarts])


def _is_whole_png(data: bytes) -> bool:
    """True if all parts are there and their sums right."""
    at, name = len(PNG_MAGIC), b""
    while name != b"IEND":
        size = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data) or zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(
            data[end - 4 : end], "big"
        ):
            return False
        at = end
    return True

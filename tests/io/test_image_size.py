"""Sizes of images by their headers, before anything is decoded: those of OpenCV's own files, and of bombs."""

import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from slam.errors import SourceError
from slam.io.image_data import decoded
from slam.io.image_size import MAX_PIXELS, stated_size
from slam.io.images import read_color

SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".pfm", ".hdr")


def encoded(suffix: str, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    if suffix in (".pgm", ".pbm"):
        pixels = pixels[..., 0]
    done, data = cv2.imencode(suffix, pixels.astype(np.float32) if suffix in (".hdr", ".pfm") else pixels)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_stated_size_is_that_of_the_pixels(suffix):
    """An odd and a large side, so that neither is a byte, and neither order of bytes is right by chance."""
    for width, height in ((333, 70), (519, 262)):
        data = encoded(suffix, width, height)
        assert stated_size(data) == (width, height)
        assert decoded(data, cv2.IMREAD_UNCHANGED).shape[:2] == (height, width)
        for length in range(0, 64, 7):
            size = stated_size(data[:length])
            assert size in (None, (width, height))


@pytest.mark.parametrize("mode", [cv2.IMWRITE_WEBP_QUALITY, None])
def test_both_kinds_of_webp(mode):
    options = [] if mode is None else [mode, 101]  # above 100: lossless
    data = cv2.imencode(".webp", np.zeros((300, 40, 3), np.uint8), options)[1].tobytes()
    assert stated_size(data) == (40, 300)


def test_other_forms_of_headers():
    note = b"P5 # made\n# by hand\n40\t30\n255\n" + bytes(1200)
    assert stated_size(note) == (40, 30)
    core = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 40, 30, 1, 24)
    assert stated_size(core) == (40, 30)
    upside_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 40, -30)
    assert stated_size(upside_down) == (40, 30)
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in ((256, 70000), (257, 30)))
    assert stated_size(b"MM\0*" + struct.pack(">IH", 8, 2) + entries) == (70000, 30)
    big = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in ((256, 70000), (257, 30)))
    assert stated_size(b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2) + big) == (70000, 30)
    assert stated_size(b"GIF89a" + struct.pack("<HH", 40, 30)) == (40, 30)
    windows = b"dataWindow\0box2i\0" + struct.pack("<Iiiii", 16, -10, 5, 29, 34)
    assert stated_size(b"\x76\x2f\x31\x01\2\0\0\0channels\0" + windows) == (40, 30)
    assert stated_size(b"no image") is None


def bomb(width: int, height: int) -> bytes:
    """A whole PNG of black pixels, a thousandth of their size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compressobj(9)
    data = b"".join([*(rows.compress(bytes(1 + 3 * width)) for _ in range(height)), rows.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    (tmp_path / "a.png").write_bytes(bomb(9000, 9000))
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"a\.png: it is 9000x9000: images of more than 67 million pixels"):
        read_color(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert MAX_PIXELS > 61_000_000  # of the cameras that one can buy


def test_just_below_the_limit_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(bomb(20000, 100))
    assert read_color(tmp_path / "a.png").shape == (100, 20000, 3)

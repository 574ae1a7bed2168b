"""Memory that is free goes back to the system although blocks in use lie between."""

import ctypes
import sys

import numpy as np
import psutil
import pytest

from slam.memory import release_freed


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no C library of GNU"
)
def test_what_was_freed_between_blocks_in_use_is_given_back():
    before = resident_mb()
    blocks = [np.ones(2**14, np.uint8) for _ in range(6400)]  # 100 MB in blocks too small for pages of their own
    kept = blocks[::64]
    del blocks
    assert resident_mb() > before + 60  # else nothing is shown
    release_freed()
    assert resident_mb() < before + 20 and all(block.all() for block in kept)


def test_it_may_be_called_anywhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    release_freed()

"""Memory that is free goes back to the system although blocks in use lie between."""

import ctypes
import subprocess
import sys

import pytest

from slam.memory import release_freed
from slam.processes import own_python

# 100 MB in blocks too small for pages of their own, of which few stay; printed: resident MB at each step
SCATTERED = """
import numpy as np, psutil
from slam.memory import release_freed
resident_mb = lambda: psutil.Process().memory_info().rss / 2**20
print(resident_mb())
blocks = [np.ones(2**14, np.uint8) for _ in range(6400)]
kept = blocks[::64]
del blocks
print(resident_mb())
release_freed()
print(resident_mb())
assert all(block.all() for block in kept)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no C library of GNU"
)
def test_what_was_freed_between_blocks_in_use_is_given_back():
    """In a process of its own: the heap of this one may have room for all."""
    said = subprocess.run(own_python(SCATTERED), check=True, capture_output=True, text=True).stdout
    before, held, after = (float(line) for line in said.split())
    assert held > before + 60  # else nothing is shown
    assert after < before + 20


def test_it_may_be_called_anywhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    release_freed()

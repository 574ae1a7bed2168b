"""Frames held back by a pause, and what a camera does meanwhile."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.sources.feed import Feed

CAMERA = Camera(8, 8, 10.0, 10.0, 3.5, 3.5)


class Counter:
    """Numbered frames; a live one makes a frame every 5 ms until it is closed."""

    def __init__(self, count: int, live: bool) -> None:
        self.live, self.camera, self.count, self.skipped = live, CAMERA, count, 0
        self.given = 0
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for n in range(10**6 if self.live else self.count):
            if self._closed.wait(0.005 if self.live else 0):
                return
            self.given = n + 1
            yield Frame(n, n * 10**6, np.zeros((8, 8, 3), np.uint8), CAMERA)

    def close(self) -> None:
        """No more frames."""
        self._closed.set()


@pytest.mark.parametrize("threads", [False, True])
def test_a_paused_recording_loses_no_frame(threads: bool) -> None:
    gate = threading.Event()
    feed = Feed(Counter(20, live=False), threads, pause=gate.wait)
    taken: list[int] = []
    reader = threading.Thread(target=lambda: taken.extend(frame.id for frame in feed))
    reader.start()
    time.sleep(0.05)
    assert taken == []
    gate.set()
    reader.join(5)
    feed.close()
    assert taken == list(range(20)) and feed.dropped == 0


def test_after_a_pause_a_camera_goes_on_with_its_newest_frame() -> None:
    gate, source = threading.Event(), Counter(0, live=True)
    gate.set()
    feed = Feed(source, pause=gate.wait)
    frames = iter(feed)
    first = next(frames)
    gate.clear()
    threading.Timer(0.2, gate.set).start()
    after = next(frames)
    assert after.id - first.id > 15 and source.given - after.id < 10
    assert feed.dropped >= after.id - first.id - 2
    feed.close()


def test_a_stopped_feed_ends_though_frames_are_left() -> None:
    stopped = threading.Event()
    feed = Feed(Counter(20, live=False), stopped=stopped.is_set)
    frames = iter(feed)
    next(frames)
    stopped.set()
    assert list(frames) == []
    feed.close()

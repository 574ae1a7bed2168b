"""Frames of a source for the tracking thread: read ahead, or the newest one of a camera, and held back by a pause."""

from collections.abc import Callable, Iterator

from slam.frames import Frame
from slam.sources import Source
from slam.threads import Reader


class Feed:
    """Iterates over the frames of a source until its end, or until `stopped`."""

    def __init__(
        self,
        source: Source,
        threads: bool = True,
        stopped: Callable[[], bool] = lambda: False,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """Start reading.

        Args:
            threads: read on a thread of its own; a camera always is.
            stopped: asked before each frame, and while a camera gives none.
            pause: called before each frame is taken; may wait. Of a camera the newest frame after it is taken.
        """
        self._source = source
        self._stopped = stopped
        self._pause = pause
        self._reader = Reader(source, source.live, stopped=stopped) if threads or source.live else None

    @property
    def dropped(self) -> int:
        """Frames of a camera that were not taken in time."""
        return self._reader.dropped if self._reader is not None else 0

    @property
    def skipped(self) -> int:
        """Frames that could not be read."""
        return self._source.skipped

    def __iter__(self) -> Iterator[Frame]:
        frames = iter(self._reader if self._reader is not None else self._source)
        while True:
            self._pause()
            frame = next(frames, None)
            if frame is None or self._stopped():
                return
            yield frame

    def close(self) -> None:
        """End reading; a camera is closed, since it may be waiting for its next frame."""
        if self._source.live:
            self._source.close()
        if self._reader is not None:
            self._reader.close()

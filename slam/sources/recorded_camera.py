"""A camera whose frames are kept as they come."""

from collections.abc import Iterator

from slam.frames import Frame
from slam.io.recorder import Recorder
from slam.sources import Source


class RecordedCamera:
    """A source whose frames go to a recorder as they come, those included that tracking has no time for.

    The recorder stays open when this is closed: frames may still be under way.
    """

    def __init__(self, source: Source, recorder: Recorder) -> None:
        self.live = source.live
        self.camera = source.camera
        self.count = source.count
        self._source = source
        self._recorder = recorder

    @property
    def skipped(self) -> int:
        """As the source says."""
        return self._source.skipped

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            self._recorder.add(frame)
            yield frame

    def close(self) -> None:
        """Close the source."""
        self._source.close()

"""The full-size pictures of a run from its source, undistorted once."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np

from slam.errors import SourceError
from slam.frames import Frame
from slam.frontend.preparation import pinhole_of
from slam.geometry.camera import Camera, undistortion_map
from slam.io.run import KeyframeRecord, Run
from slam.sources.reopen import reopened

log = logging.getLogger(__name__)

SAME_CAMERA_PX = 0.01


class Pictures:
    """The images of a source at full size, or smaller, as a pinhole camera would have taken them."""

    def __init__(self, run: Run, max_size: int | None = None) -> None:
        """Open the source of a run again.

        Args:
            max_size: of the longer side, pixels; None: as they are.

        Raises:
            SourceError: if the source is gone, or `run.json` is missing.
        """
        self._run = run
        self._source = reopened(replace(run.record().source, with_depth=False, depth_scale=None))
        lens = self._source.camera
        self._pinhole = pinhole_of(lens)
        longer = max(lens.width, lens.height)
        shrink = 1.0 if max_size is None else min(1.0, max_size / longer)
        self.camera = self._pinhole.resized(*(max(round(shrink * side), 1) for side in (lens.width, lens.height)))
        self._maps = None
        if lens.is_distorted or lens.undistort_hfov_deg is not None:
            uv = undistortion_map(lens, self._pinhole).numpy().astype(np.float32)
            self._maps = cv2.convertMaps(uv, None, cv2.CV_16SC2)

    def at(self, records: Sequence[KeyframeRecord]) -> Iterator[tuple[KeyframeRecord, np.ndarray]]:
        """Each of the keyframes whose frame the source delivers, with its picture (H, W, 3) uint8 RGB, in time.

        Frames that are no longer there are counted in a WARNING.

        Raises:
            SourceError: if none is there, or the keyframes are of another camera.
        """
        check_camera(self._pinhole, records, self._run)
        wanted = {record.time_ns: record for record in records}
        last_ns, found = max(wanted), 0
        with closing(self._source):
            for frame in self._source:
                if frame.time_ns in wanted:
                    found += 1
                    yield wanted[frame.time_ns], self.undistorted(frame)
                if frame.time_ns >= last_ns:
                    break
        name = self._run.record().source.name
        if not found:
            raise SourceError(
                f"{name} has none of the frames of {self._run.path}: it has changed since; track it again"
            )
        if found < len(wanted):
            log.warning(
                "%s no longer has %d of the %d keyframes: they are left out", name, len(wanted) - found, len(wanted)
            )

    def undistorted(self, frame: Frame) -> np.ndarray:
        """The image of a frame as `self.camera` sees it."""
        image = frame.image
        if self._maps is not None:
            image = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        size = (self.camera.width, self.camera.height)
        return image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()


def check_camera(pinhole: Camera, records: Sequence[KeyframeRecord], run: Run) -> None:
    """Refuse keyframes that are not of a pinhole camera resized; raises SourceError."""
    for record in records:
        expected = pinhole.resized(record.width, record.height).matrix().numpy()
        if np.abs(expected - np.array(record.K)).max() > SAME_CAMERA_PX:
            raise SourceError(
                f"keyframe {record.id} of {run.path} is not of the camera that its run.json names: its pictures "
                "cannot be made again; run v2d-slam again"
            )

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
SAME_IMAGE = 6.0  # mean difference, gray levels: resizing makes up to 2.5, the next keyframe 7 and more


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

        Frames that are no longer there, or are others now, are counted in a WARNING.

        Raises:
            SourceError: if none is there, or the keyframes are of another camera.
        """
        records = own(records, self._run)
        check_camera(self._pinhole, records, self._run)
        wanted = {record.time_ns: record for record in records}
        last_ns, found = max(wanted), 0
        with closing(self._source):
            for frame in self._source:
                if frame.time_ns in wanted:
                    record, picture = wanted[frame.time_ns], self.undistorted(frame)
                    if is_of(picture, self._run.image(record)):
                        found += 1
                        yield record, picture
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


def own(records: Sequence[KeyframeRecord], run: Run) -> list[KeyframeRecord]:
    """The keyframes of a run without those of the earlier map that it went on in, which are counted in a WARNING.

    Raises:
        SourceError: if there are no others.
    """
    found = [record for record in records if not record.is_earlier]
    if not found:
        raise SourceError(f"all keyframes of {run.path} are of the map that it went on in; export the run of that map")
    if len(found) < len(records):
        log.warning(
            "%d of the %d keyframes are of the map that %s went on in, not of its recording: they are left out",
            len(records) - len(found),
            len(records),
            run.path,
        )
    return found


def is_of(picture: np.ndarray, image: np.ndarray) -> bool:
    """True if a picture (H, W, 3) is what the image (h, w, 3) of a keyframe was made of, both uint8."""
    size = min(picture.shape[1], image.shape[1]), min(picture.shape[0], image.shape[0])
    first, second = (cv2.resize(one, size, interpolation=cv2.INTER_AREA).astype(np.float32) for one in (picture, image))
    return float(np.abs(first - second).mean()) <= SAME_IMAGE


def check_camera(pinhole: Camera, records: Sequence[KeyframeRecord], run: Run) -> None:
    """Refuse keyframes that are not of a pinhole camera resized; raises SourceError."""
    for record in records:
        expected = pinhole.resized(record.width, record.height).matrix().numpy()
        if np.abs(expected - np.array(record.K)).max() > SAME_CAMERA_PX:
            raise SourceError(
                f"keyframe {record.id} of {run.path} is not of the camera that its run.json names: its pictures "
                "cannot be made again; run v2d-slam again"
            )

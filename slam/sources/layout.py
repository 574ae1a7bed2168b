"""A recording of a known layout: its listed images, its camera, its depth and its truth; one file for each layout."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam.errors import SourceError, UsageError
from slam.frames import Trajectory
from slam.geometry.camera import Camera
from slam.io.folders import entries, is_file
from slam.io.poses import FramePoses
from slam.sources.sequence import (
    ALL_FRAMES,
    DEFAULT_FPS,
    OWN_CAMERA,
    CameraChoice,
    DepthFormat,
    FrameWindow,
    ImageSequence,
    ListedImage,
    frame_time_ns,
)

log = logging.getLogger(__name__)

CALIBRATION = "calibration.yaml"  # in the folder of a recording it replaces what its layout knows
MAX_SPREAD = 0.01  # of the focal lengths of a recording, relative


@dataclass(frozen=True, eq=False)
class Recording:
    """What a layout finds in a folder."""

    path: Path
    images: Sequence[ListedImage]  # increasing in time, with their depth where there is some
    cameras: Callable[[int, int], Sequence[Path | Camera]]  # calibrations for images of a width and height, best first
    depth: DepthFormat | None = None
    truth: Callable[[], Trajectory | FramePoses] | None = None  # T_wc of the camera; FramePoses: by index of `images`


class LayoutSource(ImageSequence):
    """Frames of a recording of a known layout."""

    def __init__(
        self,
        recording: Recording,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        with_depth: bool = False,
        depth_scale: float | None = None,
    ) -> None:
        """Choose the frames and find the camera.

        Raises:
            UsageError: if depth is asked for and there is none.
            SourceError: if nothing is readable.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        name = str(recording.path)
        depth = recording.depth if with_depth else None
        if with_depth and (depth is None or all(image.depth is None for image in recording.images)):
            raise UsageError(f"{name} has no depth to use")
        without = sum(image.depth is None for image in recording.images)
        if with_depth and without:
            log.warning("%d of %d images of %s go without depth", without, len(recording.images), name)

        def camera(width: int, height: int) -> Camera:
            beside = recording.path / CALIBRATION
            is_known = choice.is_given or beside.is_file()
            return choice.camera(width, height, [beside] if is_known else recording.cameras(width, height), name)

        depth = None if depth is None else depth.rescaled(depth_scale, name)
        super().__init__(name, recording.images, window, camera, depth)


def numbered(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """Files of a folder whose name matches a regular expression, with the number that its group is, in that order."""
    found = ((re.fullmatch(pattern, file.name), file) for file in entries(folder))
    return sorted((int(match[1]), file) for match, file in found if match is not None)


def at_rate(images: Iterable[tuple[Path, Path | None]]) -> list[ListedImage]:
    """Images, each with its depth where it has one, one after the other at the default rate."""
    return [ListedImage(frame_time_ns(i, DEFAULT_FPS), image, depth) for i, (image, depth) in enumerate(images)]


def first_existing(*paths: Path) -> Path | None:
    """The first of these files that exists."""
    return next((path for path in paths if is_file(path)), None)


def require(path: Path | None, message: str) -> Path:
    """A path that was found; raises SourceError with this message if it was not."""
    if path is None:
        raise SourceError(message)
    return path


def usual_intrinsics(values: np.ndarray, name: str) -> tuple[float, ...]:
    """fx fy cx cy of a recording whose frames (N, 4) each have their own: the medians; a WARNING where they vary."""
    with np.errstate(all="ignore"):  # numbers that cannot be are refused with the camera
        spread = float(np.ptp(values[:, 0]) / np.median(values[:, 0]))
    if MAX_SPREAD < spread < np.inf:
        log.warning("%s: the focal length varies by %.1f %% over the frames; its median is used", name, 100 * spread)
    return tuple(np.median(values, axis=0).tolist())

"""A source whose images are stretched, cropped and masked before anything else sees them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from slam.errors import UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.images import read_color, stretched
from slam.io.run_record import Conditioning
from slam.sources import Source
from slam.sources.sequence import ImageSequence, camera_from_hfov, typical_camera
from slam.sources.survey import SAMPLES, Survey, survey

log = logging.getLogger(__name__)

FIRST_FRAMES, STEP = 64, 4  # of a source that cannot be searched: every fourth of the first is looked at
SAME_SHAPE = 0.02  # relative difference of the aspects of a mask and of the images


@runtime_checkable
class Sampled(Protocol):
    """A recording that shows images from all over it."""

    name: str

    def sampled(self, count: int) -> list[np.ndarray]:
        """Up to `count` images (H, W, 3) spread over the whole."""
        ...


class ConditionedSource:
    """The frames of another source, stretched, cropped and masked."""

    def __init__(self, source: Source, conditioning: Conditioning, camera: Camera, mask: np.ndarray | None) -> None:
        """Use `conditioned` or `reconditioned`.

        Args:
            camera: of the images as they will be.
            mask: (H, W) bool of the images as they will be, True where they show the scene.
        """
        self.source = source
        self.conditioning = conditioning
        self.camera = camera
        self.mask = mask
        self._levels = conditioning.levels
        if isinstance(source, ImageSequence):  # which stretches while there are all bits
            source.levels, self._levels = conditioning.levels, None

    @property
    def live(self) -> bool:
        """See `Source`."""
        return self.source.live

    @property
    def count(self) -> int | None:
        """See `Source`."""
        return self.source.count

    @property
    def skipped(self) -> int:
        """See `Source`."""
        return self.source.skipped

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.source:
            image, depth = frame.image, frame.depth
            if self.conditioning.crop is not None:
                left, top, width, height = self.conditioning.crop
                part = slice(top, top + height), slice(left, left + width)
                image, depth = np.ascontiguousarray(image[part]), None if depth is None else depth[part]
            if self._levels is not None:
                image = stretched(image, self._levels)
            yield replace(frame, image=image, depth=depth, camera=self.camera, mask=self.mask)

    def close(self) -> None:
        """See `Source`."""
        self.source.close()


def uncalibrated(camera: Camera, hfov_deg: float | None) -> Callable[[int, int], Camera] | None:
    """The camera of a part of some width and height of the images, where nothing but a field of view is known of it, or
    not even that; None where there is a calibration."""
    if hfov_deg is not None:
        return lambda width, height: camera_from_hfov(width, height, hfov_deg)
    return typical_camera if camera.is_guess else None


def conditioned(
    source: Source,
    name: str,
    mask: Path | None = None,
    camera_of: Callable[[int, int], Camera] | None = None,
    look: bool = True,
) -> Source:
    """A source with what its images need: a WARNING says what is done. The source itself, if they need nothing.

    Args:
        name: of the source, for messages.
        mask: an image by the user, of the size or shape of the frames: white shows the scene.
        camera_of: where bars are cut off, the camera of what is left; None: a part of the source's.
        look: find out what they need; False: nothing but the mask.

    Raises:
        SourceError: if the mask cannot be read.
        UsageError: if it does not fit, or hides everything.
    """
    found = _surveyed(source) if look and not source.live else Survey()
    camera = source.camera
    size = (camera.width, camera.height)
    hidden = np.zeros((camera.height, camera.width), bool) if mask is None else ~read_user_mask(mask, *size)
    if found.crop is not None:
        left, top, width, height = found.crop
        hidden = hidden[top : top + height, left : left + width]
        camera = cropped_camera(camera, found.crop) if camera_of is None else camera_of(width, height)
    for part in (found.border, found.overlay):
        hidden = hidden if part is None else hidden | part
    _tell(name, found, size, None if camera_of is None else camera)
    if found.levels is None and found.crop is None and not hidden.any():
        return source
    return ConditionedSource(
        source, Conditioning(size, found.crop, found.levels), camera, ~hidden if hidden.any() else None
    )


def reconditioned(source: Source, conditioning: Conditioning, camera: Camera) -> Source:
    """The frames as an earlier run took them; raises SourceError if its mask is no longer there."""
    mask = None
    if conditioning.mask is not None:
        mask = read_user_mask(Path(conditioning.mask), camera.width, camera.height)
    return ConditionedSource(source, conditioning, camera, mask)


def cropped_camera(camera: Camera, crop: tuple[int, int, int, int]) -> Camera:
    """The camera of a part: left, top, width, height."""
    left, top, width, height = crop
    return replace(camera, width=width, height=height, cx=camera.cx - left, cy=camera.cy - top)


def uncropped_camera(camera: Camera, conditioning: Conditioning) -> Camera:
    """The camera of the images as stored, from that of the part that is used."""
    left, top = (0, 0) if conditioning.crop is None else conditioning.crop[:2]
    width, height = conditioning.image_size
    return replace(camera, width=width, height=height, cx=camera.cx + left, cy=camera.cy + top)


def read_user_mask(path: Path, width: int, height: int) -> np.ndarray:
    """(height, width) bool, True where an image of that shape is white.

    Raises:
        SourceError: if it cannot be read.
        UsageError: if it has another shape, or is black all over.
    """
    import cv2

    image = read_color(path)
    h, w = image.shape[:2]
    if abs((w * height) / (h * width) - 1) > SAME_SHAPE:
        raise UsageError(f"the mask {path} is {w}x{h}, the images are {width}x{height}: it must have their shape")
    brightest = cv2.resize(image.max(-1), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    shown = brightest > brightest.max() // 2  # white may be 1, as arrays of bool are often stored
    if not shown.any():
        raise UsageError(f"the mask {path} is black all over: white is used, black is ignored")
    return shown


def _surveyed(source: Source) -> Survey:
    if isinstance(source, Sampled):
        return survey(source.sampled(SAMPLES))
    images = [frame.image for frame in islice(iter(source), 0, FIRST_FRAMES, STEP)]
    source.close()
    return survey(images)


def _tell(name: str, found: Survey, size: tuple[int, int], camera: Camera | None) -> None:
    """What is done, a line for each kind."""
    if found.levels is not None:
        log.warning(
            "%s uses the values from %.0f to %.0f only: they are stretched to the whole range", name, *found.levels
        )
    if found.crop is not None:
        left, top, width, height = found.crop
        right, bottom = size[0] - left - width, size[1] - top - height
        lens = "" if camera is None else f"; the field of view is that of the rest (focal length {camera.fx:.0f} px)"
        log.warning(
            "%s has constant bars (left %d, right %d, top %d, bottom %d pixels): they are cut off, %dx%d are left%s",
            *(name, left, right, top, bottom, width, height, lens),
        )
    if found.border is not None:
        log.warning("%s has a constant border in %.1f %% of its images: it is masked", name, 100 * found.border.mean())
    if found.overlay is not None:
        log.warning(
            "%s shows something that stays while the scene moves (%.1f %% of the image; a clock, a logo, the camera's "
            "carrier): it is masked",
            *(name, 100 * found.overlay.mean()),
        )

"""What all recorded sources share: which frames to take, whose camera it is, and reading listed images."""

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slam.errors import SourceError, UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.calibration import check_size, fitted, read_calibration
from slam.io.folders import is_file
from slam.io.images import read_color, read_full_depth
from slam.io.plausible import VERY_NARROW_DEG, VERY_WIDE_DEG, check_plausible
from slam.sources.depth_format import DepthFormat, check_scale
from slam.sources.faults import Faults
from slam.sources.registration import Registration

log = logging.getLogger(__name__)

HFOV_DEG = (VERY_NARROW_DEG, VERY_WIDE_DEG)  # that a user may give
GUESSED_HFOV_DEG = 60.0  # typical of webcams and phone video, along the longer side
DEFAULT_FPS = 30.0
MAX_FPS = 1000.0
LOOKED_AT = 5  # images that tell the usual size of all


@dataclass(frozen=True)
class FrameWindow:
    """Which frames of a recording to take; all three count frames of the recording, not those delivered."""

    start: int = 0  # first frame
    stride: int = 1  # every so many frames
    max_frames: int | None = None  # length of the part used, before the stride; None: to the end

    def __post_init__(self) -> None:
        if self.start < 0 or self.stride < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise UsageError(
                "--start must be >= 0, --stride and --max-frames >= 1, "
                f"got {self.start}, {self.stride}, {self.max_frames}"
            )

    def indices(self, total: int) -> range:
        """Indices taken of `total` frames."""
        stop = total if self.max_frames is None else min(total, self.start + self.max_frames)
        return range(self.start, stop, self.stride)


ALL_FRAMES = FrameWindow()


@dataclass(frozen=True)
class CameraChoice:
    """What the user says about the camera of a recording; by default the recording's own calibration is used."""

    calib: Path | None = None  # a calibration file
    hfov_deg: float | None = None  # horizontal field of view, degrees, of a camera without distortion
    known: Camera | None = None  # the camera itself, of an earlier run
    undistort_hfov_deg: float | None = None  # horizontal field of view of undistorted images; None: by the lens

    def __post_init__(self) -> None:
        if self.calib is not None and self.hfov_deg is not None:
            raise UsageError("--calib and --hfov exclude each other: give one")
        if self.hfov_deg is not None and not HFOV_DEG[0] <= self.hfov_deg <= HFOV_DEG[1]:
            raise UsageError(
                f"--hfov must be from {HFOV_DEG[0]:g} to {HFOV_DEG[1]:g} degrees, got {self.hfov_deg:g}: the lens is "
                "taken for one without distortion; of a wider one give --calib"
            )
        if self.undistort_hfov_deg is not None and not 1.0 <= self.undistort_hfov_deg < 180.0:
            raise UsageError(f"--undistort-hfov must be from 1 to below 180 degrees, got {self.undistort_hfov_deg}")

    @property
    def is_given(self) -> bool:
        """True if the user or an earlier run says anything."""
        return not (self.calib is None and self.hfov_deg is None and self.known is None)

    def camera(
        self, width: int, height: int, own: Sequence[Path | Camera], name: str, turned_deg: int | None = None
    ) -> Camera:
        """The camera of `width` x `height` images.

        Args:
            own: calibrations of the recording itself, best first; files that do not exist are passed over.
            name: the recording, for messages.
            turned_deg: as of `slam.io.calibration.fitted`.

        Raises:
            CalibrationError: if the one chosen is unreadable or for other images.
        """
        camera = self._chosen(width, height, own, name, turned_deg)
        if self.undistort_hfov_deg is None:
            return camera
        return replace(camera, undistort_hfov_deg=self.undistort_hfov_deg)

    def _chosen(
        self, width: int, height: int, own: Sequence[Path | Camera], name: str, turned_deg: int | None
    ) -> Camera:
        if self.known is not None:
            check_size(self.known, width, height, f"the camera of the earlier run of {name}")
            check_plausible(self.known, f"the camera of the earlier run of {name}")
            return self.known
        if self.calib is not None:
            return read_calibration(self.calib, (width, height), turned_deg)
        if self.hfov_deg is not None:
            return camera_from_hfov(width, height, self.hfov_deg)
        for calibration in own:
            if isinstance(calibration, Camera):
                return fitted(calibration, width, height, f"the known calibration of {name}", turned_deg)
            if calibration.is_file():
                return read_calibration(calibration, (width, height), turned_deg)
        return guessed_camera(width, height, name)


OWN_CAMERA = CameraChoice()


def camera_from_hfov(width: int, height: int, hfov_deg: float) -> Camera:
    """A pinhole with square pixels and its axis in the middle, from the horizontal field of view."""
    focal = 0.5 * width / math.tan(math.radians(hfov_deg) / 2)
    return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def typical_camera(width: int, height: int) -> Camera:
    """A camera whose longer side sees GUESSED_HFOV_DEG."""
    camera = camera_from_hfov(max(width, height), min(width, height), GUESSED_HFOV_DEG)
    return Camera(width, height, camera.fx, camera.fy, (width - 1) / 2, (height - 1) / 2, is_guess=True)


def guessed_camera(width: int, height: int, name: str) -> Camera:
    """A typical camera, with a WARNING that says so."""
    camera = typical_camera(width, height)
    log.warning(
        "%s has no calibration: guessing a lens of %g degrees along the longer side (focal length %.0f px). "
        "The map corrects it where the motion tells (--self-calibrate); better give --calib FILE or --hfov DEGREES",
        name,
        GUESSED_HFOV_DEG,
        camera.fx,
    )
    return camera


def frame_time_ns(index: int, fps: float) -> int:
    """Time of frame `index` at a constant rate, exact to the nanosecond."""
    return round(index * 10**9 / fps)


def checked_fps(fps: float | None) -> float | None:
    """The rate given by the user.

    Raises:
        UsageError: if it is no frame rate.
    """
    if fps is not None and not 0.0 < fps <= MAX_FPS:
        raise UsageError(f"--fps must be above 0 and at most {MAX_FPS:g}, got {fps}")
    return fps


@dataclass(frozen=True)
class ListedImage:
    """One listed image, not read yet."""

    time_ns: int
    image: Path
    depth: Path | None = None


class ImageSequence:
    """A recorded source that reads listed images, one at a time; images that cannot be read are skipped.

    Every iteration starts from the first frame.
    """

    live = False

    def __init__(
        self,
        name: str,
        shots: Sequence[ListedImage],
        window: FrameWindow,
        camera_of: Callable[[int, int], Camera],
        depth: DepthFormat | None = None,
    ) -> None:
        """Choose the frames and find the camera.

        Args:
            name: the recording, for messages.
            shots: all images, increasing in time.
            camera_of: the camera of images of a width and height.
            depth: deliver depth, stored like this; None: no depth.

        Raises:
            SourceError: if the window is past the end, or no image in it can be read.
            CalibrationError: by `camera_of`.
        """
        self.name = name
        self.skipped = 0  # unreadable images in the current or last iteration
        self.levels: tuple[float, float] | None = None  # values that become black and white; None: by the bits
        self._depth = depth
        if not shots:
            raise SourceError(f"{name} has no images")
        self.times_ns = np.array([shot.time_ns for shot in shots], np.int64)  # of all images, in the window or not
        self._shots = [shots[i] for i in window.indices(len(shots))]
        if not self._shots:
            raise SourceError(f"--start {window.start} is past the end of {name}: it has {len(shots)} frames")
        self.count: int | None = len(self._shots)
        self._faults = Faults(log)
        self._missing = self._find_missing()
        width, height = self._usual_size()
        self.camera = camera_of(width, height)
        if depth is not None:
            check_scale(name, [shot.depth for shot in self._shots if shot.depth is not None], depth)
        self._registration: Registration | None = None  # of depth images of another size
        if depth is not None and depth.camera is not None:
            self._registration = Registration(depth.camera, self.camera, np.eye(4))

    def __len__(self) -> int:
        return len(self._shots)

    def __iter__(self) -> Iterator[Frame]:
        self.skipped = 0
        delivered = 0
        try:
            for shot in self._shots:
                image = self._image(shot)
                if image is None:
                    self.skipped += 1
                    continue
                yield Frame(delivered, shot.time_ns, image, self.camera, self._depth_map(shot))
                delivered += 1
        finally:
            self._faults.end()

    def close(self) -> None:
        """Nothing stays open between frames."""

    def sampled(self, count: int) -> list[np.ndarray]:
        """Up to `count` images (H, W, 3) spread over the whole, with all their bits, of those that can be read."""
        chosen = np.unique(np.linspace(0, len(self._shots) - 1, count).round().astype(int))
        images = []
        for n in chosen:
            with contextlib.suppress(SourceError):  # told when its turn comes
                images.append(read_full_depth(self._shots[n].image))
        return images

    def _find_missing(self) -> set[Path]:
        """The listed images that are not there, told once."""
        missing = [shot.image for shot in self._shots if not is_file(shot.image)]
        if missing and len(missing) < len(self._shots):
            log.warning(
                "%d of %d images of %s are missing (first: %s: No such file) and will be skipped",
                len(missing),
                len(self._shots),
                self.name,
                missing[0],
            )
        return set(missing)

    def _usual_size(self) -> tuple[int, int]:
        """(width, height) that most of a few images have, taken evenly; the first readable one breaks a tie."""
        sizes: Counter[tuple[int, int]] = Counter()
        for i in sorted({n * len(self._shots) // LOOKED_AT for n in range(LOOKED_AT)}):
            try:
                sizes[_size(read_color(self._shots[i].image))] += 1
            except SourceError:
                continue  # told when its turn comes
        if not sizes:
            return self._first_readable()
        (width, height), number = sizes.most_common(1)[0]
        if len(sizes) > 1:
            log.warning(
                "the images of %s differ in size: of %d looked at, %s; those of %dx%d are used",
                self.name,
                sizes.total(),
                ", ".join(f"{n} {'is' if n == 1 else 'are'} {w}x{h}" for (w, h), n in sizes.items()),
                width,
                height,
            )
        return width, height

    def _first_readable(self) -> tuple[int, int]:
        first_error: SourceError | None = None
        for shot in self._shots:
            try:
                return _size(read_color(shot.image))
            except SourceError as error:
                first_error = first_error or error
        raise SourceError(f"none of the {len(self._shots)} images of {self.name} can be read; first: {first_error}")

    def _image(self, shot: ListedImage) -> np.ndarray | None:
        """None, and told, if it cannot be read or has another size."""
        if shot.image in self._missing:
            return None
        try:
            image = read_color(shot.image, self.levels)
        except SourceError as error:
            self._fault("skipped a frame", error, shot.image)
            return None
        width, height = _size(image)
        if (width, height) != (self.camera.width, self.camera.height):
            problem = f"{shot.image} is {width}x{height}, the sequence {self.camera.width}x{self.camera.height}"
            self._fault("skipped a frame", SourceError(problem), shot.image)
            return None
        return image

    def _fault(self, effect: str, error: SourceError, file: Path) -> None:
        kind = str(error).replace(f" {file}", "").replace(f"{file} ", "")
        self._faults.add(f"{effect}: {kind}", f"{effect}: {error}")

    def _depth_map(self, shot: ListedImage) -> np.ndarray | None:
        """The depth of a frame, None if it has none or it cannot be read (a frame without depth is still a frame)."""
        if self._depth is None or shot.depth is None:
            return None
        try:
            depth = self._depth.read(shot.depth, self._depth)
        except SourceError as error:
            self._fault("a frame goes without depth", error, shot.depth)
            return None
        if self._registration is not None:
            depth = self._registration(depth)
        if depth.shape != (self.camera.height, self.camera.width):
            raise SourceError(
                f"the depth {shot.depth} is {depth.shape[1]}x{depth.shape[0]}, "
                f"its image {self.camera.width}x{self.camera.height}; depth must be aligned to the image"
            )
        return depth


def _size(image: np.ndarray) -> tuple[int, int]:
    """(width, height)"""
    return image.shape[1], image.shape[0]

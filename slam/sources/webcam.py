"""Webcams and network streams (RTSP, MJPEG over HTTP), by OpenCV; where images stop they are asked for again."""

import contextlib
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import cv2

from slam.errors import SourceError, UsageError, without_secrets
from slam.io.image_data import decoded
from slam.io.image_size import TooLargeError, check_pixels
from slam.sources.live import CameraImage, CameraImages, LiveSource, Patience, Size, check_asked
from slam.sources.mjpeg import image_parts, image_stream
from slam.sources.sequence import OWN_CAMERA, CameraChoice
from slam.sources.video import stated_size
from slam.sources.web import FAILURES, is_web

log = logging.getLogger(__name__)

OPEN_S = 10.0  # for the first image of a connection: a stream may have to wait for its next key frame
STALL_S = 2.0  # without an image a camera counts as gone; a dark room makes webcams slow, but not as slow as this
MJPG = cv2.VideoWriter.fourcc(*"MJPG")
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")


class WebcamSource(LiveSource):
    """Frames of a camera, stamped when grabbed: nanoseconds since the epoch, by the monotonic clock."""

    def __init__(
        self,
        address: str = "webcam",
        size: Size = (None, None),
        fps: float | None = None,
        choice: CameraChoice = OWN_CAMERA,
        reconnect_s: float = 10.0,
        max_frames: int | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        """Connect and take the first image.

        Args:
            address: `webcam`, `webcam:N`, or the URL of a stream.
            size: width and height to ask a webcam for; it may give others (a WARNING).
            fps: frames per second to ask a webcam for.
            reconnect_s: how long to try again when images stop, before `SourceError`; 0: not at all.
            max_frames: end after so many.
            stall_s: without an image for so long, the camera counts as gone.

        Raises:
            UsageError: if the options make no sense.
            SourceError: if there is no camera or no image comes.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        name = without_secrets(address)
        _check(address, size, fps)
        check_asked(size, fps, reconnect_s, max_frames)
        self._address = address
        self._open = _connection(address, size, fps)
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        super().__init__(
            name,
            self._shots,
            lambda width, height: choice.camera(width, height, [], name),
            Patience(OPEN_S, stall_s, reconnect_s),
            max_frames,
        )
        given = (self.camera.width, self.camera.height)
        if any(asked not in (None, got) for asked, got in zip(size, given)):
            log.warning("%s gives %dx%d, not the %sx%s asked for", name, *given, *(n or "?" for n in size))

    def _shots(self) -> CameraImages:
        pushed = self._pushed()
        images = self._grabbed() if pushed is None else self._received(pushed)
        seen = False
        with contextlib.closing(images):
            for shot in images:
                yield shot
                seen = seen or shot is not None
        if not seen:
            raise SourceError(_absent(self.name))

    def _pushed(self) -> Any:
        """The stream of a camera that pushes images over HTTP; None if this is none."""
        if not is_web(self._address):
            return None
        try:
            return image_stream(self._address, OPEN_S)
        except FAILURES as error:
            log.debug("%s", error)
            raise SourceError(_absent(self.name)) from error

    def _received(self, pushed: Any) -> CameraImages:
        """Images that a camera pushes."""
        try:
            with contextlib.closing(pushed):
                for data in image_parts(pushed, self.name):
                    time_ns = time.monotonic_ns() + self._epoch_ns
                    try:
                        bgr = decoded(data, cv2.IMREAD_COLOR)
                    except TooLargeError as error:
                        raise SourceError(f"the images of {self.name} are not read: {error}") from error
                    except ValueError:
                        yield None
                        continue
                    yield CameraImage(time_ns, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        except FAILURES as error:  # it broke off
            log.debug("%s", error)

    def _grabbed(self) -> CameraImages:
        """Images by OpenCV."""
        try:
            capture = self._open()
            try:
                if "://" in self.name and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
                    raise SourceError(f"{self.name} is a video file, not a camera: use --video")
                try:
                    check_pixels(*stated_size(capture))
                except TooLargeError as error:
                    raise SourceError(f"the images of {self.name} are not read: {error}") from error
                # FFmpeg's images are all made as large as the first, which hides that a camera has changed its mode: of
                # JPEG, which needs no other image, the bytes are taken as they come
                is_stream = "://" in self.name
                is_jpeg = (
                    is_stream and capture.get(cv2.CAP_PROP_FOURCC) == MJPG and capture.set(cv2.CAP_PROP_FORMAT, -1)
                )
                while capture.grab():
                    time_ns = time.monotonic_ns() + self._epoch_ns
                    is_decoded, bgr = capture.retrieve()
                    if is_decoded and is_jpeg:
                        try:
                            bgr = decoded(bgr.tobytes(), cv2.IMREAD_COLOR)
                        except ValueError:
                            is_decoded = False
                    yield CameraImage(time_ns, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)) if is_decoded else None
            finally:
                capture.release()
        except cv2.error as error:  # some builds raise where others return False
            log.debug("OpenCV: %s", error)


def _check(address: str, size: Size, fps: float | None) -> None:
    if re.fullmatch(r"webcam(:\d{1,4})?", address) is None:
        if urlsplit(address).scheme.lower() not in SCHEMES or "://" not in address:
            raise UsageError(
                f"--camera {without_secrets(address)} is neither webcam, webcam:N, realsense nor a URL "
                f"({', '.join(SCHEMES)}); for a recording use --sequence or --video"
            )
        if size != (None, None) or fps is not None:
            raise UsageError(
                "--width, --height and --fps are for webcams; a stream has its own: set them at its server"
            )


def _connection(address: str, size: Size, fps: float | None) -> Callable[[], cv2.VideoCapture]:
    """What opens the camera, with the settings asked for."""
    if "://" in address:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * OPEN_S)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * OPEN_S)]
        return lambda: cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    number = int(address.partition(":")[2] or 0)
    backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
    settings = [(cv2.CAP_PROP_FRAME_WIDTH, size[0]), (cv2.CAP_PROP_FRAME_HEIGHT, size[1]), (cv2.CAP_PROP_FPS, fps)]

    def connect() -> cv2.VideoCapture:
        capture = cv2.VideoCapture(number, backend)
        if size != (None, None):  # uncompressed, USB carries a large image only a few times a second
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in settings:
            if value is not None:
                capture.set(setting, value)
        return capture

    return connect


def _absent(name: str) -> str:
    if "://" in name:
        return f"cannot open {name}: is the server up, and the address (port, path, password) right?"
    number = name.partition(":")[2] or "0"
    return f"no images from {name}: is camera {number} plugged in, permitted, and not in use by another program?"

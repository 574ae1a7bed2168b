"""Webcams and network streams (RTSP, MJPEG over HTTP), by OpenCV; where pictures stop they are asked for again."""

import contextlib
import logging
import math
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import cv2
import numpy as np

from slam.errors import SourceError, UsageError
from slam.frames import Frame
from slam.sources.cameras import public_name
from slam.sources.sequence import OWN_CAMERA, CameraChoice, checked_fps

log = logging.getLogger(__name__)

OPEN_S = 10.0  # for the first picture of a connection: a stream may have to wait for its next key frame
STALL_S = 2.0  # without a picture a camera counts as gone; a dark room makes webcams slow, but not as slow as this
DELAYS_S = (0.1, 2.0)  # before the first new attempt, and the longest; they double
MIN_ATTEMPT_S = 0.5  # the last attempt gets at least this
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
MAX_SIDE = 16384  # pixels

Shot = tuple[int, np.ndarray]  # monotonic time in ns, (H, W, 3) uint8 BGR


class WebcamSource:
    """Frames of a camera, stamped when grabbed: nanoseconds since the epoch, by the monotonic clock.

    Iterating again goes on with the camera, with new frame ids. `close` may be called while another thread iterates.
    """

    live = True

    def __init__(
        self,
        address: str = "webcam",
        size: tuple[int | None, int | None] = (None, None),
        fps: float | None = None,
        choice: CameraChoice = OWN_CAMERA,
        reconnect_s: float = 10.0,
        max_frames: int | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        """Connect and take the first picture.

        Args:
            address: `webcam`, `webcam:N`, or the URL of a stream.
            size: width and height to ask a webcam for; it may give others (a WARNING).
            fps: frames per second to ask a webcam for.
            reconnect_s: how long to try again when pictures stop, before `SourceError`; 0: not at all.
            max_frames: end after so many.
            stall_s: without a picture for so long, the camera counts as gone.

        Raises:
            UsageError: if the options make no sense.
            SourceError: if there is no camera or no picture comes.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        _check(address, size, fps, reconnect_s, max_frames)
        self.name = public_name(address)
        self.count: int | None = max_frames
        self.skipped = 0
        self._connect = _connection(address, size, fps)
        self._reconnect_s = reconnect_s
        self._stall_s = stall_s
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._last_ns = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._link = _Link(self._connect)
        shot = self._link.take(OPEN_S)
        if shot is None:
            self.close()
            raise SourceError(_absent(self.name, self._link.ended))
        height, width = shot[1].shape[:2]
        try:
            self.camera = choice.camera(width, height, [], self.name)
        except BaseException:
            self.close()
            raise
        if any(asked not in (None, given) for asked, given in zip(size, (width, height))):
            log.warning("%s gives %dx%d, not the %sx%s asked for", self.name, width, height, *(n or "?" for n in size))

    def __iter__(self) -> Iterator[Frame]:
        delivered = 0
        while self.count is None or delivered < self.count:
            shot = self._link.take(self._stall_s)
            if shot is None and not self._closed.is_set():
                shot = self._again()
            if shot is None or self._closed.is_set():
                return
            yield self._frame(delivered, shot)
            delivered += 1

    def close(self) -> None:
        """Let go of the camera and end every iteration; a second call does nothing."""
        with self._lock:
            self._closed.set()
            self._link.close()

    def _frame(self, index: int, shot: Shot) -> Frame:
        time_ns, bgr = shot
        height, width = bgr.shape[:2]
        if (width, height) != (self.camera.width, self.camera.height):
            raise SourceError(
                f"the pictures of {self.name} changed from {self.camera.width}x{self.camera.height} to "
                f"{width}x{height}; start a new run for the new size"
            )
        self._last_ns = max(time_ns + self._epoch_ns, self._last_ns + 1)
        return Frame(index, self._last_ns, np.ascontiguousarray(bgr[..., ::-1]), self.camera)

    def _again(self) -> Shot | None:
        """The first picture of a new connection; None if the source was closed meanwhile."""
        start_s = time.monotonic()
        deadline_s = start_s + self._reconnect_s
        delay_s, longest_s = DELAYS_S
        if self._reconnect_s > 0:
            log.warning("no more pictures from %s; trying again for %g s", self.name, self._reconnect_s)
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self._closed.wait(min(delay_s, left_s)) or not self._relink():
                return None
            shot = self._link.take(min(OPEN_S, max(deadline_s - time.monotonic(), MIN_ATTEMPT_S)))
            if shot is not None:
                log.info("pictures from %s again after %.1f s", self.name, time.monotonic() - start_s)
                return shot
            delay_s = min(2 * delay_s, longest_s)
        raise SourceError(
            f"no more pictures from {self.name}, given up after {self._reconnect_s:g} s: unplugged, or its server "
            "stopped? --reconnect SECONDS tries again for longer"
        )

    def _relink(self) -> bool:
        """Connect anew; False if the source is closed."""
        with self._lock:
            self._link.close()
            if self._closed.is_set():
                return False
            self._link = _Link(self._connect)
            return True


class _Link:
    """One connection, opened and read on a thread of its own: a read that never returns holds up nobody else."""

    def __init__(self, connect: Callable[[], cv2.VideoCapture]) -> None:
        self.ended = False  # by the other side, not only silent
        self._connect = connect
        self._shots: queue.Queue[Shot | None] = queue.Queue(2)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="camera", daemon=True).start()

    def take(self, timeout_s: float) -> Shot | None:
        """The next picture; None at the end, or if none comes in time."""
        with contextlib.suppress(queue.Empty):
            shot = self._shots.get(timeout=timeout_s)
            self.ended = shot is None
            return shot
        return None

    def close(self) -> None:
        """Wake whoever waits; the thread lets go of the camera as soon as its read returns."""
        self._closed.set()
        self._post(None)

    def _run(self) -> None:
        try:
            capture = self._connect()
            try:
                while not self._closed.is_set() and capture.grab():
                    time_ns = time.monotonic_ns()
                    decoded, bgr = capture.retrieve()
                    if decoded:
                        self._post((time_ns, bgr))
            finally:
                capture.release()
        except cv2.error as error:  # some builds raise where others return False
            log.debug("OpenCV: %s", error)
        finally:
            self._post(None)

    def _post(self, shot: Shot | None) -> None:
        """Newest last; the oldest makes room (before the run begins nobody takes them)."""
        while True:
            try:
                return self._shots.put_nowait(shot)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._shots.get_nowait()


def _check(
    address: str, size: tuple[int | None, int | None], fps: float | None, reconnect_s: float, max_frames: int | None
) -> None:
    if re.fullmatch(r"webcam(:\d{1,4})?", address) is None:
        if urlsplit(address).scheme.lower() not in SCHEMES or "://" not in address:
            raise UsageError(
                f"--camera {public_name(address)} is neither webcam, webcam:N nor a URL ({', '.join(SCHEMES)}); "
                "for a recording use --sequence or --video"
            )
        if size != (None, None) or fps is not None:
            raise UsageError(
                "--width, --height and --fps are for webcams; a stream has its own: set them at its server"
            )
    for name, value in zip(("--width", "--height"), size):
        if value is not None and not 1 <= value <= MAX_SIDE:
            raise UsageError(f"{name} must be from 1 to {MAX_SIDE} pixels, got {value}")
    checked_fps(fps)
    if not (math.isfinite(reconnect_s) and reconnect_s >= 0):
        raise UsageError(f"--reconnect must be seconds from 0 on, got {reconnect_s}")
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"--max-frames must be >= 1, got {max_frames}")


def _connection(address: str, size: tuple[int | None, int | None], fps: float | None) -> Callable[[], cv2.VideoCapture]:
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
        if size != (None, None):  # uncompressed, USB carries a large picture only a few times a second
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in settings:
            if value is not None:
                capture.set(setting, value)
        return capture

    return connect


def _absent(name: str, ended: bool) -> str:
    if not ended:
        return f"{name} gives no picture within {OPEN_S:g} s: is it switched on, and the address right?"
    if "://" in name:
        return f"cannot open {name}: is the server up, and the address (port, path, password) right?"
    number = name.partition(":")[2] or "0"
    return f"no pictures from {name}: is camera {number} plugged in, permitted, and not in use by another program?"

"""What live cameras share: a connection read on a thread of its own, watched, and made again where it breaks."""

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from slam.errors import SourceError, UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.sources.sequence import checked_fps

log = logging.getLogger(__name__)

DELAYS_S = (0.1, 2.0)  # before the first new attempt, and the longest; they double
CLOSE_S = 1.0  # for a read under way: drivers dislike the end of the program within it, and being opened twice
MIN_ATTEMPT_S = 0.5  # the last attempt gets at least this
MAX_SIDE = 16384  # pixels

Size = tuple[int | None, int | None]


@dataclass(frozen=True, eq=False)
class CameraImage:
    """What a camera delivers at one moment."""

    time_ns: int  # since the epoch
    image: np.ndarray  # (H, W, 3) uint8 RGB
    depth: np.ndarray | None = None  # (H, W) float32 metres, 0 unknown; aligned to the image


CameraImages = Generator[CameraImage | None, None, None]  # one connection: None now and then, while nothing comes


@dataclass(frozen=True)
class Patience:
    """How long to wait for a camera, seconds."""

    open_s: float  # for the first image of a connection
    stall_s: float  # without an image for so long, it counts as gone
    reconnect_s: float  # then it is tried again for so long, before `SourceError`; 0: not at all


class LiveSource:
    """Frames of a camera, stamped in nanoseconds since the epoch.

    Iterating again goes on with the camera, with new frame ids. `close` may be called while another thread iterates.
    """

    live = True

    def __init__(
        self,
        name: str,
        connect: Callable[[], CameraImages],
        camera_of: Callable[[int, int], Camera],
        patience: Patience,
        max_frames: int | None,
    ) -> None:
        """Connect and take the first image.

        Args:
            name: the camera, for messages.
            connect: gives the images of a new connection; whatever blocks may block there. It raises `SourceError`
                where there is no camera; closing it lets go of the camera.
            camera_of: the camera of images of a width and height; called after the first image.
            max_frames: end after so many.

        Raises:
            SourceError: if there is no camera or no image comes.
            CalibrationError: by `camera_of`.
        """
        self.name = name
        self.count: int | None = max_frames
        self.skipped = 0
        self._connect = connect
        self._patience = patience
        self._last_ns = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._link = _Link(connect)
        try:
            shot = self._link.take(patience.open_s)
            if shot is None:
                raise self._link.error or SourceError(
                    f"{name} gives no image within {patience.open_s:g} s: is it switched on, and its cable or "
                    "address right?"
                )
            height, width = shot.image.shape[:2]
            self.camera = camera_of(width, height)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        delivered = 0
        while self.count is None or delivered < self.count:
            shot = self._link.take(self._patience.stall_s)
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

    def _frame(self, index: int, shot: CameraImage) -> Frame:
        height, width = shot.image.shape[:2]
        if (width, height) != (self.camera.width, self.camera.height):
            raise SourceError(
                f"the images of {self.name} changed from {self.camera.width}x{self.camera.height} to "
                f"{width}x{height}; start a new run for the new size"
            )
        self._last_ns = max(shot.time_ns, self._last_ns + 1)
        return Frame(index, self._last_ns, shot.image, self.camera, shot.depth)

    def _again(self) -> CameraImage | None:
        """The first image of a new connection; None if the source was closed meanwhile."""
        reconnect_s = self._patience.reconnect_s
        start_s = time.monotonic()
        deadline_s = start_s + reconnect_s
        delay_s, longest_s = DELAYS_S
        if reconnect_s > 0:
            log.warning("no more images from %s; trying again for %g s", self.name, reconnect_s)
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self._closed.wait(min(delay_s, left_s)) or not self._relink():
                return None
            left_s = deadline_s - time.monotonic()
            shot = self._link.take(min(self._patience.open_s, max(left_s, MIN_ATTEMPT_S)))
            if shot is not None:
                log.info("images from %s again after %.1f s", self.name, time.monotonic() - start_s)
                return shot
            delay_s = min(2 * delay_s, longest_s)
        raise SourceError(
            f"no more images from {self.name}, given up after {reconnect_s:g} s: unplugged, or its server "
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

    def __init__(self, connect: Callable[[], CameraImages]) -> None:
        self.error: BaseException | None = None  # what it ended of
        self._connect = connect
        self._shots: queue.Queue[CameraImage | None] = queue.Queue(2)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> CameraImage | None:
        """The next image; None at the end, or if none comes in time. A programming error of the thread is raised."""
        with contextlib.suppress(queue.Empty):
            shot = self._shots.get(timeout=timeout_s)
            if shot is None and self.error is not None and not isinstance(self.error, SourceError):
                raise self.error
            return shot
        return None

    def close(self) -> None:
        """Wake whoever waits, and let go of the camera: at once, or left behind, as soon as its read returns."""
        self._closed.set()
        self._post(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._connect()) as shots:
                for shot in shots:
                    if self._closed.is_set():
                        break
                    if shot is not None:
                        self._post(shot)
        except BaseException as error:  # looked at where the images are taken
            log.debug("%s", error)
            self.error = error
        finally:
            self._post(None)

    def _post(self, shot: CameraImage | None) -> None:
        """Newest last; the oldest makes room (before the run begins nobody takes them)."""
        while True:
            try:
                return self._shots.put_nowait(shot)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._shots.get_nowait()


def check_asked(size: Size, fps: float | None, reconnect_s: float, max_frames: int | None) -> None:
    """Refuse what no camera can be asked for; raises UsageError."""
    for name, value in zip(("--width", "--height"), size):
        if value is not None and not 1 <= value <= MAX_SIDE:
            raise UsageError(f"{name} must be from 1 to {MAX_SIDE} pixels, got {value}")
    checked_fps(fps)
    if not (math.isfinite(reconnect_s) and reconnect_s >= 0):
        raise UsageError(f"--reconnect must be seconds from 0 on, got {reconnect_s}")
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"--max-frames must be >= 1, got {max_frames}")

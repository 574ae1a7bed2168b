"""Intel RealSense cameras, live: colour, and the depth that they measure, aligned to it."""

import logging
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from slam.errors import SourceError, UsageError
from slam.sources.live import CameraImages, LiveSource, Patience, Size, check_asked
from slam.sources.realsense import Stream, import_realsense, stamp_ns
from slam.sources.sequence import OWN_CAMERA, CameraChoice

log = logging.getLogger(__name__)

OPEN_S = 15.0  # for the first frame of a connection, a reset included: they are slow on USB 2
RESET_AFTER_S = 5.0  # without a first frame
RETURN_S = 8.0  # for a camera that was reset to be there again
VANISH_S = 1.0  # after a reset it is still listed for a moment
STALL_S = 2.0  # without a frame a camera counts as gone
DEFAULT_SIZE, DEFAULT_FPS = (640, 480), 30  # what every model has
ANY = (0, 0)  # size, in the library's language
DEPTH_SIZES = ((848, 480), (640, 480), ANY)  # besides that of the colour; the first is the sharpest of most models


class Mode(NamedTuple):
    """What to ask of a camera; 0: whatever it has."""

    size: tuple[int, int]
    fps: int
    depth_size: tuple[int, int] | None  # None: no depth
    any_format: bool = False  # of the colour, else RGB

    def config(self, rs: Any, serial: str) -> Any:
        """As the library wants it."""
        config = rs.config()
        config.enable_device(serial)
        color = rs.format.any if self.any_format else rs.format.rgb8
        config.enable_stream(rs.stream.color, -1, *self.size, color, self.fps)
        if self.depth_size is not None:
            config.enable_stream(rs.stream.depth, -1, *self.depth_size, rs.format.z16, self.fps)
        return config


def modes(size: Size, fps: float | None, with_depth: bool | None) -> Iterator[Mode]:
    """What to try, best first: what the user asks for, 640x480 at 30, then anything; without depth only at last."""
    asked = DEFAULT_SIZE if size == (None, None) else (size[0] or 0, size[1] or 0)
    colors = [(asked, round(fps or DEFAULT_FPS), False), (asked, 0, False), (DEFAULT_SIZE, DEFAULT_FPS, False)]
    colors = list(dict.fromkeys([*colors, (ANY, 0, False), (ANY, 0, True)]))
    if with_depth is not False:
        for color_size, rate, any_format in colors:
            for depth_size in dict.fromkeys([color_size, *DEPTH_SIZES]):
                yield Mode(color_size, rate, depth_size, any_format)
    if not with_depth:
        for color_size, rate, any_format in colors:
            yield Mode(color_size, rate, None, any_format)


class EpochClock:
    """Nanoseconds since the epoch. Stamps by a camera's own counter are carried over when the first of them arrives."""

    def __init__(self, rs: Any) -> None:
        self._counter = rs.timestamp_domain.hardware_clock
        self._offset_ns = 0
        self._last_ns: int | None = None

    def __call__(self, frame: Any) -> int:
        """The time of a frame."""
        time_ns = stamp_ns(frame)
        if frame.get_frame_timestamp_domain() != self._counter:
            return time_ns
        if self._last_ns is None or time_ns < self._last_ns:  # it wraps around after 71 minutes
            self._offset_ns = time.time_ns() - time_ns
        self._last_ns = time_ns
        return time_ns + self._offset_ns


class RealSenseSource(LiveSource):
    """Frames of a RealSense camera with its own stamps and lens, depth in metres where asked for."""

    def __init__(
        self,
        address: str = "realsense",
        size: Size = (None, None),
        fps: float | None = None,
        choice: CameraChoice = OWN_CAMERA,
        reconnect_s: float = 10.0,
        max_frames: int | None = None,
        with_depth: bool | None = None,
    ) -> None:
        """Connect and take the first frame.

        Args:
            address: `realsense`, or `realsense:SERIAL` where there are several.
            size: width and height to ask for; where the camera has no such mode, the nearest of `modes` (a WARNING).
            fps: frames per second to ask for, likewise.
            reconnect_s: how long to try again when frames stop, before `SourceError`; 0: not at all.
            max_frames: end after so many.
            with_depth: ask for depth too; None: if it measures any.

        Raises:
            UsageError: if the options make no sense.
            SourceError: if there is no camera, it has no such streams, or no frame comes.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        if re.fullmatch(r"realsense(:\w+)?", address) is None:
            raise UsageError(f"--camera {address} is neither realsense nor realsense:SERIAL")
        check_asked(size, fps, reconnect_s, max_frames)
        self._rs = import_realsense()
        self._context = self._rs.context()
        self._asked = size, fps
        self._with_depth = with_depth
        self._serial = address.partition(":")[2]
        self._serial = self._device().get_info(self._rs.camera_info.serial_number)  # the same one again, if it stops
        self._stream: Stream | None = None
        super().__init__(
            f"realsense:{self._serial}",
            self._shots,
            lambda width, height: self._started().camera(choice),
            Patience(OPEN_S, STALL_S, reconnect_s),
            max_frames,
        )
        color = self._started().color
        given = (color.width(), color.height(), color.fps())
        if any(asked not in (None, got) for asked, got in zip((*size, fps), given)):
            wanted = "x".join(str(n or "?") for n in size) + (f" at {fps:g}" if fps else "")
            log.warning("%s gives %dx%d at %d, not the %s asked for", self.name, *given, wanted)

    def _shots(self, may_reset: bool = True) -> CameraImages:
        """One connection; where nothing comes at all, once more after a reset of the camera."""
        device = self._device()
        self._stream = stream = self._open()
        silent_since_s = time.monotonic()
        try:
            for shot in stream.shots():
                if shot is not None:
                    may_reset = False
                elif may_reset and time.monotonic() - silent_since_s > RESET_AFTER_S:
                    break
                yield shot
        finally:
            stream.stop()
        log.warning("%s sends nothing: resetting it", self.name)
        try:
            device.hardware_reset()
        except RuntimeError as error:
            raise SourceError(f"{self.name} cannot be reset: {error}; unplug it and plug it in") from error
        yield from self._returned()
        yield from self._shots(may_reset=False)

    def _returned(self) -> Iterator[None]:
        """Until the camera is listed again after a reset."""
        reset_s = time.monotonic()
        while (waited_s := time.monotonic() - reset_s) < RETURN_S:
            time.sleep(0.1)
            yield None
            if waited_s > VANISH_S and self._serial in serials(self._rs, self._context):
                return

    def _device(self) -> Any:
        """The camera, at once; starting a pipeline without one would hang for 15 s.

        Raises:
            SourceError: if it is not there.
        """
        found = serials(self._rs, self._context)
        if self._serial and self._serial not in found:
            others = f"; there are: {', '.join(found)}" if found else ""
            raise SourceError(f"no RealSense camera {self._serial}: is it plugged in?{others}")
        if not found:
            raise SourceError(
                "no RealSense camera: is it plugged in, by a USB 3 cable, and permitted (on Linux, librealsense's "
                "udev rules)? v2d-doctor lists those that answer"
            )
        return found[self._serial or next(iter(found))]

    def _open(self) -> Stream:
        """Start the best mode that the camera has."""
        rs = self._rs
        pipeline = rs.pipeline(self._context)
        try:
            wrapper = rs.pipeline_wrapper(pipeline)
            configs = (mode.config(rs, self._serial) for mode in modes(*self._asked, self._with_depth))
            config = next((config for config in configs if config.can_resolve(wrapper)), None)
            if config is None:
                streams = "colour and depth" if self._with_depth else "colour"
                raise SourceError(f"{self.name} has no mode with {streams}")
            profile = pipeline.start(config)
        except RuntimeError as error:
            raise SourceError(f"{self.name} does not start: {error}; is another program using it?") from error
        try:
            return Stream(rs, pipeline, profile, self._with_depth, self.name, EpochClock(rs))
        except BaseException:
            pipeline.stop()
            raise

    def _started(self) -> Stream:
        assert self._stream is not None, "asked for after the first frame"
        return self._stream


def serials(rs: Any, context: Any) -> dict[str, Any]:
    """The cameras that answer, by their serial numbers."""
    found = {}
    for device in context.query_devices():
        try:
            found[device.get_info(rs.camera_info.serial_number)] = device
        except RuntimeError as error:  # just being unplugged, or without a number (in recovery mode)
            log.debug("a RealSense does not answer: %s", error)
    return found

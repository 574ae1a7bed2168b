"""Intel RealSense cameras and their recordings (`.db3`, `.bag`), by pyrealsense2, which is imported when used."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from slam.errors import CalibrationError, SourceError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.geometry.lens import distort
from slam.sources.live import CameraImage, CameraImages
from slam.sources.registration import Registration
from slam.sources.sequence import ALL_FRAMES, OWN_CAMERA, CameraChoice, FrameWindow

POLL_MS = 300  # one wait for frames; who closes a camera waits no longer than this
FILE_SILENCE_S = 10.0  # a recording that yields nothing for so long is damaged
GRID = 24  # points along each side, where a lens model is fitted
FIT_ERROR_PX = 0.1  # largest error of the fit that is accepted

# what becomes RGB by OpenCV, and the channels as delivered
CONVERSIONS = {
    "bgr8": (cv2.COLOR_BGR2RGB, 3),
    "rgba8": (cv2.COLOR_RGBA2RGB, 4),
    "bgra8": (cv2.COLOR_BGRA2RGB, 4),
    "yuyv": (cv2.COLOR_YUV2RGB_YUYV, 2),
    "uyvy": (cv2.COLOR_YUV2RGB_UYVY, 2),
    "y8": (cv2.COLOR_GRAY2RGB, 1),
}


def import_realsense() -> Any:
    """The module pyrealsense2.

    Raises:
        SourceError: if it is not installed, or a system library that it needs is missing.
    """
    try:
        import pyrealsense2
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "pyrealsense2":
            raise SourceError(
                "RealSense needs the package pyrealsense2: pip install pyrealsense2 "
                "(Linux and Windows; there are none for macOS, nor for ARM from Python 3.13 on)"
            ) from error
        raise SourceError(
            f"pyrealsense2 cannot be loaded ({error}); on Linux install libusb: apt-get install libusb-1.0-0"
        ) from error
    return pyrealsense2


def camera_of(rs: Any, intrinsics: Any, name: str) -> Camera:
    """The camera of a video stream of the device.

    All lens models that the library knows are brought to OpenCV's by a least-squares fit to what the library itself
    does on a grid: undistort, or distort where it only can do that. The model is linear in its coefficients; where it
    is the device's own (Brown-Conrady) the fit returns the device's numbers.

    Raises:
        CalibrationError: if the fit is off by more than FIT_ERROR_PX anywhere.
    """
    i = intrinsics
    camera = Camera(i.width, i.height, i.fx, i.fy, i.ppx, i.ppy)
    if i.model == rs.distortion.none or not any(i.coeffs):
        return camera
    columns, rows = np.linspace(0, i.width - 1, GRID), np.linspace(0, i.height - 1, GRID)
    uv = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    pinhole = (uv - (i.ppx, i.ppy)) / (i.fx, i.fy)
    if i.model == rs.distortion.modified_brown_conrady:
        projected = [rs.rs2_project_point_to_pixel(i, [float(x), float(y), 1.0]) for x, y in pinhole]
        ideal, seen = pinhole, (np.array(projected) - (i.ppx, i.ppy)) / (i.fx, i.fy)
    else:
        undistorted = [rs.rs2_deproject_pixel_to_point(i, [float(u), float(v)], 1.0)[:2] for u, v in uv]
        ideal, seen = np.array(undistorted), pinhole
    x, y = ideal.T
    r2 = x * x + y * y
    columns_x = np.stack([x * r2, x * r2**2, 2 * x * y, r2 + 2 * x * x, x * r2**3], -1)
    columns_y = np.stack([y * r2, y * r2**2, r2 + 2 * y * y, 2 * x * y, y * r2**3], -1)
    system = np.concatenate([columns_x, columns_y])
    residual = np.concatenate([seen[:, 0] - x, seen[:, 1] - y])
    distortion: tuple[float, ...] = ()
    if np.isfinite(system).all():
        distortion = tuple(float(c) for c in np.linalg.lstsq(system, residual, rcond=None)[0])
        error = (distort(torch.from_numpy(ideal), distortion).numpy() - seen) * (i.fx, i.fy)
        if np.abs(error).max() <= FIT_ERROR_PX:
            return Camera(i.width, i.height, i.fx, i.fy, i.ppx, i.ppy, distortion)
    raise CalibrationError(
        f"{name} has a lens of model {i.model} with coefficients {list(i.coeffs)}, which radial-tangential distortion "
        "does not describe; give its own calibration by --calib FILE"
    )


def to_rgb(pixels: np.ndarray, pixel_format: str, name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, a copy, of the data of a colour frame in a format of the library.

    Raises:
        SourceError: if the format is none of CONVERSIONS.
    """
    if pixel_format == "rgb8":
        return pixels.copy()
    if pixel_format not in CONVERSIONS:
        known = ", ".join(["rgb8", *CONVERSIONS])
        raise SourceError(f"{name} has colour in the format {pixel_format}, which is not supported; record {known}")
    code, channels = CONVERSIONS[pixel_format]
    height, width = pixels.shape[:2]
    return np.asarray(cv2.cvtColor(pixels.view(np.uint8).reshape(height, width, channels), code))


def stamp_ns(frame: Any) -> int:
    """The time of a frame by the clock of its camera, ns."""
    return round(frame.get_timestamp() * 1e6)


class Stream:
    """Started frames of the library: colour, and depth aligned to it."""

    def __init__(
        self, rs: Any, waiter: Any, profile: Any, with_depth: bool | None, name: str, clock: Callable[[Any], int]
    ) -> None:
        """Find the streams.

        Args:
            waiter: started; has `try_wait_for_frames` (a pipeline, a syncer).
            profile: of what was started.
            with_depth: deliver depth; None: if there is any.
            clock: the stamp of a frame as delivered, ns.

        Raises:
            SourceError: if there is no colour, or no depth though it is wanted.
        """
        self._rs, self._waiter, self._name, self._clock = rs, waiter, name, clock
        device = profile.get_device()
        self._playback = device.as_playback() if device.is_playback() else None
        streams = {
            s.stream_type(): s.as_video_stream_profile() for s in profile.get_streams() if s.is_video_stream_profile()
        }
        if rs.stream.color not in streams:
            found = ", ".join(sorted(kind.name for kind in streams)) or "none"
            raise SourceError(f"{name} has no colour stream (video streams: {found})")
        depth = streams.get(rs.stream.depth) if with_depth is not False else None
        if with_depth and depth is None:
            raise SourceError(f"{name} has no depth to use")
        self.color = streams[rs.stream.color]
        self._with_depth = depth is not None
        if depth is not None:
            self._closest_ns = round(0.5e9 / max(depth.fps(), self.color.fps(), 1))  # no other depth can be closer
            self._registration = self._registered(depth)
            self._metres = np.float32(device.first_depth_sensor().get_depth_scale())

    def camera(self, choice: CameraChoice) -> Camera:
        """The colour camera: as the user says, else as the device states it.

        Raises:
            CalibrationError: if the user's is unreadable or for other images, or by `camera_of`.
        """
        given = choice.calib is not None or choice.hfov_deg is not None
        own = [] if given else [camera_of(self._rs, self.color.get_intrinsics(), self._name)]
        return choice.camera(self.color.width(), self.color.height(), own, self._name)

    def shots(self) -> CameraImages:
        """Every colour frame once, with the depth nearest in time; None where none comes within POLL_MS.

        The library pairs colour and depth on its own, and delivers some colour frames twice, once with the depth of a
        neighbour: a frame whose depth may not be the nearest is held back until the next colour frame.

        Raises:
            SourceError: if the library breaks off, or sends colour in an unknown format.
        """
        held: CameraImage | None = None
        last: tuple[int, int] | None = None
        try:
            while True:
                ended = self._ended()  # asked first: what came before the end is taken
                this, shot, final = self._next(None if held is not None else last)
                if this is None and ended:
                    break
                if shot is None:
                    yield None
                    continue
                if held is not None and this != last:
                    yield held
                last, held = this, None if final else shot
                if final:
                    yield shot
            if held is not None:
                yield held
        except RuntimeError as error:
            raise SourceError(f"{self._name} broke off: {error}") from error

    def _next(self, done: tuple[int, int] | None) -> tuple[tuple[int, int] | None, CameraImage | None, bool]:
        """What the next frames are; nothing if none come in time, and no shot if it is the one `done` already.

        Returns:
            Number and stamp of the colour frame; the shot, with the depth that belongs to it; whether that is all that
            can come of it. No frame of the library outlives the call: those still held make `stop` wait for 10 s.
        """
        arrived, frames = self._waiter.try_wait_for_frames(POLL_MS)
        color = frames.get_color_frame() if arrived else None
        if not color:
            return None, None, False
        this = (color.get_frame_number(), stamp_ns(color))
        if this == done:
            return this, None, True
        belongs = self._depth_belongs(frames)
        return this, self._shot(frames, belongs), belongs or not self._with_depth

    def stop(self) -> None:
        """End it; of a camera that is gone there is nothing to end."""
        with contextlib.suppress(RuntimeError):
            self._waiter.stop()

    def _registered(self, depth: Any) -> Registration | None:
        """What moves this depth into the colour images; None if it is there already."""
        cameras = [camera_of(self._rs, p.get_intrinsics(), self._name) for p in (depth, self.color)]
        motion = depth.get_extrinsics_to(self.color)
        T_cd = np.eye(4)
        T_cd[:3, :3] = np.reshape(motion.rotation, (3, 3)).T  # the library's are column by column
        T_cd[:3, 3] = motion.translation
        same = cameras[0] == cameras[1] and np.array_equal(T_cd, np.eye(4))
        return None if same else Registration(cameras[0], cameras[1], T_cd)

    def _ended(self) -> bool:
        return self._playback is not None and self._playback.current_status() == self._rs.playback_status.stopped

    def _depth_belongs(self, frames: Any) -> bool:
        """True if there is depth, and none can be closer to the colour in time."""
        depth = frames.get_depth_frame() if self._with_depth else None
        return bool(depth) and abs(stamp_ns(depth) - stamp_ns(frames.get_color_frame())) <= self._closest_ns

    def _shot(self, frames: Any, with_depth: bool) -> CameraImage:
        """Copies: the memory is the library's."""
        color = frames.get_color_frame()
        profile = color.get_profile().as_video_stream_profile()
        pixels = np.asanyarray(color.get_data()).reshape(profile.height(), profile.width(), -1)
        image = to_rgb(pixels, profile.format().name, self._name)
        depth = None
        if with_depth:
            depth = self._metres * np.asanyarray(frames.get_depth_frame().get_data()).astype(np.float32)
            depth = depth if self._registration is None else self._registration(depth)
        return CameraImage(self._clock(color), image, depth)


def _resume(playback: Any) -> None:
    """Returns when a frame has been taken, after 10 s if none is: on a thread of its own."""
    with contextlib.suppress(RuntimeError):  # stopped meanwhile
        playback.resume()


class RealSenseFileSource:
    """A recording of a RealSense camera. Every iteration starts from the first frame of the window."""

    live = False

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        with_depth: bool | None = None,
    ) -> None:
        """Open the recording and read the calibration.

        Args:
            with_depth: deliver its depth; None: if it has any.

        Raises:
            SourceError: if it is missing, no RealSense recording, or lacks the streams.
            CalibrationError: if the calibration is unreadable, for other images, or of a lens we cannot undistort.
        """
        self._rs = import_realsense()
        self._path, self._window, self._with_depth = path, window, with_depth
        self.name = str(path)
        self.count: int | None = None  # the file does not say
        self.skipped = 0
        self._stream, _ = self._resolved()
        self.camera = self._stream.camera(choice)

    def __iter__(self) -> Iterator[Frame]:
        self.close()
        stream, begin = self._resolved()
        self._stream = stream
        start, stride, length = self._window.start, self._window.stride, self._window.max_frames
        delivered = index = 0
        last_ns = -1
        silent_since_s = time.monotonic()
        try:
            begin()
            for shot in stream.shots():
                if shot is None and time.monotonic() - silent_since_s > FILE_SILENCE_S:
                    raise SourceError(f"{self._path} yields no more frames; is the recording damaged?")
                if shot is None or shot.time_ns <= last_ns:
                    continue
                if length is not None and index >= start + length:
                    break
                if index >= start and (index - start) % stride == 0:
                    yield Frame(delivered, shot.time_ns, shot.image, self.camera, shot.depth)
                    delivered += 1
                index, last_ns, silent_since_s = index + 1, shot.time_ns, time.monotonic()
        finally:
            stream.stop()
        if delivered == 0:
            past = f"--start {start} is past the end of it: it has {index} frames" if index else "it has no frames"
            raise SourceError(f"no frame of {self._path} could be read; {past}")

    def close(self) -> None:
        """Stop reading; a second call does nothing."""
        self._stream.stop()

    def _resolved(self) -> tuple[Stream, Callable[[], None]]:
        """Colour and depth, and what starts them."""
        if not self._path.is_file():
            raise SourceError(f"no recording at {self._path}")
        rs = self._rs
        pipeline = rs.pipeline()
        wanted = [rs.stream.color] if self._with_depth is False else [rs.stream.color, rs.stream.depth]
        try:
            there = {stream.stream_type() for stream in self._request(pipeline, [])[1].get_streams()}
            # no others (infrared, motion): the library would wait for those too, and lose the frames at both ends
            config, profile = self._request(pipeline, [kind for kind in wanted if kind in there])
            playback = profile.get_device().as_playback()
            playback.set_real_time(False)  # waits for us: no frame is lost
        except RuntimeError as error:
            raise SourceError(
                f"{self._path} is no RealSense recording that librealsense can read ({error}); a bag of ROS "
                "has other topics than /device_0/sensor_0/... and is told by that"
            ) from error

        def start() -> None:
            try:
                playback.pause()  # until everything has started, or the first frames are lost
                pipeline.start(config)
            except RuntimeError as error:
                raise SourceError(f"{self._path} does not play: {error}") from error
            threading.Thread(target=_resume, args=(playback,), daemon=True).start()

        return Stream(rs, pipeline, profile, self._with_depth, self.name, stamp_ns), start

    def _request(self, pipeline: Any, kinds: list[Any]) -> tuple[Any, Any]:
        """What asks the library for streams of these kinds, all if none is named; and their profile."""
        config = self._rs.config()
        config.enable_device_from_file(str(self._path), repeat_playback=False)
        for kind in kinds:
            config.enable_stream(kind)
        return config, config.resolve(self._rs.pipeline_wrapper(pipeline))

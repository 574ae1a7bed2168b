"""Recordings and devices as a RealSense makes them, from frames in memory: by the library's software device."""

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyrealsense2 as rs

from slam.frames import Frame
from slam.geometry.camera import Camera

FPS = 30
BASE_MS = 1.7e12  # a stamp of the year 2023, as cameras give them


def stamp_ns(frame: Frame) -> int:
    """What the camera's clock, milliseconds in float64, makes of the time of a frame."""
    return round((BASE_MS + frame.time_ns / 1e6) * 1e6)


def intrinsics_of(camera: Camera, model: Any = rs.distortion.none, coeffs: Sequence[float] = (0.0,) * 5) -> Any:
    """The library's description of a camera of ours."""
    found = rs.intrinsics()
    found.width, found.height = camera.width, camera.height
    found.fx, found.fy, found.ppx, found.ppy = camera.fx, camera.fy, camera.cx, camera.cy
    found.model, found.coeffs = model, list(coeffs)
    return found


@dataclass(frozen=True)
class ColorFormat:
    """How colour is sent."""

    name: Any = rs.format.rgb8
    bytes_per_pixel: int = 3
    encode: Callable[[np.ndarray], np.ndarray] = np.ascontiguousarray  # from (H, W, 3) RGB


class SoftwareCamera:
    """A device with colour and depth, which delivers what it is given."""

    def __init__(
        self, camera: Camera, with_depth: bool = True, color: ColorFormat = ColorFormat(), baseline_m: float = 0.0
    ) -> None:
        """Colour and depth have the same lens; a point is `baseline_m` further right as seen by colour."""
        self.color = color
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Software camera")
        self.device.register_info(rs.camera_info.serial_number, "0001")
        self._width = camera.width
        self.streams: dict[str, tuple[Any, Any, int]] = {}  # sensor, profile, bytes per pixel
        intrinsics = intrinsics_of(camera)
        sensor = self.device.add_sensor("Color")
        stream = _video_stream(rs.stream.color, 1, color.name, color.bytes_per_pixel, intrinsics)
        profile = sensor.add_video_stream(stream, True)
        if with_depth:
            depth_sensor = self.device.add_sensor("Depth")
            stream = _video_stream(rs.stream.depth, 2, rs.format.z16, 2, intrinsics)
            depth_profile = depth_sensor.add_video_stream(stream, True)
            depth_sensor.add_read_only_option(rs.option.depth_units, 0.001)
            depth_profile.register_extrinsics_to(profile, _shift(baseline_m))
            profile.register_extrinsics_to(depth_profile, _shift(-baseline_m))
            self.streams["depth"] = (depth_sensor, depth_profile, 2)
        self.streams["color"] = (sensor, profile, color.bytes_per_pixel)
        self._others: tuple[Any, Any, Any, Any] | None = None
        self.device.create_matcher(rs.matchers.default)

    def add_others(self) -> None:
        """Infrared images, a third of them missing, and the accelerometer."""
        infrared, motion = self.device.add_sensor("Infrared"), self.device.add_sensor("Motion")
        intrinsics = self.streams["color"][1].as_video_stream_profile().get_intrinsics()
        stream = _video_stream(rs.stream.infrared, 3, rs.format.y8, 1, intrinsics)
        accelerations = rs.motion_stream()
        accelerations.type, accelerations.index, accelerations.uid = rs.stream.accel, 0, 4
        accelerations.fps, accelerations.fmt = 200, rs.format.motion_xyz32f
        profiles = infrared.add_video_stream(stream, True), motion.add_motion_stream(accelerations, True)
        self._others = (infrared, profiles[0], motion, profiles[1])

    def _send_others(self, frame: Frame, number: int) -> None:
        assert self._others is not None
        infrared, video, motion, accelerations = self._others
        if number % 3:
            sent = rs.software_video_frame()
            sent.pixels, sent.bpp, sent.stride = np.ascontiguousarray(frame.image[..., 0]), 1, self._width
            sent.timestamp, sent.domain = BASE_MS + frame.time_ns / 1e6, rs.timestamp_domain.hardware_clock
            sent.frame_number, sent.profile = number, video.as_video_stream_profile()
            infrared.on_video_frame(sent)
        for n in range(6):
            moved = rs.software_motion_frame()
            moved.data, moved.timestamp = rs.vector(), BASE_MS + frame.time_ns / 1e6 + 5 * n
            moved.domain, moved.frame_number = rs.timestamp_domain.hardware_clock, 6 * number + n
            moved.profile = accelerations.as_motion_stream_profile()
            motion.on_motion_frame(moved)

    def send(self, frame: Frame, number: int, kinds: Sequence[str] = ("depth", "color")) -> None:
        """One frame of each stream, with the stamp of `frame` after BASE_MS; depth in millimetres."""
        for kind in kinds:
            if kind not in self.streams:
                continue
            sensor, profile, size = self.streams[kind]
            sent = rs.software_video_frame()
            if kind == "depth":
                sent.pixels = np.rint(1000 * frame.depth).astype(np.uint16)
                sent.depth_units = 0.001
            else:
                sent.pixels = self.color.encode(frame.image)
            sent.bpp, sent.stride = size, size * self._width
            sent.timestamp, sent.domain = BASE_MS + frame.time_ns / 1e6, rs.timestamp_domain.hardware_clock
            sent.frame_number, sent.profile = number, profile.as_video_stream_profile()
            sensor.on_video_frame(sent)
        if self._others is not None:
            self._send_others(frame, number)


class PluggedIn:
    """pyrealsense2 with one `SoftwareCamera` plugged in: the library's own pipelines take no software device.

    Its pipeline is the library's syncer, fed with `frames` there and back at `fps`, from where it was at every start.
    """

    def __init__(self, camera: SoftwareCamera, frames: Sequence[Frame], fps: float = 60.0) -> None:
        self.camera, self.fps = camera, fps
        self.frames = [*frames, *reversed(frames)]
        self.there, self.silent = True, False
        self.resets = 0
        self.refused: list[tuple[Any, ...]] = []  # streams asked for in vain
        self.started: list[list[str]] = []  # the streams of each start
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(rs, name)

    def context(self) -> "PluggedIn":
        return self

    def query_devices(self) -> list["PluggedIn"]:
        return [self] if self.there else []

    def get_info(self, which: Any) -> str:
        return self.camera.device.get_info(which)

    def hardware_reset(self) -> None:
        self.resets += 1
        self.silent = False

    def is_playback(self) -> bool:
        return False

    def first_depth_sensor(self) -> Any:
        return self.camera.device.first_depth_sensor()

    def pipeline_wrapper(self, pipeline: "_Pipeline") -> "_Pipeline":
        return pipeline

    def pipeline(self, context: "PluggedIn") -> "_Pipeline":
        return _Pipeline(self)

    def config(self) -> "_Config":
        return _Config(self)


class _Config:
    def __init__(self, library: PluggedIn) -> None:
        self.kinds: list[str] = []
        self.asked: list[tuple[Any, ...]] = []
        self._library = library

    def enable_device(self, serial: str) -> None:
        assert serial == "0001"

    def enable_stream(self, kind: Any, index: int, width: int, height: int, pixel_format: Any, fps: int) -> None:
        self.kinds.append(kind.name)
        self.asked.append((kind.name, width, height, pixel_format.name, fps))

    def can_resolve(self, pipeline: "_Pipeline") -> bool:
        """As the library: every stream has a profile that is as asked, 0 and any being everything."""
        found = [self._fits(*asked) for asked in self.asked]
        self._library.refused += [asked for asked, fits in zip(self.asked, found, strict=True) if not fits]
        return all(found)

    def _fits(self, kind: str, width: int, height: int, pixel_format: str, fps: int) -> bool:
        if kind not in self._library.camera.streams:
            return False
        profile = self._library.camera.streams[kind][1].as_video_stream_profile()
        true = (profile.width(), profile.height(), profile.format().name, profile.fps())
        return all(a in (0, "any", b) for a, b in zip((width, height, pixel_format, fps), true, strict=True))


class _Pipeline:
    """Also its own profile."""

    def __init__(self, library: PluggedIn) -> None:
        self._library = library
        self._syncer = rs.syncer(1)
        self._stopped = threading.Event()
        self._kinds: list[str] = []

    def start(self, config: _Config) -> "_Pipeline":
        self._kinds = config.kinds
        self._library.started.append(config.kinds)
        for sensor, profile in self._opened():
            sensor.open(profile)
            sensor.start(self._syncer)
        threading.Thread(target=self._feed, daemon=True).start()
        return self

    def stop(self) -> None:
        if self._stopped.is_set():
            raise RuntimeError("stop() cannot be called before start()")
        self._stopped.set()
        for sensor, _ in self._opened():
            sensor.stop()
            sensor.close()

    def get_device(self) -> PluggedIn:
        return self._library

    def get_streams(self) -> list[Any]:
        return [profile for _, profile in self._opened()]

    def try_wait_for_frames(self, timeout_ms: int) -> Any:
        """Only complete sets, as a pipeline; the first of a syncer are not."""
        arrived, frames = self._syncer.try_wait_for_frames(timeout_ms)
        while arrived and frames.size() < len(self._kinds):
            arrived, frames = self._syncer.try_wait_for_frames(timeout_ms)
        return arrived, frames

    def _opened(self) -> list[tuple[Any, Any]]:
        return [self._library.camera.streams[kind][:2] for kind in self._kinds]

    def _feed(self) -> None:
        library = self._library
        while not self._stopped.wait(1 / library.fps):
            if library.there and not library.silent:
                frame = library.frames[library.sent % len(library.frames)]
                library.sent += 1
                stamped = replace(frame, time_ns=round(library.sent * 1e9 / library.fps))
                library.camera.send(stamped, library.sent, self._kinds)


def record(path: Path, frames: Sequence[Frame], camera: SoftwareCamera | None = None, fps: float = 200.0) -> None:
    """Write frames into a new `.db3` as a camera would, `fps` of them a second by the clock on the wall."""
    camera = camera or SoftwareCamera(frames[0].camera)
    recorder = rs.recorder(str(path), camera.device, True)
    sensors = list(recorder.query_sensors())
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(lambda frame: None)
    began_s = time.monotonic()
    for number, frame in enumerate(frames, 1):
        camera.send(frame, number)
        time.sleep(max(0.0, began_s + number / fps - time.monotonic()))
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    del recorder, sensors, sensor
    gc.collect()  # closes the file


def _shift(x: float) -> Any:
    motion = rs.extrinsics()
    motion.rotation, motion.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], [x, 0, 0]
    return motion


def _video_stream(kind: Any, uid: int, pixel_format: Any, bytes_per_pixel: int, intrinsics: Any) -> Any:
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid = kind, 0, uid
    stream.width, stream.height, stream.fps, stream.bpp = intrinsics.width, intrinsics.height, FPS, bytes_per_pixel
    stream.fmt, stream.intrinsics = pixel_format, intrinsics
    return stream

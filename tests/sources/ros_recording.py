"""ROS bags of all formats, by the writers of `rosbags`."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.quaternion import quat_xyzw_from_matrix

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
FORMATS = ("ros1", "sqlite3", "mcap")


class Bag:
    """Writes messages into a bag of one of FORMATS."""

    def __init__(self, writer: Any, is_ros1: bool) -> None:
        self.is_ros1 = is_ros1
        self.store = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_HUMBLE)
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def write(self, topic: str, type_name: str, content: Any, bag_ns: int, cut: int | None = None) -> None:
        """One message; `cut` keeps so many of its bytes."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, type_name, typestore=self.store)
        serialize = self.store.serialize_ros1 if self.is_ros1 else self.store.serialize_cdr
        data = bytes(serialize(content, type_name))
        self._writer.write(self._connections[topic], bag_ns, data[:cut])

    def make(self, type_name: str, **fields: Any) -> Any:
        return self.store.types[type_name](**fields)

    def header(self, time_ns: int, frame_id: str = "camera") -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", sec=time_ns // 10**9, nanosec=time_ns % 10**9)
        number = {"seq": 0} if self.is_ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id, **number)

    def image(
        self,
        topic: str,
        pixels: np.ndarray,
        encoding: str,
        time_ns: int,
        bag_ns: int | None = None,
        padding: int = 0,
        big_endian: bool = False,
        frame_id: str = "camera",
        cut: int | None = None,
    ) -> None:
        """A raw image of pixels (H, W[, C]) as they are; `padding` bytes after each row."""
        height, width = pixels.shape[:2]
        if big_endian:
            pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
        rows = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8).reshape(height, -1)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
        content = self.make(
            IMAGE,
            header=self.header(time_ns, frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=int(big_endian),
            step=rows.shape[1],
            data=rows.reshape(-1),
        )
        self.write(topic, IMAGE, content, time_ns if bag_ns is None else bag_ns, cut)

    def compressed(self, topic: str, data: bytes, kind: str, time_ns: int, cut: int | None = None) -> None:
        content = self.make(
            COMPRESSED, header=self.header(time_ns), format=kind, data=np.frombuffer(data, np.uint8).copy()
        )
        self.write(topic, COMPRESSED, content, time_ns, cut)

    def info(
        self,
        topic: str,
        camera: Camera,
        time_ns: int,
        model: str = "plumb_bob",
        binning: tuple[int, int] = (0, 0),
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
        P: Sequence[float] | None = None,
    ) -> None:
        """CameraInfo; `roi` is x, y, width, height."""
        K = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1.0])
        projection = np.array(P or [camera.fx, 0, camera.cx, 0, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0.0])
        matrices = {"d": np.array(camera.distortion or [0.0] * 5), "k": K, "r": np.eye(3).reshape(-1), "p": projection}
        region = dict(zip(("x_offset", "y_offset", "width", "height"), roi))
        content = self.make(
            INFO,
            header=self.header(time_ns),
            width=camera.width,
            height=camera.height,
            distortion_model=model,
            binning_x=binning[0],
            binning_y=binning[1],
            roi=self.make("sensor_msgs/msg/RegionOfInterest", do_rectify=False, **region),
            **{(name.upper() if self.is_ros1 else name): value for name, value in matrices.items()},
        )
        self.write(topic, INFO, content, time_ns)


@contextmanager
def bag(path: Path, kind: str = "ros1", compression: str = "") -> Iterator[Bag]:
    """A new bag of the kind; `compression`: bz2, lz4 (ros1), message, storage, file (zstd)."""
    if kind == "ros1":
        writer = Writer1(path)
        if compression:
            writer.set_compression(Writer1.CompressionFormat[compression.upper()])
    else:
        writer = Writer2(path, version=9, storage_plugin=StoragePlugin[kind.upper()])
        if compression:
            writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        yield Bag(writer, kind == "ros1")


def path_of(folder: Path, kind: str, name: str = "walk") -> Path:
    return folder / (f"{name}.bag" if kind == "ros1" else name)


@dataclass(frozen=True)
class Coding:
    """How the frames of a walk are written."""

    encoding: str = "rgb8"  # or png, jpg
    with_depth: str = ""  # 16UC1, 32FC1, compressedDepth
    compression: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def write_walk(path: Path, frames: Sequence[Frame], kind: str, coding: Coding = Coding()) -> Path:
    """Frames under /camera/color, with their calibration; depth 4 ms later."""
    with bag(path, kind, coding.compression) as out:
        out.info("/camera/color/camera_info", frames[0].camera, frames[0].time_ns + 10**9)
        for frame in frames:
            time_ns = frame.time_ns + 10**9  # a stamp of zero means none
            bgr = np.ascontiguousarray(frame.image[..., ::-1])
            if coding.encoding in ("png", "jpg"):
                data = cv2.imencode(f".{coding.encoding}", bgr)[1].tobytes()
                words = f"rgb8; {'jpeg' if coding.encoding == 'jpg' else 'png'} compressed bgr8"
                out.compressed("/camera/color/image_raw/compressed", data, words, time_ns)
            else:
                pixels = bgr if coding.encoding == "bgr8" else frame.image
                out.image("/camera/color/image_raw", pixels, coding.encoding, time_ns, time_ns + 5_000_000)
            if coding.with_depth:
                write_depth(out, frame.depth, coding.with_depth, time_ns + 4_000_000)
    return path


def write_depth(out: Bag, depth: np.ndarray, encoding: str, time_ns: int) -> None:
    topic = "/camera/aligned_depth_to_color/image_raw"
    millimetres = np.rint(1000 * depth).astype(np.uint16)
    if encoding == "16UC1":
        out.image(topic, millimetres, encoding, time_ns)
    elif encoding == "32FC1":
        out.image(topic, np.where(depth > 0, depth, np.nan).astype(np.float32), encoding, time_ns)
    else:
        png = cv2.imencode(".png", millimetres)[1].tobytes()
        out.compressed(
            f"{topic}/compressedDepth", struct.pack("<iff", 0, 0, 0) + png, "16UC1; compressedDepth png", time_ns
        )


def write_pose(out: Bag, topic: str, type_name: str, T_wc: np.ndarray, time_ns: int) -> None:
    """One pose as PoseStamped, TransformStamped or Odometry."""
    x, y, z, w = quat_xyzw_from_matrix(T_wc[None, :3, :3])[0]
    orientation = out.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
    place = dict(zip("xyz", (float(value) for value in T_wc[:3, 3])))
    header = out.header(time_ns, "world")
    vector = "geometry_msgs/msg/Vector3"
    if type_name == "geometry_msgs/msg/TransformStamped":
        transform = out.make("geometry_msgs/msg/Transform", translation=out.make(vector, **place), rotation=orientation)
        content = out.make(type_name, header=header, child_frame_id="camera", transform=transform)
    else:
        pose = out.make(
            "geometry_msgs/msg/Pose", position=out.make("geometry_msgs/msg/Point", **place), orientation=orientation
        )
        if type_name == "geometry_msgs/msg/PoseStamped":
            content = out.make(type_name, header=header, pose=pose)
        else:
            zero = out.make(vector, x=0.0, y=0.0, z=0.0)
            twist = out.make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
            content = out.make(
                type_name,
                header=header,
                child_frame_id="camera",
                pose=out.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
                twist=out.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
            )
    out.write(topic, type_name, content, time_ns)

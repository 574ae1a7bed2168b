"""What bags of all formats have in common: topics, and messages in the order in which they were recorded.

The storage is read here and not by `rosbags`: its readers refuse a recording without an index, as a crash leaves it,
and stop at the first damage. Messages themselves are taken apart by `rosbags`.
"""

import bz2
import importlib
import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from slam.errors import SourceError
from slam.sources.names import natural_key

STORAGES = {
    ".bag": "slam.sources.bags.rosbag1:Rosbag1",
    ".db3": "slam.sources.bags.sqlite:SqliteBag",
    ".mcap": "slam.sources.bags.mcap:McapFile",
}
REALSENSE_TOPIC = re.compile(r"/device_\d+/sensor_\d+/")
MAX_CHUNK = 256 << 20  # bytes of a record, compressed or not: the largest image that is read, in 24 bits
EXTRA = "pip install 'v2d-slam[ros]'"


@dataclass(frozen=True)
class Topic:
    """A series of messages of one type."""

    name: str
    type: str  # sensor_msgs/msg/Image, of ROS 1 too
    encoding: str  # of its messages: ros1, cdr, or one that is not ROS's
    count: int


@dataclass(frozen=True)
class RawMessage:
    """One message as it is stored."""

    topic: str
    time_ns: int  # when it was recorded
    data: bytes


class Storage(Protocol):
    """One file of a bag."""

    damage: str  # what could not be read in the last pass; empty: nothing

    def topics(self) -> list[Topic]:
        """All topics; those of a damaged file as far as they can be read."""
        ...

    def messages(self, names: Collection[str]) -> Iterator[RawMessage]:
        """The messages of these topics in the order of the file."""
        ...


class Folder:
    """The files of a split ROS 2 bag, one after the other."""

    def __init__(self, parts: list[Storage]) -> None:
        self._parts = parts
        self.damage = ""

    def topics(self) -> list[Topic]:
        """Of all files, with their counts added."""
        merged: dict[str, Topic] = {}
        for topic in (topic for part in self._parts for topic in part.topics()):
            earlier = merged.get(topic.name)
            merged[topic.name] = replace(topic, count=topic.count + earlier.count) if earlier else topic
        self.damage = self._damages()
        return list(merged.values())

    def messages(self, names: Collection[str]) -> Iterator[RawMessage]:
        """Of all files."""
        for part in self._parts:
            yield from part.messages(names)
        self.damage = self._damages()

    def _damages(self) -> str:
        return "; ".join(part.damage for part in self._parts if part.damage)


def is_bag(path: Path) -> bool:
    """True of the files and folders that `open_storage` takes, by their names."""
    return path.suffix.lower() in STORAGES if path.is_file() else bool(_parts(path) or _packed(path))


def is_realsense(path: Path) -> bool:
    """True of a recording by librealsense, which is a bag of its own kind: its topics tell."""
    if not path.is_file() or path.suffix.lower() not in (".bag", ".db3"):
        return False
    try:
        return any(REALSENSE_TOPIC.match(topic.name) for topic in open_storage(path).topics())
    except SourceError:
        return False


def open_storage(path: Path) -> Storage:
    """A bag file, or the folder of a ROS 2 bag with or without its metadata.yaml.

    Raises:
        SourceError: if there is none, or it is not of the format that its name says.
    """
    if not path.exists():
        raise SourceError(f"no recording at {path}")
    files = _parts(path) if path.is_dir() else [path]
    packed = _packed(path)
    if packed and not files:
        raise SourceError(f"the files of {path} are compressed as a whole: unpack them by zstd -d {packed[0]} ...")
    if not files:
        raise SourceError(f"{path} has no .db3 or .mcap file: it is no ROS 2 bag")
    parts = [_open(file) for file in files]
    return parts[0] if len(parts) == 1 else Folder(parts)


def library(name: str) -> Any:
    """A module that comes with the extra `ros`.

    Raises:
        SourceError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SourceError(f"ROS bags need the package rosbags, with {name}: {EXTRA}") from error


def zstd_decompress(data: bytes) -> bytes:
    """Undo zstd; raises ValueError if the data is damaged, or becomes more than MAX_CHUNK."""
    try:
        zstd = importlib.import_module("compression.zstd")  # from Python 3.14 on
    except ImportError:
        zstd = library("backports.zstd")
    try:
        return bounded(zstd.ZstdDecompressor(), data)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error


def lz4_decompress(data: bytes) -> bytes:
    """Undo LZ4 frames; raises ValueError as `zstd_decompress`."""
    try:
        return bounded(library("lz4.frame").LZ4FrameDecompressor(), data)
    except (RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error


def bz2_decompress(data: bytes) -> bytes:
    """Undo bzip2; raises ValueError as `zstd_decompress`."""
    try:
        return bounded(bz2.BZ2Decompressor(), data)
    except (OSError, EOFError) as error:
        raise ValueError(str(error)) from error


def bounded(decompressor: Any, data: bytes) -> bytes:
    """What a decompressor makes of data, which must be whole; raises ValueError if it is more than MAX_CHUNK."""
    out = bytes(decompressor.decompress(data, MAX_CHUNK))
    if not decompressor.eof:
        raise ValueError("it is cut off" if len(out) < MAX_CHUNK else f"it becomes more than {MAX_CHUNK >> 20} MiB")
    return out


def read_part(stream: BinaryIO, size: int) -> bytes:
    """The next bytes of a bag; raises SourceError if they are more than MAX_CHUNK."""
    if size > MAX_CHUNK:
        raise SourceError(f"a record of {size / 2**20:.0f} MiB is none of a camera: the recording is damaged")
    return stream.read(size)


@contextmanager
def noted(storage: Storage) -> Iterator[None]:
    """What a record raises that makes no sense is noted as damage; nothing (more) comes of this one."""
    try:
        yield
    except (KeyError, ValueError, struct.error) as error:
        storage.damage = f"a record is damaged ({error})"


def _open(file: Path) -> Storage:
    known = STORAGES.get(file.suffix.lower())
    if known is None:
        raise SourceError(f"{file} is no bag ({', '.join(STORAGES)})")
    module, name = known.split(":")
    storage: Storage = getattr(importlib.import_module(module), name)(file)
    return storage


def _packed(folder: Path) -> list[Path]:
    """Storage files that the recorder compressed as a whole."""
    return sorted(file for suffix in (".db3", ".mcap") for file in folder.glob(f"*{suffix}.zstd"))


def _parts(folder: Path) -> list[Path]:
    """The storage files of a ROS 2 bag, in the order of their numbers."""
    for suffix in (".db3", ".mcap"):
        files = [file for file in folder.glob("*") if file.suffix.lower() == suffix and file.is_file()]
        if files:
            return sorted(files, key=natural_key)
    return []

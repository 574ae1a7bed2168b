"""ROS 1 bags, format 2.0, also without their index or cut off.

Reference: http://wiki.ros.org/Bags/Format/2.0
"""

import io
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slam.errors import SourceError
from slam.reading import open_file, reason
from slam.sources.bags.storage import RawMessage, Topic, bz2_decompress, lz4_decompress, noted, read_part

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7  # kinds of records
LONGEST_HEADER = 1 << 20  # bytes; more is damage


@dataclass(frozen=True)
class Record:
    """The head of a record, and where its data is."""

    fields: dict[str, bytes]
    begin: int
    size: int

    @property
    def kind(self) -> int:
        """0 if it says none."""
        return self.fields.get("op", b"\0")[0]

    def number(self, name: str) -> int:
        """A field of 4 or 8 bytes; raises ValueError if it is not there."""
        data = self.fields.get(name, b"")
        if len(data) not in (4, 8):
            raise ValueError(f"no field {name}")
        return int.from_bytes(data, "little")


class Rosbag1:
    """A `.bag` file."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError if it is none."""
        self.path = path
        self.damage = ""
        self._names: dict[int, str] = {}  # of the topics, by connection
        with self._file() as file:
            magic = file.read(len(MAGIC))
        if not magic:
            raise SourceError(f"{path} is empty")
        if magic[:8] == MAGIC[:8] and magic != MAGIC:
            version = magic.decode(errors="replace").strip()
            raise SourceError(f"{path} is a bag of an old version ({version}): rosbag fix brings it to 2.0")
        if magic != MAGIC:
            raise SourceError(f"{path} is no ROS 1 bag: it does not begin with {MAGIC.decode().strip()}")

    def topics(self) -> list[Topic]:
        """By the index, else by the records."""
        self.damage = ""
        types: dict[str, str] = {}
        counts: Counter[int] = Counter()
        with self._file() as file:
            for record in self._records(file, self._index(file)):
                with noted(self):
                    self._count(file, record, types, counts)
        by_name: Counter[str] = Counter({name: 0 for name in types})
        for connection, count in counts.items():
            by_name[self._names.get(connection, "")] += count
        return [Topic(name, types[name], "ros1", count) for name, count in by_name.items() if name in types]

    def messages(self, names: Collection[str]) -> Iterator[RawMessage]:
        """Those of damaged chunks are left out."""
        self.damage = ""
        with self._file() as file:
            for record in self._records(file, len(MAGIC)):
                if record.kind == CHUNK:
                    data = self._chunk(file, record)
                    stream = io.BytesIO(data)
                    for inner in self._records(stream, 0):
                        yield from self._message(stream, inner, names)
                else:
                    yield from self._message(file, record, names)

    def _message(self, stream: BinaryIO, record: Record, names: Collection[str]) -> Iterator[RawMessage]:
        with noted(self):
            if record.kind == CONNECTION:
                self._connection(stream, record)
            elif record.kind == MESSAGE:
                name = self._names.get(record.number("conn"), "")
                if name in names:
                    seconds, nanoseconds = struct.unpack("<II", record.fields["time"])
                    yield RawMessage(name, seconds * 10**9 + nanoseconds, _data(stream, record))

    def _count(self, stream: BinaryIO, record: Record, types: dict[str, str], counts: Counter[int]) -> None:
        """What a record says of connections and numbers of messages."""
        if record.kind == CONNECTION:
            name, type_name = self._connection(stream, record)
            types[name] = type_name
        elif record.kind == CHUNK_INFO:
            data = _data(stream, record)
            counts.update(dict(struct.iter_unpack("<II", data[: 8 * record.number("count")])))
        elif record.kind == CHUNK:
            inside = io.BytesIO(self._chunk(stream, record))
            for inner in self._records(inside, 0):
                with noted(self):
                    self._count(inside, inner, types, counts)
        elif record.kind == MESSAGE:
            counts[record.number("conn")] += 1

    def _connection(self, stream: BinaryIO, record: Record) -> tuple[str, str]:
        """Name and type of its topic."""
        name = record.fields.get("topic", b"").decode(errors="replace")
        fields = _fields(_data(stream, record))
        package, _, kind = fields.get("type", b"").decode(errors="replace").rpartition("/")
        self._names[record.number("conn")] = name
        return name, f"{package}/msg/{kind}"

    def _index(self, file: BinaryIO) -> int:
        """Where the index begins; of a recording without one, where the records begin."""
        first = next(self._records(file, len(MAGIC)), None)
        if first is None or first.kind != HEADER:
            return len(MAGIC)
        index = int.from_bytes(first.fields.get("index_pos", b""), "little")
        size = file.seek(0, io.SEEK_END)
        at_index = next(self._records(file, index), None) if 0 < index < size else None
        self.damage = "" if at_index is not None else "it has no index"
        return index if at_index is not None and at_index.kind in (CONNECTION, CHUNK_INFO) else len(MAGIC)

    def _chunk(self, file: BinaryIO, record: Record) -> bytes:
        """The records in a chunk; nothing (and it is noted) if it is damaged."""
        data = _data(file, record)
        compression = record.fields.get("compression", b"none").decode(errors="replace")
        try:
            if compression == "lz4":
                return lz4_decompress(data)
            if compression == "bz2":
                return bz2_decompress(data)
        except ValueError as error:
            self.damage = f"a chunk is damaged ({error})"
            return b""
        if compression != "none":
            raise SourceError(f"{self.path} is compressed by {compression}, which is not supported (bz2, lz4)")
        return data

    def _records(self, stream: BinaryIO, begin: int) -> Iterator[Record]:
        """From a position to the end, or to the first damage, which is noted."""
        end = stream.seek(0, io.SEEK_END)
        position = begin
        while position < end:
            stream.seek(position)
            try:
                length = int.from_bytes(stream.read(4), "little")
                header = stream.read(length) if length <= LONGEST_HEADER else b""
                fields = _fields(header)
                size = struct.unpack("<I", stream.read(4))[0]
            except (struct.error, ValueError):
                fields, size = {}, 0
            record = Record(fields, stream.tell(), size)
            if "op" not in fields or record.begin + size > end:
                self.damage = f"it is cut off or damaged at byte {position} of {end}"
                return
            yield record
            position = record.begin + size

    def _file(self) -> BinaryIO:
        try:
            return open_file(self.path)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {reason(error)}") from error


def _fields(data: bytes) -> dict[str, bytes]:
    """`name=value` fields, each after its length; raises ValueError if they are damaged."""
    fields = {}
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        name, equals, value = data[position + 4 : position + 4 + length].partition(b"=")
        if not equals or not re.fullmatch(rb"\w+", name):
            raise ValueError("a damaged field")
        fields[name.decode()] = value
        position += 4 + length
    return fields


def _data(stream: BinaryIO, record: Record) -> bytes:
    stream.seek(record.begin)
    return read_part(stream, record.size)

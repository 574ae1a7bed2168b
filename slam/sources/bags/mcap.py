"""MCAP files, also without their summary or cut off.

Reference: https://mcap.dev/spec
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from slam.errors import SourceError
from slam.reading import open_file, reason
from slam.sources.bags.storage import RawMessage, Topic, lz4_decompress, noted, read_part, zstd_decompress

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, DATA_END = 2, 3, 4, 5, 6, 11, 15  # kinds of records
FOOTER_SIZE = 29 + len(MAGIC)
HEAD = struct.Struct("<BQ")  # kind and size of a record


@dataclass
class Contents:
    """What records say of the topics."""

    schemas: dict[int, str] = field(default_factory=dict)  # names of types
    channels: dict[int, tuple[str, int, str]] = field(default_factory=dict)  # topic, schema, encoding
    counts: Counter[int] = field(default_factory=Counter)  # of messages, by channel
    is_counted: bool = False  # by the statistics of the file


class McapFile:
    """An `.mcap` file."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError if it is none."""
        self.path = path
        self.damage = ""
        with self._file() as file:
            magic = file.read(len(MAGIC))
        if not magic:
            raise SourceError(f"{path} is empty")
        if magic != MAGIC:
            raise SourceError(f"{path} is no MCAP file: it does not begin like one")

    def topics(self) -> list[Topic]:
        """By the summary, else by all records."""
        self.damage = ""
        with self._file() as file:
            contents = self._summary(file) or self._scanned(file)
        counts = {channel: contents.counts[channel] for channel in contents.channels}
        found: dict[str, Topic] = {}
        for channel, (name, schema, encoding) in contents.channels.items():
            earlier = found[name].count if name in found else 0
            found[name] = Topic(name, contents.schemas.get(schema, "?"), encoding, earlier + counts[channel])
        return list(found.values())

    def messages(self, names: Collection[str]) -> Iterator[RawMessage]:
        """Those of damaged chunks are left out."""
        self.damage = ""
        contents = Contents()
        with self._file() as file:
            for kind, size in self._records(file, len(MAGIC)):
                if kind == DATA_END:
                    return
                if kind == CHUNK:
                    yield from sorted(self._inside(read_part(file, size), contents, names), key=lambda m: m.time_ns)
                else:
                    yield from self._message(kind, file, size, contents, names)

    def _inside(self, chunk: bytes, contents: Contents, names: Collection[str]) -> Iterator[RawMessage]:
        stream = io.BytesIO(self._decompressed(chunk))
        for kind, size in self._records(stream, 0):
            yield from self._message(kind, stream, size, contents, names)

    def _summary(self, file: BinaryIO) -> Contents | None:
        """What the end of the file says; None if that is not there, or does not count the messages."""
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - FOOTER_SIZE))
        footer = file.read()
        if len(footer) < FOOTER_SIZE or footer[0] != FOOTER or not footer.endswith(MAGIC):
            return None
        begin = int.from_bytes(footer[9:17], "little")
        if not len(MAGIC) < begin < end:
            return None
        contents = Contents()
        for kind, size in self._records(file, begin):
            if kind == FOOTER:
                break
            self._learn(kind, read_part(file, size), contents)
        return contents if contents.is_counted and contents.channels else None

    def _scanned(self, file: BinaryIO) -> Contents:
        contents = Contents()
        for kind, size in self._records(file, len(MAGIC)):
            if kind == DATA_END:
                break
            data = read_part(file, size)
            if kind == CHUNK:
                stream = io.BytesIO(self._decompressed(data))
                for inner, inner_size in self._records(stream, 0):
                    self._learn(inner, stream.read(inner_size), contents)
            else:
                self._learn(kind, data, contents)
        return contents

    def _message(
        self, kind: int, stream: BinaryIO, size: int, contents: Contents, names: Collection[str]
    ) -> Iterator[RawMessage]:
        """The message of a record, if it is one of these topics."""
        if kind in (SCHEMA, CHANNEL):
            self._learn(kind, read_part(stream, size), contents)
        elif kind == MESSAGE:
            with noted(self):
                channel, _, time_ns, _ = struct.unpack("<HIQQ", stream.read(22))
                name = contents.channels.get(channel, ("", 0, ""))[0]
                if name in names:
                    yield RawMessage(name, time_ns, read_part(stream, size - 22))

    def _learn(self, kind: int, data: bytes, contents: Contents) -> None:
        """Take what a record says of schemas, channels and numbers of messages."""
        with noted(self):
            if kind == SCHEMA:
                contents.schemas[int.from_bytes(data[:2], "little")] = _type_name(_text(data, 2)[0])
            elif kind == CHANNEL:
                channel, schema = struct.unpack_from("<HH", data)
                topic, position = _text(data, 4)
                contents.channels[channel] = (topic, schema, _text(data, position)[0])
            elif kind == MESSAGE:
                contents.counts[int.from_bytes(data[:2], "little")] += 1
            elif kind == STATISTICS:
                size = int.from_bytes(data[42:46], "little")
                contents.counts = Counter(dict(struct.iter_unpack("<HQ", data[46 : 46 + size])))
                contents.is_counted = True

    def _decompressed(self, chunk: bytes) -> bytes:
        """The records in a chunk; nothing (and it is noted) if it is damaged."""
        try:
            size, crc = struct.unpack_from("<QI", chunk, 16)
            compression, position = _text(chunk, 28)
            data = chunk[position + 8 :]
            if compression == "zstd":
                data = zstd_decompress(data)
            elif compression == "lz4":
                data = lz4_decompress(data)
            elif compression:
                raise SourceError(f"{self.path} is compressed by {compression}, which is not supported (zstd, lz4)")
            if len(data) != size or (crc and zlib.crc32(data) != crc):
                raise ValueError("its checksum is wrong")
        except (ValueError, struct.error) as error:
            self.damage = f"a chunk is damaged ({error})"
            return b""
        return data

    def _records(self, stream: BinaryIO, begin: int) -> Iterator[tuple[int, int]]:
        """Kind and size of each record, with `stream` at its data, up to the end or the first damage."""
        end = stream.seek(0, io.SEEK_END)
        position = begin
        is_file = begin > 0
        while position < end - (len(MAGIC) if is_file else 0):
            stream.seek(position)
            head = stream.read(HEAD.size)
            kind, size = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
            if kind == 0 or position + HEAD.size + size > end:
                self.damage = f"it is cut off or damaged at byte {position} of {end}"
                return
            yield kind, size
            if kind == FOOTER:
                return
            position += HEAD.size + size
        if is_file:
            self.damage = f"it is cut off at byte {end}"

    def _file(self) -> BinaryIO:
        try:
            return open_file(self.path)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {reason(error)}") from error


def _type_name(name: str) -> str:
    """`sensor_msgs/Image` of ROS 1 becomes `sensor_msgs/msg/Image`."""
    package, slash, kind = name.partition("/")
    return f"{package}/msg/{kind}" if slash and "/" not in kind else name


def _text(data: bytes, position: int) -> tuple[str, int]:
    """A text after its length, and where it ends."""
    begin = position + 4
    end = begin + int.from_bytes(data[position:begin], "little")
    return data[begin:end].decode(errors="replace"), end

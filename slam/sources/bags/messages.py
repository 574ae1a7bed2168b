"""Messages of ROS, taken apart by `rosbags`; the few types used here are the same in ROS 1 and all ROS 2."""

import struct
from dataclasses import dataclass
from typing import Any

from slam.sources.bags.storage import RawMessage, Topic, library, zstd_decompress

ENCODINGS = ("ros1", "cdr")  # others, such as protobuf, are not ROS's
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # a recorder may compress each message; no CDR begins like that


class MessageError(ValueError):
    """A message is damaged, or cannot be used."""


@dataclass(frozen=True, eq=False)
class Message:
    """One message."""

    topic: str
    bag_ns: int  # when it was recorded
    content: Any  # an object with the fields of its type

    @property
    def header_ns(self) -> int:
        """The stamp of its header."""
        stamp = self.content.header.stamp
        return int(stamp.sec) * 10**9 + int(stamp.nanosec)

    @property
    def frame_id(self) -> str:
        """The coordinate frame that its header names, without a leading slash."""
        return str(self.content.header.frame_id).lstrip("/")


class Decoder:
    """Takes messages of known topics apart."""

    def __init__(self, topics: list[Topic]) -> None:
        """Raises SourceError if rosbags is not installed."""
        self._typesys = library("rosbags.typesys")
        self._errors = (library("rosbags.serde").SerdeError, struct.error, ValueError, IndexError, OverflowError)
        self._topics = {topic.name: topic for topic in topics}
        self._stores: dict[str, Any] = {}

    def decode(self, raw: RawMessage) -> Message:
        """Take a message apart.

        Raises:
            MessageError: if it is damaged.
        """
        topic = self._topics[raw.topic]
        store = self._store(topic.encoding)
        try:
            data = zstd_decompress(raw.data) if raw.data[:4] == ZSTD_MAGIC else raw.data
            take_apart = store.deserialize_ros1 if topic.encoding == "ros1" else store.deserialize_cdr
            return Message(raw.topic, raw.time_ns, take_apart(data, topic.type))
        except self._errors as error:
            raise MessageError("the message is damaged") from error

    def _store(self, encoding: str) -> Any:
        if encoding not in self._stores:
            stores = self._typesys.Stores
            chosen = stores.ROS1_NOETIC if encoding == "ros1" else stores.ROS2_HUMBLE
            self._stores[encoding] = self._typesys.get_typestore(chosen)
        return self._stores[encoding]

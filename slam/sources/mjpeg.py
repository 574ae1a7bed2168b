"""Images of a camera that pushes them over HTTP (multipart/x-mixed-replace), each of a bounded size.

FFmpeg reads such streams too, and takes memory for an image without an end until there is none.
"""

import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any

from slam.errors import SourceError
from slam.sources.web import opened

MAX_IMAGE_BYTES = 32 << 20  # of a JPEG: 60 million pixels of good quality
MAX_LINE_BYTES, MAX_LINES = 4096, 64  # of the headers of an image
CHUNK_BYTES = 1 << 16


def image_stream(url: str, timeout_s: float) -> Any:
    """The answer of a camera that pushes images; None if what answers is anything else.

    Raises:
        SourceError, OSError, HTTPException, ValueError: as `slam.sources.web.opened`.
    """
    answer = opened(url, timeout_s)
    if answer.headers.get_content_type() == "multipart/x-mixed-replace":
        return answer
    answer.close()
    return None


def image_parts(answer: Any, name: str) -> Iterator[bytes]:
    """The images of a stream, as files, until it ends.

    Args:
        name: the camera, for messages.

    Raises:
        SourceError: if an image has no end, or the stream is none of images.
        OSError, HTTPException: if the connection breaks.
    """
    stream = _Stream(answer, name)
    boundary = str(answer.headers.get_param("boundary", "")).strip('"').lstrip("-").encode()
    delimiter = re.compile(rb"\r?\n--+" + re.escape(boundary))
    while (headers := stream.headers()) is not None:
        stated = headers.get("Content-Length", "")
        data = stream.read(int(stated[:12])) if stated.isdecimal() else stream.up_to(delimiter)
        if data is None:
            return
        yield data


class _Stream:
    """What was received and not used yet."""

    def __init__(self, answer: Any, name: str) -> None:
        self._answer = answer
        self._name = name
        self._data = bytearray()

    def headers(self) -> Message | None:
        """The headers of the next part; None at the end of the stream."""
        lines: list[bytes] = []
        is_inside = False
        for _ in range(MAX_LINES):
            line = self._line()
            if line is None:
                return None
            if not is_inside:
                is_inside = line.startswith(b"--")
            elif line.strip():
                lines.append(line)
            else:
                return BytesHeaderParser().parsebytes(b"".join(lines))
        raise SourceError(f"what {self._name} sends are no images: no headers in {MAX_LINES} lines")

    def read(self, size: int) -> bytes | None:
        """The next bytes; None at the end of the stream."""
        if size > MAX_IMAGE_BYTES:
            raise SourceError(f"an image of {self._name} is said to have {size} bytes, which is none of a camera")
        while len(self._data) < size:
            if not self._receive():
                return None
        return self._take(size)

    def up_to(self, delimiter: "re.Pattern[bytes]") -> bytes | None:
        """What comes before a delimiter; None at the end of the stream."""
        seen = 0
        while (found := delimiter.search(self._data, seen)) is None:
            seen = max(len(self._data) - MAX_LINE_BYTES, 0)  # it may lie across
            if len(self._data) > MAX_IMAGE_BYTES:
                raise SourceError(f"an image of {self._name} has no end within {MAX_IMAGE_BYTES >> 20} MiB")
            if not self._receive():
                return None
        return self._take(found.start())

    def _line(self) -> bytes | None:
        while (end := self._data.find(b"\n")) < 0:
            if len(self._data) > MAX_LINE_BYTES:
                raise SourceError(f"what {self._name} sends are no images: a header without an end")
            if not self._receive():
                return None
        return self._take(end + 1)

    def _receive(self) -> bool:
        chunk = self._answer.read1(CHUNK_BYTES)
        self._data += chunk
        return bool(chunk)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

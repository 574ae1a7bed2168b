"""Files that a user names: plain ones alone, of a bounded size, with errors that a user understands."""

import codecs
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from slam.errors import SlamError, SourceError

MAX_TEXT_BYTES = 256 << 20  # poses of 100 bytes, 30 a second, for a day
MAX_LINES = 2_500_000  # of a text: the same
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # of a disk, or a user's share of it
KINDS = {  # of what is no file, by the bits of its mode
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def open_file(path: Path) -> BinaryIO:
    """A file for reading, in binary: whatever a user names is opened here.

    Raises:
        OSError: if it cannot be opened, or is a folder, a pipe or a device, which may never end.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  given to the caller
    mode = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
    if mode != stat.S_IFREG:
        file.close()
        raise OSError(errno.EINVAL, f"it is {KINDS.get(mode, 'something else')}, not a file; copy its content into one")
    return file


def _without_waiting(path: str, flags: int) -> int:
    """Open as `open` does; of a pipe at once, though nobody writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
        OSError: if it cannot be read, is no plain file, or is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit / 2**20:g} MiB, which no such file is")
        return file.read(size)


def read_text(
    path: Path, what: str, error: Callable[[str], SlamError] = SourceError, limit: int = MAX_TEXT_BYTES
) -> str:
    """The text of a file, UTF-8 or, by its first bytes, UTF-16; `what` names it in the message.

    Raises:
        error: if the file is missing, no plain file, not readable, not text, or longer than any such text (`limit`
            bytes, MAX_LINES lines).
    """
    try:
        data = read_bytes(path, limit)
    except FileNotFoundError as cause:
        raise error(f"no {what} at {path}") from cause
    except (OSError, ValueError) as cause:  # ValueError: a zero byte in the path
        raise error(f"cannot read the {what} {path}: {reason(cause)}") from cause
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not a {what}: it is not text (UTF-8; save it as that)") from cause
    if "\0" in text:
        raise error(f"{path} is not a {what}: it is not text")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > MAX_LINES:
        raise error(f"{path} is no {what}: it has more than {MAX_LINES} lines")
    return text


def _encoding(data: bytes) -> str:
    """UTF-8 unless a mark, as editors on Windows write it, or a zero as one of the first two bytes says UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if data[1:2] == b"\0" and len(data) % 2 == 0:
        return "utf-16-le"
    return "utf-16-be" if data[:1] == b"\0" and data[1:2] != b"\0" and len(data) % 2 == 0 else "utf-8-sig"


def reason(error: Exception) -> str:
    """What the operating system said, without number and path, and what to do."""
    remedy = "; free some space" if getattr(error, "errno", None) in FULL else ""
    return f"{getattr(error, 'strerror', None) or error}{remedy}"

"""Whole files or none: atomic writing, and text with errors a user understands."""

import codecs
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from slam.errors import OutputError, SlamError, SourceError
from slam.parsing import parse_json

PACKAGE = Path(__file__).resolve().parents[1]
MAX_TEXT_BYTES = 512 << 20  # a pose of 100 bytes, 30 a second, for two days


def shipped(name: str) -> Path:
    """Path of a file of `configs/`: inside the package when installed, beside it in a checkout.

    Raises:
        SourceError: if the file is in neither place (a damaged installation).
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise SourceError(f"the installation lacks configs/{name}: install v2d-slam again")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` when the block ends well, and leaves no trace when it fails.

    Raises:
        OutputError: if the file system refuses (no folder, no permission, disk full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)  # gone already where it was moved


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically; raises OutputError."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text atomically, lines ended by a line feed; raises OutputError."""
    write_bytes(path, text.encode())


def read_text(path: Path, what: str, error: Callable[[str], SlamError] = SourceError) -> str:
    """The text of a file, UTF-8 or, by its first bytes, UTF-16; `what` names it in the message.

    Raises:
        error: if the file is missing, not readable, not text, or longer than any such text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError as cause:
        raise error(f"no {what} at {path}") from cause
    except (OSError, ValueError) as cause:  # ValueError: a zero byte in the path
        raise error(f"cannot read the {what} {path}: {reason(cause)}") from cause
    if len(data) > MAX_TEXT_BYTES:
        raise error(f"{path} is no {what}: it is longer than {MAX_TEXT_BYTES >> 20} MiB")
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not a {what}: it is not text (UTF-8; save it as that)") from cause
    if "\0" in text:
        raise error(f"{path} is not a {what}: it is not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, kind: type) -> Any:
    """The values of a JSON file that holds a `kind` (dict, list).

    Raises:
        SourceError: if it is missing, damaged, or holds something else.
    """
    try:
        values = parse_json(read_text(path, "JSON file"))
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, kind):
        raise SourceError(f"{path} must hold a {kind.__name__}, it holds a {type(values).__name__}")
    return values


def _encoding(data: bytes) -> str:
    """UTF-8 unless a mark, as editors on Windows write it, or a zero as one of the first two bytes says UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if data[1:2] == b"\0" and len(data) % 2 == 0:
        return "utf-16-le"
    return "utf-16-be" if data[:1] == b"\0" and data[1:2] != b"\0" and len(data) % 2 == 0 else "utf-8-sig"


def reason(error: Exception) -> str:
    """What the operating system said, without number and path."""
    return getattr(error, "strerror", None) or str(error)


def _umask() -> int:
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    return mask

"""Whole files or none: atomic writing; JSON; files that are installed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from slam.errors import OutputError, SourceError
from slam.parsing import parse_json
from slam.reading import read_text, reason

PACKAGE = Path(__file__).resolve().parents[1]
MAX_JSON_BYTES = 64 << 20  # a keyframe takes 2 kB in its list
PROBE_BYTES = 1 << 16  # a disk that is full takes no more


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
        OutputError: if the file system refuses (no folder, no permission, disk full), or it is a folder or device.
    """
    _check_kind(path)
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


def check_writable(path: Path) -> None:
    """Refuse early a file that could not be written at the end of a long job; its folder is made.

    Raises:
        OutputError: if it is a folder or device, or there is no permission or no room there.
    """
    _check_kind(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"\0" * PROBE_BYTES)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error


def removed(file: IO[bytes], path: Path) -> OutputError | None:
    """What happened to a file that was opened under `path`, and into which all went well, but is no longer there."""
    with suppress(OSError):
        if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return None
    return OutputError(f"{path} was removed, or moved, while it was written")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically; raises OutputError."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text atomically, lines ended by a line feed; raises OutputError."""
    write_bytes(path, text.encode())


def read_json(path: Path, kind: type) -> Any:
    """The values of a JSON file that holds a `kind` (dict, list).

    Raises:
        SourceError: if it is missing, damaged, or holds something else.
    """
    try:
        values = parse_json(read_text(path, "JSON file", limit=MAX_JSON_BYTES))
    except ValueError as error:
        raise SourceError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, kind):
        raise SourceError(f"{path} must hold a {kind.__name__}, it holds a {type(values).__name__}")
    return values


def _check_kind(path: Path) -> None:
    """Refuse to replace what is no file; raises OutputError."""
    if os.path.isdir(path):  # as the functions of Path do not, this takes a folder that may not be searched for none
        raise OutputError(f"cannot write {path}: it is a folder, name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"cannot write {path}: it is no file; name one that can be replaced")


def _umask() -> int:
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    return mask

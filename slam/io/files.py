"""Whole files or none: atomic writing, and text with errors a user understands."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from slam.errors import OutputError, SlamError, SourceError

PACKAGE = Path(__file__).resolve().parents[1]


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
    """The text of a file; `what` names it in the message.

    Raises:
        error: if the file is missing, not readable or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors put a mark in front
    except FileNotFoundError as cause:
        raise error(f"no {what} at {path}") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not a {what}: it is not text") from cause
    except OSError as cause:
        raise error(f"cannot read the {what} {path}: {reason(cause)}") from cause


def reason(error: OSError) -> str:
    """What the operating system said, without number and path."""
    return error.strerror or str(error)


def _umask() -> int:
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    return mask

"""Listing folders without what operating systems leave in them."""

from collections.abc import Iterator
from pathlib import Path

from slam.errors import SourceError
from slam.reading import reason

LEFTOVERS = {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir"}


def is_leftover(name: str) -> bool:
    """True of the name of a file or folder that no user put there: `._a.jpg`, `.DS_Store`, `Thumbs.db`, ...

    Whatever starts with a dot is hidden, and counts as one.
    """
    return name.startswith(".") or name.lower() in LEFTOVERS


def is_file(path: Path) -> bool:
    """True if this is a file; False also of a name that no file can have (too long, a zero byte in it)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def entries(folder: Path) -> Iterator[Path]:
    """Files and folders of a folder, in no order, without leftovers; nothing where there is no folder.

    Raises:
        SourceError: if the folder cannot be read.
    """
    try:
        found = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise SourceError(f"cannot read the folder {folder}: {reason(error)}") from error
    return (entry for entry in found if not is_leftover(entry.name))

"""The folder that an export fills: complete, or not there."""

import glob
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slam import __version__
from slam.errors import OutputError, UsageError
from slam.io.files import read_json
from slam.reading import reason

log = logging.getLogger(__name__)

PART = ".part"  # end of the name of a folder that is being filled
MARK = "export.json"  # in every exported folder, so that --overwrite replaces no other


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that an export would have to replace.

    Raises:
        UsageError: if it holds anything, unless that is an earlier export which may be overwritten.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder} is no folder; choose another with --out")
    if not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        raise UsageError(f"{folder} holds files that v2d-export has not written; choose another folder with --out")
    if not overwrite:
        raise UsageError(f"{folder} holds an earlier export; give --overwrite to replace it, or another --out")


@contextmanager
def filled(folder: Path, target: str, run: Path, conventions: list[str], overwrite: bool) -> Iterator[Path]:
    """A folder beside `folder` that takes its name when the block ends well, and leaves no trace when it fails.

    What exports that were killed have left there is removed first.

    Raises:
        UsageError: see `check_free`.
        OutputError: if the file system refuses.
    """
    check_free(folder, overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        beside, lock = locked_beside(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {reason(error)}") from error
    try:
        yield beside
        about = {"program": f"v2d-slam {__version__}", "target": target, "run": str(run), "conventions": conventions}
        (beside / MARK).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        beside.chmod(0o755)
        _take_place(beside, folder, overwrite)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {reason(error)}") from error
    except OutputError as error:
        raise OutputError(str(error).replace(str(beside), str(folder))) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # gone already where it was moved
        if lock is not None:
            os.close(lock)


def locked_beside(folder: Path) -> tuple[Path, int | None]:
    """A new folder beside another, and the lock that says that this process fills it, None where there are no locks."""
    while True:
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=PART))
        lock = locked(beside, wait=True)
        if beside.is_dir():  # or another export has taken it for a leftover, before it was locked
            return beside, lock
        if lock is not None:
            os.close(lock)


def remove_leftovers(folder: Path) -> None:
    """Remove what exports to this folder have left beside it that no living process fills."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.????????{PART}*"):
        lock = locked(path, wait=False)
        if lock is not None:
            log.info("removing %s, which an export that was killed has left", path)
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def locked(folder: Path, wait: bool) -> int | None:
    """A lock on a folder, to be closed; None where another process holds it, or there are no locks on folders."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # removed, or no folder
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held, or a file system without locks
        os.close(handle)
        return None
    return handle


def _take_place(beside: Path, folder: Path, overwrite: bool) -> None:
    check_free(folder, overwrite)  # which may have been filled since
    if not folder.exists():
        beside.rename(folder)
        return
    old = folder.with_name(f"{beside.name}.old")
    folder.rename(old)
    try:
        beside.rename(folder)
    except BaseException:  # an interruption, too, must not take the earlier export away
        if not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def exported_target(folder: Path) -> str:
    """The name of the target that a folder was exported for; raises SourceError if it is no such folder."""
    return str(read_json(folder / MARK, dict).get("target"))

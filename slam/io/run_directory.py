"""The directory of one run, and what could not be written into it."""

import json
import logging
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from slam.errors import OutputError
from slam.io.files import write_text
from slam.reading import read_text, reason

log = logging.getLogger(__name__)

LATEST = "latest"
MAX_POINTER_BYTES = 1024
LOGGED = 3  # missing files that are logged one by one


class RunDirectory:
    """Where a run writes its files; a file that cannot be written is noted in `missing`, and the others still are."""

    def __init__(self, path: Path) -> None:
        """Use `path`, made if absent.

        Raises:
            OutputError: if it cannot be made, is a file, or may not be written to.
        """
        self.path = path
        self.missing: dict[str, str] = {}  # file name -> why it is not there
        probe = path / ".writable"
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write results into {path}: {reason(error)}; choose another with --out"
            ) from error

    @classmethod
    def create(cls, root: Path = Path("results"), now: datetime | None = None) -> "RunDirectory":
        """Make `root/<YYYY-mm-dd_HH-MM-SS>/`, with a number behind if taken, and point `root/latest` to it.

        Raises:
            OutputError: if `root` may not be written to.
        """
        stamp = (now or datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
        name, number = stamp, 1
        while True:
            try:
                (root / name).mkdir(parents=True)  # fails if another run was faster
                break
            except FileExistsError as error:
                if root.exists() and not root.is_dir():
                    raise OutputError(f"cannot write results into {root}: it is a file; choose another") from error
                number += 1
                name = f"{stamp}_{number}"
            except OSError as error:
                raise OutputError(f"cannot write results into {root}: {reason(error)}; choose another") from error
        run = cls(root / name)
        _point_latest(root, name)
        return run

    def write(self, name: str, writer: Callable[[Path], None]) -> bool:
        """Let `writer` write the file `name` (its folder is made).

        Returns:
            False if the file system refused (disk full): logged as ERROR and noted in `missing`.
        """
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer(path)
        except (OSError, OutputError) as error:
            level = logging.ERROR if len(self.missing) < LOGGED else logging.DEBUG  # a full disk refuses hundreds
            self.missing[name] = reason(error) if isinstance(error, OSError) else str(error)
            log.log(level, "%s is missing: %s", path, self.missing[name])
            return False
        self.missing.pop(name, None)
        return True

    def missing_words(self) -> str:
        """What is missing, in a few words; empty if nothing is."""
        names = list(self.missing)
        if not names:
            return ""
        more = f" and {len(names) - LOGGED} more" if len(names) > LOGGED else ""
        return f"{', '.join(names[:LOGGED])}{more} not written ({self.missing[names[0]]})"

    def write_json(self, name: str, value: Any) -> bool:
        """Write JSON atomically, see `write`; numbers that are not finite become null, as JSON has none."""
        text = json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"
        return self.write(name, lambda path: write_text(path, text))

    def write_yaml(self, name: str, value: Any) -> bool:
        """Write YAML atomically in the order given, see `write`."""
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        return self.write(name, lambda path: write_text(path, text))

    def write_text(self, name: str, text: str) -> bool:
        """Write text atomically, see `write`."""
        return self.write(name, lambda path: write_text(path, text))


def latest_run(root: Path = Path("results")) -> Path:
    """The run that `root/latest` points to.

    Raises:
        OutputError: if there is none, or it was removed.
    """
    pointer = root / LATEST
    if pointer.is_file():  # a text pointer, where links need rights
        pointer = root / read_text(pointer, "name of a run", OutputError, MAX_POINTER_BYTES).strip()
    if not pointer.is_dir():
        raise OutputError(f"{root / LATEST} points to no run; name a run directory")
    return pointer.resolve()


def _point_latest(root: Path, name: str) -> None:
    """Point `latest` to the run: a symbolic link, or a text file with its name where links fail (Windows)."""
    pointer, temporary = root / LATEST, root / f".{LATEST}.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(name, target_is_directory=True)
        except (OSError, NotImplementedError):
            temporary.write_text(name + "\n", encoding="utf-8")
        os.replace(temporary, pointer)
    except OSError as error:  # a convenience: the run itself is sound
        log.warning("cannot update %s: %s", pointer, reason(error))


def _plain(value: Any) -> Any:
    """JSON without numpy types, NaN and infinities."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value

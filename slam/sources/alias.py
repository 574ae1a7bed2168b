"""Short names of public sequences (`tum/fr1_desk`), from the tables in `configs/datasets/`."""

import difflib
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slam.errors import SourceError, listed
from slam.geometry.camera import Camera
from slam.io.calibration import read_calibration
from slam.io.files import shipped
from slam.io.folders import entries
from slam.reading import read_text
from slam.sources.archives import extract
from slam.sources.download import download

DATASETS = ("tum", "7scenes")
DATA_VARIABLE = "V2D_DATA"
DEFAULT_ROOTS = (Path("datasets"), Path("data"))


@dataclass(frozen=True)
class KnownSequence:
    """One public sequence."""

    alias: str  # such as tum/fr1_desk
    folders: tuple[str, ...]  # where it may lie below a data root, the usual place first
    url: str  # of the archive


def resolve_sequence(name: str, data_root: Path | None = None, fetch: bool = False, progress: bool = True) -> Path:
    """The folder or file that the user means by `--sequence NAME`.

    Args:
        name: a path, or an alias, with a folder inside the sequence behind it if wanted (`7scenes/chess/seq-03`).
        data_root: looked into first, then $V2D_DATA, ./datasets, ./data.
        fetch: download a known sequence that is not there (into the first of these that is given, else ./datasets).

    Raises:
        SourceError: if it is neither; says where it looked, what is there and which names are known.
    """
    path = Path(os.path.expanduser(name))  # not Path's, which raises where there is no home
    if path.exists():
        return path
    known, inner = _known_sequence(name)
    roots = _roots(data_root)
    found = [root / folder for root in roots for folder in known.folders if (root / folder).is_dir()]
    if found:
        return _inner(found[0], inner)
    if fetch:
        return _inner(fetch_sequence(known, roots[0], progress), inner)
    names = dict.fromkeys(Path(folder).name for folder in known.folders)
    raise SourceError(
        f"{known.alias} is not on this computer: looked for {' or '.join(names)} in "
        f"{'; '.join(_described(root) for root in roots)}. "
        f"Name the place with --data-root, or add --download to fetch {known.url}"
    )


def fetch_sequence(known: KnownSequence, root: Path, progress: bool = True) -> Path:
    """Download and unpack a sequence below `root`; the archive is removed afterwards.

    Raises:
        SourceError: if the download or the archive is bad.
    """
    folder = root / known.folders[0]
    archive = download(known.url, folder.parent / known.url.rsplit("/", 1)[1], progress=progress)
    try:
        return extract(archive, folder)
    finally:
        archive.unlink(missing_ok=True)  # used up, or damaged


def known_aliases() -> dict[str, KnownSequence]:
    """All sequences with a short name."""
    known = {}
    for dataset in DATASETS:
        table = _table(dataset)
        for group in table["groups"]:
            for name in group["sequences"]:
                alias = f"{dataset}/{group['alias'].format(name=name)}"
                names = [pattern.format(name=name) for pattern in group["names"]]
                folders = tuple(str(Path(parent) / folder) for parent in table["folders"] for folder in names)
                known[alias] = KnownSequence(alias, folders, group["url"].format(name=name))
        for synonym, name in table["synonyms"].items():
            known[f"{dataset}/{synonym}"] = known[f"{dataset}/{name}"]
    return known


def known_camera(folder: Path) -> Camera | None:
    """The published calibration of the data set to which a folder belongs by its name, if any."""
    for dataset in DATASETS:
        for group in _table(dataset)["groups"]:
            if any(mark in folder.resolve().name for mark in group["marks"]):
                return read_calibration(shipped(group["calibration"]))
    return None


@functools.cache
def _table(dataset: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(read_text(shipped(f"datasets/{dataset}.yaml"), "table of sequences"))
    return content


def _known_sequence(name: str) -> tuple[KnownSequence, str]:
    """The sequence of an alias, and the folder inside it that was named too."""
    aliases = known_aliases()
    words = name.replace("\\", "/").strip("/").split("/")
    alias = "/".join(words[:2]).lower()
    if alias in aliases:
        return aliases[alias], "/".join(words[2:])
    for known in aliases.values():  # tum/rgbd_dataset_freiburg1_desk
        if len(words) > 1 and words[0].lower() == known.alias.split("/")[0] and words[1] in _names(known):
            return known, "/".join(words[2:])
    is_path = len(words) > 2 or Path(name).suffix or name.startswith((".", "/", "~"))
    if is_path and words[0].lower() not in DATASETS:
        raise SourceError(f"no file or folder at {name}")
    listed = [a for a in aliases if a.startswith(words[0].lower() + "/")] or list(aliases)
    close = difflib.get_close_matches(alias, aliases, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise SourceError(f"{name} is neither a path nor a known sequence{hint}; known: {', '.join(listed)}")


def _names(known: KnownSequence) -> set[str]:
    return {Path(folder).name for folder in known.folders}


def _roots(data_root: Path | None) -> list[Path]:
    variable = os.environ.get(DATA_VARIABLE)
    return [*([data_root] if data_root else []), *([Path(variable)] if variable else []), *DEFAULT_ROOTS]


def _inner(folder: Path, inner: str) -> Path:
    if not (folder / inner).is_dir():
        raise SourceError(f"{folder} has no {inner}; {_described(folder)}")
    return folder / inner


def _described(root: Path) -> str:
    """A folder and what it holds."""
    if not root.is_dir():
        return f"{root} (does not exist)"
    found = sorted(entry.name for entry in entries(root))
    return f"{root} (holds {listed(found)})" if found else f"{root} (is empty)"

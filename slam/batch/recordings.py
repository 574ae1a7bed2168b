"""The recordings that a folder holds and a list names, and a name for the results of each."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from slam.batch.tasks import RUN_FILES
from slam.errors import SourceError
from slam.io.files import read_text
from slam.io.folders import entries
from slam.sources.alias import known_aliases
from slam.sources.bags.storage import STORAGES
from slam.sources.images import images_in
from slam.sources.locate import kind_of, located
from slam.sources.names import natural_key

LIST_SUFFIXES = (".txt", ".lst", ".list")
VIDEO_SUFFIXES = (  # of files that are looked for in folders; a list may name any
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"),
    *(".webm", ".wmv"),
)
BAG_METADATA = "metadata.yaml"  # of a ROS 2 bag, in its folder
MIN_IMAGES = 2  # of a folder that is a recording
MAX_NAME = 100  # characters


@dataclass(frozen=True)
class Recording:
    """One recording and the name of its results."""

    name: str  # of its folder in the folder of all results
    source: str  # as `v2d-slam --sequence` takes it; paths are absolute


def find_sources(inputs: Sequence[str], out: Path) -> list[str]:
    """The recordings that the words of a command line mean, each once, as `v2d-slam --sequence` takes them.

    Args:
        inputs: folders, lists (text files with a recording on each line) and recordings.
        out: folder of the results, which is left out where it lies in one of those.

    Raises:
        SourceError: if a word means nothing, or a folder or a list holds no recording.
    """
    return list(dict.fromkeys(source for word in inputs for source in _sources(word, out.absolute())))


def _sources(word: str, out: Path) -> list[str]:
    path = Path(word).expanduser()
    if path.is_dir():
        found = [str(folder) for folder in _below(path.absolute(), out)]
        if not found:
            raise SourceError(f"no recording in {word}: no video, ROS bag, folder of images or data set that is known")
        return found
    if path.suffix.lower() in LIST_SUFFIXES:
        return _listed(path)
    if path.exists():
        return [str(path.absolute())]
    if _is_elsewhere(word):
        return [word]
    raise SourceError(f"{word} is no folder, no list ({', '.join(LIST_SUFFIXES)}) and no recording")


def _listed(path: Path) -> list[str]:
    """The lines of a list that are neither empty nor comments; paths are relative to the folder of the list."""
    lines = [line.strip() for line in read_text(path, "list of recordings").splitlines()]
    words = [line for line in lines if line and not line.startswith("#")]
    if not words:
        raise SourceError(f"{path} names no recording: it must have a recording on each line")
    return [word if _is_elsewhere(word) else str(path.absolute().parent / Path(word).expanduser()) for word in words]


def _is_elsewhere(word: str) -> bool:
    """True of an address, and of the name of a known sequence (tum/fr1_desk)."""
    return "://" in word or "/".join(word.split("/")[:2]).lower() in known_aliases()


def _below(folder: Path, out: Path) -> Iterator[Path]:
    """The recordings in a folder, in the order of their names: the folder itself where it is one."""
    if folder == out or any((folder / name).exists() for name in RUN_FILES):
        return  # results
    kind = kind_of(folder)
    if kind is not None and (kind != "ros" or (folder / BAG_METADATA).is_file()):  # else each file is a bag of its own
        yield folder
        return
    inside = sorted(entries(folder), key=natural_key)
    files = [path for path in inside if path.suffix.lower() in (*VIDEO_SUFFIXES, *STORAGES) and path.is_file()]
    folders = [path for path in inside if path.is_dir() and not path.is_symlink()]
    if not files and len(images_in(folder)) >= MIN_IMAGES:
        yield folder
        return
    if not files and len(folders) > 1 and all(images_in(path) for path in folders) and _is_one(folder):
        yield folder
        return
    yield from files
    for path in folders:
        yield from _below(path, out)


def _is_one(folder: Path) -> bool:
    """True if the folders of images in a folder are one recording: those of a camera beside depth or masks."""
    try:
        located(folder)
    except SourceError:
        return False
    return True


def name_recordings(sources: Sequence[str], known: Mapping[str, str], reserved: Sequence[str]) -> list[Recording]:
    """A name for each recording: its own, with that of its folder before it where several have the same.

    Args:
        sources: each once.
        known: names given earlier, by `key_of` their recordings; they stay.
        reserved: names that are taken by something else.
    """
    taken = {name.casefold() for name in [*known.values(), *reserved]}
    short = Counter(_stem(source).casefold() for source in sources)
    named = []
    for source in sources:
        name = known.get(key_of(source))
        if name is None:
            choices = [_stem(source), _stem(source, 2), f"{_stem(source, 2)}-{key_of(source)}"]
            if short[choices[0].casefold()] > 1:
                del choices[0]
            name = next(choice for choice in choices if choice.casefold() not in taken)
            taken.add(name.casefold())
        named.append(Recording(name, source))
    return named


def key_of(source: str) -> str:
    """A few letters by which a recording is known: its address may have secrets, which are not written down."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _stem(source: str, parts: int = 1) -> str:
    """The last parts of a path or address, without the suffix of a file, in letters that every file system takes."""
    is_folder = "://" not in source and Path(source).is_dir()
    path = Path(urlsplit(source).path if "://" in source else source)
    words = [*path.parts[:-1], path.name if is_folder else path.stem][-parts:]
    return re.sub(r"[^\w.-]+", "_", "_".join(words)).strip("._")[-MAX_NAME:] or "recording"

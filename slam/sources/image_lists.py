"""Lists of image files: time and name to a line (`rgb.txt`, `data.csv`)."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from slam.errors import SourceError, shown
from slam.io.folders import is_file, is_leftover
from slam.io.lists import columns, content_lines, in_time, stamp_and_rest
from slam.io.stamps import SECOND_NS
from slam.reading import read_text
from slam.sources.images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

EXPECTED = "'timestamp filename'"
MAX_DEPTH = 4  # folders below that of a list in which its files are looked for


def read_image_list(file: Path, folder: Path, unit_ns: int = SECOND_NS) -> list[tuple[int, Path]]:
    """Time (ns) and path of each image, increasing in time.

    A file that is not where the list says, as of another computer, is found by its name below `folder`; one that is
    nowhere stays in the list.

    Args:
        folder: of the names.
        unit_ns: of stamps that do not show their unit.

    Raises:
        SourceError: if there is no such list, it lists nothing, or a line is no time and name.
    """
    stamps, names = [], []
    for number, line in content_lines(read_text(file, "list of images")):
        stamp, rest = stamp_and_rest(line)
        if not rest:
            raise SourceError(f"{file}, line {number}: expected {EXPECTED}, got {shown(line)}")
        stamps.append((number, stamp))
        names.append(rest)
    if not names:
        raise SourceError(f"{file} lists no images")
    listed = in_time(file, stamps, names, EXPECTED, unit_ns)
    paths = _located([name for _, name in listed], folder, file)
    return [(time_ns, path) for (time_ns, _), path in zip(listed, paths)]


def _located(names: Sequence[str], folder: Path, file: Path) -> list[Path]:
    """The files that a list means."""
    paths, moved, by_name = [], [], None
    for name in names:
        path = next((path for path in _readings(name, folder) if is_file(path)), None)
        if path is None:
            by_name = _files_below(folder) if by_name is None else by_name
            path = _most_alike(_words(name)[0], by_name, file.stem)
            moved += [name] if path is not None else []
        paths.append(path if path is not None else folder / _words(name)[0])
    if moved:
        log.info(
            "%s: %d of %d files are not where it says (first: %s); found by their names",
            file,
            len(moved),
            len(names),
            moved[0],
        )
    return paths


def _readings(name: str, folder: Path) -> list[Path]:
    """What the rest of a line may mean: all of it, its first column, both with the separators of Windows."""
    return [folder / word for text in _words(name) for word in dict.fromkeys((text, text.replace("\\", "/")))]


def _words(name: str) -> list[str]:
    """The likeliest name first: the first column, or all if that is a name with blanks or commas in it."""
    first = columns(name)[0]
    is_image = Path(first).suffix.lower() in IMAGE_SUFFIXES or name[0] in "\"'"
    return list(dict.fromkeys([first, name] if is_image else [name, first]))


def _files_below(folder: Path) -> dict[str, list[Path]]:
    """All files below a folder by their names."""
    found: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = [name for name in folders if not is_leftover(name)] if depth < MAX_DEPTH else []
        for name in files:
            found.setdefault(name.lower(), []).append(Path(place) / name)
    return found


def _most_alike(name: str, by_name: dict[str, list[Path]], kind: str) -> Path | None:
    """The file of this name with most of its last folders; of two alike the one in the folder `kind`, else none."""
    parts = [part.lower() for part in PureWindowsPath(name).parts]
    if not parts:
        return None

    def alike(path: Path) -> tuple[int, bool]:
        own = [part.lower() for part in path.parts]
        n = 0
        while n < min(len(own), len(parts)) and own[-1 - n] == parts[-1 - n]:
            n += 1
        return n, path.parent.name.lower() == kind.lower()

    found = sorted(by_name.get(parts[-1], []), key=alike, reverse=True)
    is_clear = len(found) == 1 or (len(found) > 1 and alike(found[0]) > alike(found[1]))
    return found[0] if is_clear else None

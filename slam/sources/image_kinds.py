"""Folders with more than one kind of image: colour beside depth, masks, thumbnails, or a second camera.

Images are grouped by the pattern of their names, and one of each group is looked at. Groups that count along with one
another are different kinds of the same frames; one of them is clearly the camera's, or the user must say which.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from slam.errors import SourceError
from slam.io.images import read_unchanged
from slam.sources.names import NUMBER, by_name

log = logging.getLogger(__name__)

DEPTH_WORDS = {"depth", "depths", "disp", "disparity", "range", "invdepth"}
OTHER_WORDS = DEPTH_WORDS | {
    *("mask", "masks", "seg", "segmentation", "semantic", "semantics", "instance", "instances", "label", "labels"),
    *("normal", "normals", "conf", "confidence", "flow", "albedo", "alpha", "thumb", "thumbs", "thumbnail", "preview"),
}
COLOR_FOLDERS = ("rgb", "color", "colour", "image", "images")
MAX_PATTERNS = 40  # more: the names say nothing
MAX_VALUES = 4  # of a number that tells cameras apart
SHARE = 0.5  # of the smaller of two groups that counts along with the larger
FEW = 0.1  # of the images: a cover or a preview


@dataclass(frozen=True)
class Look:
    """What one image of a group is."""

    width: int
    height: int
    channels: int
    bits: int

    @property
    def is_depth(self) -> bool:
        """True of one channel of more than 8 bits; thermal and other gray cameras have that too."""
        return self.channels == 1 and self.bits > 8

    def __str__(self) -> str:
        return f"{self.bits}-bit {'gray' if self.channels < 3 else 'colour'} {self.width}x{self.height}"


@dataclass(frozen=True, eq=False)
class Group:
    """Images whose names differ in their numbers only."""

    pattern: str  # with # for a number
    files: tuple[Path, ...]
    look: Look | None = None  # None: unreadable
    camera: int | None = None  # which number of the names tells cameras apart, if one does

    @cached_property
    def numbers(self) -> frozenset[tuple[str, ...]]:
        """The numbers of the names, without leading zeros."""
        rows = (enumerate(NUMBER.findall(file.stem)) for file in self.files)
        found = (tuple(n.lstrip("0") for i, n in row if i != self.camera) for row in rows)
        return frozenset(numbers for numbers in found if numbers)

    @cached_property
    def words(self) -> set[str]:
        """The words of the pattern."""
        return set(re.findall(r"[a-z]+", self.pattern.lower()))

    @property
    def is_depth(self) -> bool:
        """True by its name together with what it holds, or by one of both where nothing speaks against it."""
        return bool(self.words & DEPTH_WORDS) or (self.look is not None and self.look.is_depth)

    @property
    def rank(self) -> tuple[bool, bool, int, int]:
        """Colour before gray, 8 bits before more, large before small, many before few."""
        look = self.look or Look(0, 0, 0, 0)
        return look.channels >= 3, look.bits == 8, look.width * look.height, len(self.files)

    def __str__(self) -> str:
        return f"{self.pattern} ({len(self.files)}, {self.look or 'unreadable'})"


def images_to_track(files: Sequence[Path], name: str) -> list[Path]:
    """Those of the images that a camera took; which and why not the others is told.

    Args:
        files: of one folder, or of several that lie together.
        name: their folder, for messages.

    Raises:
        SourceError: if all are depth, or several kinds could be meant; says how to choose.
    """
    groups = [replace(group, look=_look(group.files)) for group in _groups(files)]
    camera = [group for group in groups if not group.is_depth]
    if not camera:
        _refuse_depth(groups, name)
        camera = groups
    camera = [group for group in camera if not group.words & OTHER_WORDS] or camera
    most = max(len(group.files) for group in camera)
    main = max((group for group in camera if 2 * len(group.files) >= most), key=lambda group: group.rank)
    used, rivals = [main], []
    for group in camera:
        if group is main:
            continue
        if _count_along(group, main):
            rivals += [group] if _is_like(group, main) else []
        elif group.look is None or group.look == main.look or len(group.files) > FEW * len(main.files):
            used.append(group)
    if rivals:
        kinds = [main, *rivals]
        raise SourceError(
            f"{name} holds {len(kinds)} kinds of images that could be meant: {', '.join(map(str, kinds))}; "
            f"choose with --images '{main.files[0].parent / main.pattern.split('/')[-1].replace('#', '*')}'"
        )
    unused = [group for group in groups if group not in used]
    if unused:
        log.info("%s: used are %s, not %s", name, ", ".join(map(str, used)), ", ".join(map(str, unused)))
    return [file for group in used for file in group.files]


def refuse_depth(files: Sequence[Path], name: str) -> None:
    """Raise SourceError if the images are depth; they cannot be tracked."""
    groups = [replace(group, look=_look(group.files)) for group in _groups(files)]
    if all(group.is_depth for group in groups):
        _refuse_depth(groups, name)


def _refuse_depth(groups: list[Group], name: str) -> None:
    """Depth by the names, or by colour images beside; 16-bit gray alone may be another camera's."""
    folder = groups[0].files[0].parent
    named = (
        any(group.words & DEPTH_WORDS for group in groups)
        or set(re.findall(r"[a-z]+", folder.name.lower())) & DEPTH_WORDS
    )
    beside = [folder.parent / other for other in COLOR_FOLDERS if other != folder.name.lower()]
    color = next((place for place in beside if place.is_dir()), None)
    if named or color is not None:
        hint = f"name {color}" if color is not None else "name the folder of the colour images"
        raise SourceError(f"{name} holds depth images: {', '.join(map(str, groups))}; they cannot be tracked, {hint}")


def _groups(files: Sequence[Path]) -> list[Group]:
    folders = {file.parent for file in files}

    def shown(file: Path, pattern: str) -> str:
        return f"{file.parent.name}/{pattern}" if len(folders) > 1 else pattern

    by_pattern: dict[str, list[Path]] = {}
    for file in files:
        by_pattern.setdefault(shown(file, NUMBER.sub("#", file.stem) + file.suffix.lower()), []).append(file)
    if len(by_pattern) > MAX_PATTERNS:
        by_pattern = {}
        for file in files:
            by_pattern.setdefault(shown(file, f"*{file.suffix.lower()}"), []).append(file)
    return [part for pattern, found in by_pattern.items() for part in _split(Group(pattern, tuple(found)))]


def _split(group: Group) -> list[Group]:
    """A group of several cameras told apart by a number (`cam0_12.png`, `cam1_12.png`), by camera.

    Images whose names say times that all differ are one series, whichever number repeats in them.
    """
    named = by_name(group.files)
    if named.time_ns is not None and len(named.files) == len(group.files):
        return [group]
    rows = [NUMBER.findall(file.stem) for file in group.files]
    for column in range(group.pattern.count("#") if len({len(row) for row in rows}) == 1 else 0):
        parts: dict[str, list[Path]] = {}
        for row, file in zip(rows, group.files):
            parts.setdefault(row[column], []).append(file)
        if not 2 <= len(parts) <= MAX_VALUES or len(rows[0]) < 2:
            continue
        rest = [{tuple(row[:column] + row[column + 1 :]) for row in rows if row[column] == value} for value in parts]
        if len(rest[0] & rest[1]) > SHARE * min(map(len, rest)):
            pieces = group.pattern.split("#")
            return [
                Group(
                    "#".join(pieces[: column + 1]) + value + "#".join(pieces[column + 1 :]), tuple(found), camera=column
                )
                for value, found in parts.items()
            ]
    return [group]


def _count_along(group: Group, main: Group) -> bool:
    """True if the numbers of two groups are the same, or alternate under different names: images of one moment."""
    if not group.numbers or not main.numbers:
        return False
    if len(group.numbers & main.numbers) >= SHARE * min(len(group.numbers), len(main.numbers)):
        return True
    if Path(group.pattern).stem == Path(main.pattern).stem:
        return False
    keys = {len(numbers) for numbers in group.numbers | main.numbers}
    if len(keys) > 1:
        return False
    values, others = (sorted(tuple(map(float, (n or "0" for n in row))) for row in g.numbers) for g in (main, group))
    return sum(values[0] <= value <= values[-1] for value in others) >= SHARE * len(others)


def _is_like(group: Group, main: Group) -> bool:
    """True if nothing tells which of both is meant."""
    return group.rank[:3] == main.rank[:3] and 2 * len(group.files) > len(main.files)


def _look(files: Sequence[Path]) -> Look | None:
    """Of the first of a few images that can be read."""
    for file in sorted({files[0], files[len(files) // 2], files[-1]}):
        try:
            pixels = read_unchanged(file)
        except SourceError:
            continue
        height, width = pixels.shape[:2]
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        return Look(width, height, channels, 8 * pixels.dtype.itemsize)
    return None

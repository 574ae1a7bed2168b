"""Which recording a user means by a path: that folder itself, or one near it, as archives unpack."""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from slam.errors import SourceError, listed
from slam.io.folders import entries
from slam.sources import images, tum
from slam.sources.bags.storage import is_bag
from slam.sources.image_kinds import images_to_track

log = logging.getLogger(__name__)

# kind -> module with `is_layout(path)` and `recording(path)`, see `slam.sources.layout`; the particular ones first
LAYOUTS = {
    "icl": "slam.sources.icl_nuim",
    "openloris": "slam.sources.openloris",
    "replica": "slam.sources.replica",
    "scannet": "slam.sources.scannet",
    "kitti": "slam.sources.kitti",
    "tartanair": "slam.sources.tartanair",
    "tumvi": "slam.sources.tum_vi",
    "record3d": "slam.sources.record3d",
    "euroc": "slam.sources.euroc",
    "7scenes": "slam.sources.seven_scenes",
    "nerfstudio": "slam.sources.nerfstudio",
}
DEPTH_BELOW, ABOVE = 4, 2  # levels of folders that are looked at (dataset/sequences/00/image_2)
MAX_FOLDERS = 500  # below a path


def layout(kind: str) -> ModuleType:
    """The module of a kind of `LAYOUTS`."""
    return importlib.import_module(LAYOUTS[kind])


def kind_of(path: Path) -> str | None:
    """The kind of the recording whose folder this is; None if it is of no known layout."""
    for kind in LAYOUTS:
        if kind != "nerfstudio" and layout(kind).is_layout(path):
            return kind
    others: tuple[tuple[str, Callable[[Path], bool]], ...] = (
        ("tum", lambda folder: (folder / "rgb.txt").is_file()),  # with transforms.json as a by-product
        ("nerfstudio", layout("nerfstudio").is_layout),  # perhaps with a folder rgb/
        ("tum", tum.is_tum),
        ("ros", is_bag),
    )
    return next((kind for kind, is_kind in others if is_kind(path)), None)


def located(path: Path) -> tuple[Path, str]:
    """The folder of the recording that a folder is, is part of, or holds; and its kind.

    Raises:
        SourceError: if it holds several, or none.
    """
    found = _near(path)
    if not found and images.images_in(path):
        return path, "images"
    found = found or _image_folders(path)
    if len(found) > 1:
        raise SourceError(_several(path, found))
    if not found:
        images.list_images(path)  # raises, and says what is there
    if found[0][0] != path:
        word = "is part of" if found[0][0] in path.resolve().parents else "holds"
        log.info("%s %s the recording %s (%s)", path, word, *found[0])
    return found[0]


def recording_near(path: Path) -> tuple[Path, str] | None:
    """The same, of recordings of known layouts only; None if there is none.

    Raises:
        SourceError: if it holds several.
    """
    found = _near(path)
    if len(found) > 1:
        raise SourceError(_several(path, found))
    return found[0] if found else None


def _near(path: Path) -> list[tuple[Path, str]]:
    """Recordings of known layouts: that of the path itself, else that which it is part of, else all below."""
    kind = kind_of(path)
    if kind is not None:
        return [(path, kind)]
    above = _above(path)
    if above is not None:
        return [above]
    if images.images_in(path):
        return []
    below = [(folder, kind) for folder in _folders_below(path) if (kind := kind_of(folder)) is not None]
    return [found for found in below if not any(other[0] in found[0].parents for other in below)]


def _several(path: Path, found: list[tuple[Path, str]]) -> str:
    names = listed(f"{folder} ({kind})" for folder, kind in found)
    return f"{path} holds {len(found)} recordings; name one of them: {names}"


def _above(path: Path) -> tuple[Path, str] | None:
    """A recording some of whose images lie in this folder."""
    inner = path.resolve()
    for folder in list(inner.parents)[:ABOVE]:
        kind = kind_of(folder)
        if (kind == "tum" and inner == folder / "rgb") or (kind in LAYOUTS and _has_images_in(inner, folder, kind)):
            return folder, str(kind)
    return None


def _has_images_in(inner: Path, folder: Path, kind: str) -> bool:
    try:
        shots = layout(kind).recording(folder).images
    except SourceError:
        return False
    return bool(shots) and inner in shots[0].image.resolve().parents


def _image_folders(path: Path) -> list[tuple[Path, str]]:
    """The folders of images below; of several beside each other that of the camera's, if one clearly is."""
    folders = [folder for folder in _folders_below(path) if images.images_in(folder)]
    if len(folders) > 1 and len({folder.parent for folder in folders}) == 1:
        files = [file for folder in folders for file in images.list_images(folder)]
        try:
            folders = sorted({file.parent for file in images_to_track(files, str(path))})
        except SourceError as error:
            log.debug("%s", error)  # the folders are listed instead
    return [(folder, "images") for folder in folders]


def _folders_below(path: Path) -> list[Path]:
    """Folders up to four levels below, hidden ones apart, in order of their names."""
    found: list[Path] = []
    level = [path]
    for _ in range(DEPTH_BELOW):
        level = [f for folder in level for f in sorted(entries(folder)) if f.is_dir()]
        found += level
        if len(found) > MAX_FOLDERS:
            break
    return found[:MAX_FOLDERS]

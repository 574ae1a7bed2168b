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
DEPTH_BELOW, ABOVE = 3, 2  # levels of folders that are looked at (dataset/sequences/00)
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
    kind = kind_of(path)
    if kind is not None:
        return path, kind
    above = _above(path)
    if above is not None:
        log.info("%s is part of the recording %s (%s)", path, *above)
        return above
    if images.images_in(path):
        return path, "images"
    below = [(folder, kind) for folder in _folders_below(path) if (kind := kind_of(folder)) is not None]
    below = [found for found in below if not any(other[0] in found[0].parents for other in below)]
    below = below or _image_folders(path)
    if len(below) > 1:
        names = listed(f"{folder} ({kind})" for folder, kind in below)
        raise SourceError(f"{path} holds {len(below)} recordings; name one of them: {names}")
    if not below:
        images.list_images(path)  # raises, and says what is there
    log.info("%s holds the recording %s (%s)", path, *below[0])
    return below[0]


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
    """Folders up to three levels below, hidden ones apart, in order of their names."""
    found: list[Path] = []
    level = [path]
    for _ in range(DEPTH_BELOW):
        level = [f for folder in level for f in sorted(entries(folder)) if f.is_dir()]
        found += level
        if len(found) > MAX_FOLDERS:
            break
    return found[:MAX_FOLDERS]

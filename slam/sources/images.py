"""A plain folder of images: by the time stamps in their names, else in natural order at a constant rate."""

import fnmatch
import logging
from collections import Counter
from pathlib import Path

from slam.errors import SourceError, listed, warn_once
from slam.io.folders import entries
from slam.sources.image_kinds import images_to_track, refuse_depth
from slam.sources.names import by_name
from slam.sources.sequence import (
    ALL_FRAMES,
    DEFAULT_FPS,
    OWN_CAMERA,
    CameraChoice,
    FrameWindow,
    ImageSequence,
    ListedImage,
    checked_fps,
    frame_time_ns,
)

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"}
CONVERT = "convert them first: magick mogrify -format jpg *{0}"
DEVELOP = "develop them first: darktable-cli FOLDER OUT --out-ext jpg, or export JPEG from any photo program"
OTHER_SUFFIXES = {  # images that are not read, and what to do with them
    **dict.fromkeys((".heic", ".heif", ".hif"), "convert them first: magick mogrify -format jpg *{0}, or pillow-heif"),
    **dict.fromkeys((".avif", ".jxl", ".jpe", ".jfif", ".tga", ".exr", ".hdr", ".psd"), CONVERT),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"), DEVELOP),
    ".gif": "give an animation to --video, or convert images first: magick mogrify -format png *{0}",
}


class ImageFolderSource(ImageSequence):
    """Frames of a folder of images; where names have no stamps, frame n of the folder has the time n / fps."""

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        fps: float | None = None,
    ) -> None:
        """List the images.

        Args:
            path: a folder, or a pattern of file names in one (`DIR/frame*.jpg`).
            fps: frames per second of the recording, instead of stamps in the names; None: 30 if they have none.

        Raises:
            SourceError: if the folder is missing, has no images, or none can be read.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        rate = checked_fps(fps)
        folder, files = chosen_images(path)
        shots = timed_images(files, rate, str(path))
        super().__init__(
            str(path),
            shots,
            window,
            lambda width, height: choice.camera(width, height, [folder / "calibration.yaml"], str(path)),
        )


def timed_images(files: list[Path], fps: float | None, name: str, takes_fps: bool = True) -> list[ListedImage]:
    """Images with the times of their names, else at a constant rate; which of both is told.

    Args:
        fps: instead of stamps in the names.
        name: of their folder, for messages.
        takes_fps: a rate of the user would replace stamps.
    """
    named = by_name(files)
    for remark in named.remarks:
        log.warning("%s: %s", name, remark)
    if named.time_ns is not None and fps is None:
        hint = " (--fps replaces them)" if takes_fps else ""
        log.info("%s: time stamps from the names of the images%s", name, hint)
        return [ListedImage(time_ns, file) for time_ns, file in zip(named.time_ns, named.files)]
    if fps is None:
        log.info("%s: time stamps by %g frames per second (--fps)", name, DEFAULT_FPS)
    return [ListedImage(frame_time_ns(i, fps or DEFAULT_FPS), file) for i, file in enumerate(named.files)]


def chosen_images(path: Path) -> tuple[Path, list[Path]]:
    """The folder of a folder or pattern, and its images that a camera took, in no order.

    Raises:
        SourceError: as `list_images`; if the pattern fits none, or several kinds of images could be meant.
    """
    if path.exists() or not any(mark in path.name for mark in "*?["):
        return path, images_to_track(list_images(path), str(path))
    files = [file for file in list_images(path.parent) if fnmatch.fnmatch(file.name, path.name)]
    if not files:
        raise SourceError(f"no image of {path.parent} fits {path.name}")
    refuse_depth(files, str(path))
    return path.parent, files


def list_images(path: Path) -> list[Path]:
    """The images of a folder, in no order.

    Raises:
        SourceError: if the folder is missing, a file, or without images.
    """
    if path.parts[:1] in (("http:",), ("https:",)):
        raise SourceError("images are read from a folder, not from the web; for a video on the web use --video")
    if not path.exists():
        raise SourceError(f"no folder at {path}")
    if not path.is_dir():
        hint = "" if path.suffix.lower() in IMAGE_SUFFIXES else "; for a video use --video, for a recording --sequence"
        raise SourceError(f"{path} is a file, not a folder of images{hint}")
    found = list(entries(path))
    files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()]
    others = Counter(file.suffix.lower() for file in found if file.suffix.lower() in OTHER_SUFFIXES)
    if files:
        for suffix, number in others.items():
            warn_once(f"{path}: {number} images ({suffix}) are left out; {remedy(suffix)}")
        return files
    if others:
        suffix, number = others.most_common(1)[0]
        raise SourceError(f"{path} has {number} images ({suffix}) of a kind that is not read; {remedy(suffix)}")
    names = sorted(file.name for file in found)
    holds = f"it holds {listed(names)}" if names else "it is empty"
    raise SourceError(f"{path} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}): {holds}")


def remedy(suffix: str) -> str:
    """What to do with images of a suffix of OTHER_SUFFIXES."""
    return OTHER_SUFFIXES[suffix].format(suffix)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, in no order; none if there is no such folder."""
    return [file for file in entries(folder) if file.suffix.lower() in IMAGE_SUFFIXES]

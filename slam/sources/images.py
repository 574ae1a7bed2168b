"""A plain folder of images, in natural order, at a constant rate."""

import logging
import re
from pathlib import Path

from slam.errors import SourceError
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

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class ImageFolderSource(ImageSequence):
    """Frames of a folder of images; frame n of the folder has the time n / fps."""

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        fps: float | None = None,
    ) -> None:
        """List the images.

        Args:
            fps: frames per second of the recording; None: 30. Only the time stamps depend on it.

        Raises:
            SourceError: if the folder is missing, has no images, or none can be read.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        rate = checked_fps(fps) or DEFAULT_FPS
        shots = [ListedImage(frame_time_ns(i, rate), file) for i, file in enumerate(list_images(path))]
        if fps is None:
            log.info("%s: time stamps by %g frames per second (--fps)", path, rate)
        super().__init__(
            str(path),
            shots,
            window,
            lambda width, height: choice.camera(width, height, [path / "calibration.yaml"], str(path)),
        )


def list_images(path: Path) -> list[Path]:
    """The images of a folder in natural order (2 before 10).

    Raises:
        SourceError: if the folder is missing, a file, or without images.
    """
    if not path.exists():
        raise SourceError(f"no folder at {path}")
    if not path.is_dir():
        raise SourceError(f"{path} is a file, not a folder of images")
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not _is_hidden(file)]
    if not files:
        found = sorted(file.name for file in path.iterdir())
        holds = f"it holds {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" if found else "it is empty"
        raise SourceError(f"{path} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}): {holds}")
    return sorted(files, key=natural_key)


def natural_key(file: Path) -> list[tuple[int, str, int]]:
    """Sort key by which runs of digits compare as numbers."""
    parts = re.split(r"(\d+)", file.name.lower())
    return [(1, "", int(part)) if part.isdecimal() else (0, part, 0) for part in parts]


def _is_hidden(file: Path) -> bool:
    return file.name.startswith(".")  # macOS leaves ._name.jpg beside name.jpg

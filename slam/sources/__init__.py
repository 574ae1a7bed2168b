"""Data sets, videos and cameras as streams of frames. The formats are imported when asked for."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from slam.errors import SourceError, UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera

SOURCES = {
    "tum": "slam.sources.tum:TumSource",
    "7scenes": "slam.sources.seven_scenes:SevenScenesSource",
    "euroc": "slam.sources.euroc:EurocSource",
    "images": "slam.sources.images:ImageFolderSource",
    "video": "slam.sources.video:VideoSource",
    "realsense": "slam.sources.realsense:RealSenseFileSource",
}
REALSENSE_SUFFIXES = (".db3", ".bag")  # rosbag2 and the older rosbag
WITH_DEPTH = ("tum", "7scenes", "realsense")  # the others have none
WITHOUT_STAMPS = ("images", "video")  # --fps gives them


class Source(Protocol):
    """A stream of frames; iterating a recorded one again starts anew."""

    live: bool  # True: a camera; a frame not taken in time is lost
    camera: Camera  # of the frames as delivered
    count: int | None  # frames to come in one iteration, as far as known (those skipped included)
    skipped: int  # frames of the current or last iteration that could not be read

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...  # of a camera: while another thread iterates, too, and that ends the iteration


@dataclass(frozen=True)
class SourceSpec:
    """What to read and how, as the user says it."""

    path: str  # folder, file, or alias of a known sequence
    kind: str = ""  # key of SOURCES; empty: found out from the content
    calib: Path | None = None  # calibration file, instead of the recording's own
    hfov_deg: float | None = None  # horizontal field of view, instead of a calibration
    fps: float | None = None  # frames per second, for images and videos
    start: int = 0  # first frame used; this and the next two count frames of the recording
    stride: int = 1  # every so many frames
    max_frames: int | None = None  # length of the part used
    with_depth: bool | None = None  # deliver its depth; None: where a sensor beside the camera measured it
    data_root: Path | None = None  # where known sequences lie
    download: bool = False  # fetch a known sequence that is missing


def open_source(spec: SourceSpec) -> Source:
    """Open what the user asked for.

    Raises:
        UsageError: if the options make no sense, or not for this kind.
        SourceError: if it is missing or cannot be read.
        CalibrationError: if the calibration is unreadable or for other images.
    """
    from slam.io.recorder import has_sensor_depth
    from slam.sources.alias import resolve_sequence
    from slam.sources.sequence import CameraChoice, FrameWindow

    if spec.kind and spec.kind not in SOURCES:
        raise UsageError(f"unknown kind of source {spec.kind!r}; known: {', '.join(SOURCES)}")
    options: dict[str, Any] = {
        "window": FrameWindow(spec.start, spec.stride, spec.max_frames),
        "choice": CameraChoice(spec.calib, spec.hfov_deg),
    }
    path = Path(spec.path) if spec.kind else resolve_sequence(spec.path, spec.data_root, spec.download)
    kind = spec.kind or detect(path)
    if spec.with_depth and kind not in WITH_DEPTH:
        raise UsageError(f"{path} ({kind}) has no depth to use")
    if kind == "realsense":
        options["with_depth"] = spec.with_depth
    elif kind in WITH_DEPTH:
        options["with_depth"] = has_sensor_depth(path) if spec.with_depth is None else spec.with_depth
    if spec.fps is not None:
        if kind not in WITHOUT_STAMPS:
            raise UsageError(f"--fps is for images and videos; {path} ({kind}) has its own time stamps")
        options["fps"] = spec.fps
    module, name = SOURCES[kind].split(":")
    source: Source = getattr(importlib.import_module(module), name)(path, **options)
    return source


def detect(path: Path) -> str:
    """The kind of a recording, by its content.

    Raises:
        SourceError: if it is missing, empty, or of no known kind.
    """
    from slam.sources import euroc, images, seven_scenes, tum

    if path.is_file():
        if path.suffix.lower() in images.IMAGE_SUFFIXES:
            raise SourceError(f"{path} is one image; name its folder")
        return "realsense" if path.suffix.lower() in REALSENSE_SUFFIXES else "video"
    if tum.is_tum(path):
        return "tum"
    if seven_scenes.is_seven_scenes(path):
        return "7scenes"
    if euroc.is_euroc(path):
        return "euroc"
    images.list_images(path)  # raises, and says what is there
    return "images"

"""Data sets, videos and cameras as streams of frames. The formats are imported when asked for."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from slam.errors import SourceError, UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.run_record import Conditioning

SOURCES = {
    "tum": "slam.sources.tum:TumSource",
    "images": "slam.sources.images:ImageFolderSource",
    "video": "slam.sources.video:VideoSource",
    "webvideo": "slam.sources.web_video:WebVideoSource",
    "realsense": "slam.sources.realsense:RealSenseFileSource",
    "ros": "slam.sources.bags.source:BagSource",
}
UNSURVEYED = ("demo", "realsense")  # kinds whose images are known to need nothing
DEMO = "demo"  # kind of the rendered room, which lies in no file
WITHOUT_DEPTH = ("images", "video", "webvideo")
WITHOUT_STAMPS = (*WITHOUT_DEPTH, "tum")  # --fps gives them; TUM refuses that itself, where it has stamps


class Source(Protocol):
    """A stream of frames; iterating a recorded one again starts anew."""

    @property
    def live(self) -> bool:
        """True of a camera: a frame not taken in time is lost."""
        ...

    @property
    def camera(self) -> Camera:
        """Of the frames as delivered."""
        ...

    @property
    def count(self) -> int | None:
        """Frames to come in one iteration, as far as known (those skipped included)."""
        ...

    @property
    def skipped(self) -> int:
        """Frames of the current or last iteration that could not be read."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Let go of files and cameras. Of a camera also while another thread iterates, which ends the iteration."""
        ...


@dataclass(frozen=True)
class SourceSpec:
    """What to read and how, as the user says it."""

    path: str  # folder, file, or alias of a known sequence
    kind: str = ""  # key of SOURCES, or DEMO; empty: found out from the content
    calib: Path | None = None  # calibration file, instead of the recording's own
    hfov_deg: float | None = None  # horizontal field of view, instead of a calibration
    camera: Camera | None = None  # the camera itself, instead of both
    undistort_hfov_deg: float | None = None  # horizontal field of view of undistorted images; None: by the lens
    fps: float | None = None  # frames per second, for images and videos
    start: int = 0  # first frame used; this and the next two count frames of the recording
    stride: int = 1  # every so many frames
    max_frames: int | None = None  # length of the part used
    topic: str | None = None  # of the images in a ROS bag
    mask: Path | None = None  # image of the frames' size or shape: white is used, black is ignored
    adapt: bool = False  # stretch, crop and mask images that need it
    conditioning: Conditioning | None = None  # what an earlier run did to the images, instead of both
    with_depth: bool | None = None  # deliver its depth; None: where a sensor beside the camera measured it
    depth_scale: float | None = None  # its value of one metre, instead of the recording's own
    data_root: Path | None = None  # where known sequences lie
    download: bool = False  # fetch a known sequence that is missing


def resolved(spec: SourceSpec) -> SourceSpec:
    """The same with its path, its kind, and whether its depth is used, all found out.

    Raises:
        UsageError: if the options make no sense for this kind.
        SourceError: if it is missing or of no known kind.
    """
    from slam.io.recorder import has_sensor_depth
    from slam.sources.alias import resolve_sequence
    from slam.sources.archives import archive_kind, unpacked
    from slam.sources.locate import LAYOUTS, located

    if spec.kind == DEMO:
        return spec
    known = (*SOURCES, *LAYOUTS)
    if spec.kind and spec.kind not in known:
        raise UsageError(f"unknown kind of source {spec.kind!r}; known: {', '.join(known)}")
    if "://" in spec.path and spec.kind in ("", "video"):
        spec = replace(spec, kind="webvideo")
    path, kind = Path(spec.path), spec.kind
    if not kind:
        path = resolve_sequence(spec.path, spec.data_root, spec.download)
    if not kind and not (path.is_file() or path.is_dir()):  # FFmpeg would wait for the end of a pipe
        raise SourceError(f"{path} is no file: it is a pipe or a device; copy its content into a file")
    if kind != "video" and archive_kind(path) is not None:
        path = unpacked(path)
    if not kind:
        path, kind = located(path) if path.is_dir() else (path, detect(path))
    if spec.with_depth and kind in WITHOUT_DEPTH:
        raise UsageError(f"{path} ({kind}) has no depth to use")
    if spec.fps is not None and kind not in WITHOUT_STAMPS:
        raise UsageError(f"--fps is for images and videos; {path} ({kind}) has its own time stamps")
    if spec.topic is not None and kind != "ros":
        raise UsageError(f"--topic is for ROS bags; {path} is of the kind {kind}")
    with_depth = spec.with_depth
    if with_depth is None and kind not in (*WITHOUT_DEPTH, "realsense"):  # which knows by itself
        with_depth = has_sensor_depth(path)
    if spec.depth_scale is not None and (not with_depth or kind == "realsense"):
        raise UsageError(
            f"--depth-scale {spec.depth_scale:g} is for recordings whose depth is used (--use-depth on); "
            f"{path} ({kind}) " + ("knows its scale" if kind == "realsense" else "delivers none")
        )
    return replace(spec, path=spec.path if kind == "webvideo" else str(path), kind=kind, with_depth=with_depth)


def open_source(spec: SourceSpec) -> Source:
    """Open what the user asked for.

    Raises:
        UsageError: if the options make no sense, or not for this kind.
        SourceError: if it is missing or cannot be read.
        CalibrationError: if the calibration is unreadable or for other images.
    """
    if spec.conditioning is not None:
        from slam.sources.conditioned import reconditioned, uncropped_camera

        assert spec.camera is not None
        whole = replace(spec, camera=uncropped_camera(spec.camera, spec.conditioning))
        return reconditioned(_unconditioned(whole), spec.conditioning, spec.camera)
    source = _unconditioned(spec)
    if not spec.adapt and spec.mask is None:
        return source
    from slam.sources.conditioned import conditioned, uncalibrated

    camera_of = uncalibrated(source.camera, spec.hfov_deg) if spec.calib is None and spec.camera is None else None
    return conditioned(source, spec.path, spec.mask, camera_of, spec.adapt and spec.kind not in UNSURVEYED)


def _unconditioned(spec: SourceSpec) -> Source:
    """What the user asked for as it is stored."""
    from slam.sources.layout import LayoutSource
    from slam.sources.locate import LAYOUTS, layout
    from slam.sources.sequence import CameraChoice, FrameWindow

    if spec.kind == DEMO:
        from slam.sources.demo import DemoConfig, DemoSource

        config = DemoConfig() if spec.max_frames is None else DemoConfig(frames=spec.max_frames)
        return DemoSource(config, with_depth=bool(spec.with_depth))
    spec = resolved(spec)
    options: dict[str, Any] = {
        "window": FrameWindow(spec.start, spec.stride, spec.max_frames),
        "choice": CameraChoice(spec.calib, spec.hfov_deg, spec.camera, spec.undistort_hfov_deg),
    }
    if spec.kind not in WITHOUT_DEPTH:
        options["with_depth"] = spec.with_depth
    if spec.depth_scale is not None:
        options["depth_scale"] = spec.depth_scale
    if spec.kind in LAYOUTS:
        return LayoutSource(layout(spec.kind).recording(Path(spec.path)), **options)
    if spec.fps is not None:
        options["fps"] = spec.fps
    if spec.topic is not None:
        options["topic"] = spec.topic
    module, name = SOURCES[spec.kind].split(":")
    source: Source = getattr(importlib.import_module(module), name)(
        spec.path if spec.kind == "webvideo" else Path(spec.path), **options
    )
    return source


def detect(path: Path) -> str:
    """The kind of a recording, by its content.

    Raises:
        SourceError: if it is missing, empty, of no known kind, or could be several.
    """
    from slam.sources.bags.storage import is_bag, is_realsense
    from slam.sources.images import IMAGE_SUFFIXES, OTHER_SUFFIXES, remedy
    from slam.sources.locate import located

    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise SourceError(f"{path} is one image; name its folder")
        if path.suffix.lower() in OTHER_SUFFIXES and path.suffix.lower() != ".gif":
            raise SourceError(f"{path} is one image, of a kind that is not read; {remedy(path.suffix.lower())}")
        if is_bag(path):
            return "realsense" if is_realsense(path) else "ros"
        return "video"
    return located(path)[1]

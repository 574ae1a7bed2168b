"""What v2d-slam can be given to track: the options, and the source that they name."""

import argparse
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from slam.errors import UsageError, without_secrets

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from slam.frames import Trajectory
    from slam.io.recorder import Recorder
    from slam.io.run_directory import RunDirectory
    from slam.io.run_record import SourceRecord
    from slam.sources import Source

RECONNECT_S = 10.0
USE_DEPTH = {"auto": None, "on": True, "off": False}
MASK = "mask.png"
WINDOW = ("fps", "start", "stride", "max_frames")


@runtime_checkable
class WithTruth(Protocol):
    """A source that knows its own ground truth."""

    def groundtruth(self) -> "Trajectory":
        """True poses of its frames."""
        ...


def add_inputs(p: argparse.ArgumentParser) -> None:
    """The options that choose the source."""
    inputs = p.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--sequence", metavar="NAME|PATH", help="a known sequence (tum/fr1_desk) or any recording")
    inputs.add_argument("--video", metavar="FILE|URL", help="a video file, also on the web")
    inputs.add_argument("--images", metavar="DIR", help="a folder of images, or a pattern such as 'DIR/frame*.jpg'")
    inputs.add_argument("--camera", metavar="NAME|URL", help="realsense[:SERIAL], webcam[:N], rtsp://... or http://...")
    inputs.add_argument("--demo", action="store_true", help="a rendered room with known truth; needs nothing")
    p.add_argument("--topic", metavar="NAME", help="images of a ROS bag that has several topics of them")
    p.add_argument("--calib", type=Path, metavar="FILE", help="calibration of the camera")
    p.add_argument("--hfov", type=float, metavar="DEG", help="horizontal field of view, instead of a calibration")
    p.add_argument(
        "--undistort-hfov",
        type=float,
        metavar="DEG",
        help="horizontal field of view to which the images of a wide or fisheye lens are undistorted "
        "(default: 90 along the longer side of a fisheye, else all that the lens fills)",
    )
    p.add_argument("--mask", type=Path, metavar="FILE", help="image of the frames' shape: black parts are ignored")
    p.add_argument("--fps", type=float, help="of images and videos without time stamps; to ask of a camera")
    p.add_argument("--width", type=int, metavar="PX", help="to ask of a camera")
    p.add_argument("--height", type=int, metavar="PX", help="to ask of a camera")
    p.add_argument(
        "--reconnect",
        type=float,
        default=RECONNECT_S,
        metavar="SECONDS",
        help="how long to try again when a camera stops (default %(default)g; 0: not at all)",
    )
    p.add_argument(
        "--use-depth",
        choices=USE_DEPTH,
        default="auto",
        help="measured depth gives metres: auto uses that of a RealSense, live or recorded; on also that of data sets",
    )
    p.add_argument(
        "--depth-scale",
        type=float,
        metavar="UNITS",
        help="value of one metre in the depth images of a recording, where they do not say it (1000: millimetres)",
    )
    p.add_argument("--record", type=Path, metavar="DIR", help="keep what the camera delivers, for --sequence DIR")
    p.add_argument("--start", type=int, default=0, metavar="N", help="first frame")
    p.add_argument("--stride", type=int, default=1, metavar="N", help="use every Nth frame")
    p.add_argument("--max-frames", type=int, metavar="N", help="length of the part used, in frames of the recording")
    p.add_argument("--data-root", type=Path, metavar="DIR", help="where known sequences lie (also $V2D_DATA)")
    p.add_argument("--download", action="store_true", help="fetch a known sequence that is missing")


@dataclass(frozen=True)
class Input:
    """What the options name."""

    source: "Source"
    record: "SourceRecord"  # for `run.json`
    truth: "Trajectory | None" = None  # where it has one


def open_input(options: argparse.Namespace) -> Input:
    """Open the source that the options name."""
    if options.camera is not None and not _is_file_on_the_web(options):
        return _camera(options)
    from slam.sources import DEMO, SourceSpec, open_source, resolved
    from slam.sources.conditioned import ConditionedSource
    from slam.sources.groundtruth import known_truth
    from slam.sources.reopen import recorded_spec

    refuse(options, {"width": None, "height": None, "reconnect": RECONNECT_S, "record": None}, "for --camera")
    if options.sequence is None:
        refuse(options, {"data_root": None, "download": False, "topic": None}, "for --sequence")
    if options.demo:
        recordings = {
            "calib": None,
            "hfov": None,
            "undistort_hfov": None,
            "fps": None,
            "start": 0,
            "stride": 1,
            "depth_scale": None,
        }
        refuse(options, recordings, "for recordings, not for --demo")
    choices = (
        (options.sequence, ""),
        (options.video, "video"),
        (options.images, "images"),
        (DEMO if options.demo else None, DEMO),
    )
    path, kind = next((path, kind) for path, kind in choices if path is not None)
    spec = SourceSpec(
        path=path,
        kind=kind,
        hfov_deg=options.hfov,
        undistort_hfov_deg=options.undistort_hfov,
        with_depth=options.use_depth == "on" if options.demo else USE_DEPTH[options.use_depth],
        adapt=True,
        **{
            key: getattr(options, key)
            for key in (*WINDOW, "calib", "mask", "topic", "depth_scale", "data_root", "download")
        },
    )
    spec = resolved(spec)
    source = open_source(spec)
    own = source.source if isinstance(source, ConditionedSource) else source
    truth = own.groundtruth() if isinstance(own, WithTruth) else known_truth(Path(spec.path))
    return Input(source, recorded_spec(path, spec, source), truth)


def _is_file_on_the_web(options: argparse.Namespace) -> bool:
    """True, and the options changed so, where a file lies under the address of a camera: it ends and loses no frame."""
    from slam.sources.web_video import is_video_file

    if not is_video_file(options.camera):
        return False
    log.info("%s is a video file, not a camera: reading it as --video", options.camera)
    options.video, options.camera = options.camera, None
    return True


def _camera(options: argparse.Namespace) -> Input:
    recordings = {"start": 0, "stride": 1, "data_root": None, "download": False, "depth_scale": None, "topic": None}
    refuse(options, recordings, "for recordings, not for --camera")
    refuse(options, {"deterministic": False}, "for recordings: a camera never shows the same twice")
    from slam.io.run_record import SourceRecord
    from slam.sources.cameras import CameraSpec, open_camera
    from slam.sources.conditioned import ConditionedSource, conditioned
    from slam.sources.reopen import CAMERA

    if options.record is not None:
        from slam.io.recorder import check_free

        check_free(options.record)  # before anything is opened or made
    given = {key: getattr(options, key) for key in ("calib", "width", "height", "fps", "max_frames")}
    spec = CameraSpec(
        options.camera,
        hfov_deg=options.hfov,
        undistort_hfov_deg=options.undistort_hfov,
        reconnect_s=options.reconnect,
        with_depth=USE_DEPTH[options.use_depth],
        **given,
    )
    camera, name = open_camera(spec), without_secrets(options.camera)
    try:
        source = conditioned(camera, name, options.mask)
    except BaseException:
        camera.close()
        raise
    done = source.conditioning if isinstance(source, ConditionedSource) else None
    return Input(source, SourceRecord(name, CAMERA, name, source.camera, conditioning=done))


def kept(given: Input, directory: "RunDirectory", recording: Path | None) -> "SourceRecord":
    """Where the frames of a source can be read again: of a camera in its recording, if there is one; with its mask,
    which is written into the directory of the run."""
    from slam.io.images import write_mask
    from slam.sources.conditioned import ConditionedSource

    source, record = given.source, given.record
    if isinstance(source, ConditionedSource) and source.mask is not None:
        mask = source.mask
        if directory.write(MASK, lambda path: write_mask(path, mask)):
            path = str((directory.path / MASK).absolute())
            record = replace(record, conditioning=replace(source.conditioning, mask=path))
    return record if recording is None else replace(record, kind="tum", path=str(recording.absolute()))


def recorded(source: "Source", path: Path | None) -> "tuple[Source, Recorder | None]":
    """The source and what records it; None where nothing is to be recorded.

    Raises:
        UsageError: if `path` holds a recording already.
        OutputError: if it cannot be written to.
    """
    if path is None:
        return source, None
    from slam.io.recorder import Recorder
    from slam.sources.recorded_camera import RecordedCamera

    recorder = Recorder(path, source.camera)
    return RecordedCamera(source, recorder), recorder


def refuse(options: argparse.Namespace, defaults: dict[str, Any], purpose: str) -> None:
    """Refuse options that differ from their defaults where they mean nothing.

    Raises:
        UsageError: naming the first of them.
    """
    for option, default in defaults.items():
        if getattr(options, option) != default:
            given = "" if default is False else f" {getattr(options, option)}"
            raise UsageError(f"--{option.replace('_', '-')}{given} is {purpose}")

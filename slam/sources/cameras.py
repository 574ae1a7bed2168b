"""The cameras that a user can name. Their drivers are imported when asked for."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from slam.errors import UsageError, without_secrets
from slam.sources import Source
from slam.sources.sequence import CameraChoice

CAMERAS = {
    "webcam": "slam.sources.webcam:WebcamSource",  # also streams
    "realsense": "slam.sources.realsense_camera:RealSenseSource",
}


@dataclass(frozen=True)
class CameraSpec:
    """Which camera and how, as the user says it."""

    address: str  # webcam, webcam:N, realsense, realsense:SERIAL, or the URL of a stream
    calib: Path | None = None  # calibration file
    hfov_deg: float | None = None  # horizontal field of view, instead of a calibration
    undistort_hfov_deg: float | None = None  # horizontal field of view of undistorted images; None: by the lens
    width: int | None = None  # pixels to ask the camera for
    height: int | None = None
    fps: float | None = None  # frames per second to ask the camera for
    reconnect_s: float = 10.0  # how long to try again when images stop
    max_frames: int | None = None  # end after so many
    with_depth: bool | None = None  # deliver its depth; None: where it measures any


def open_camera(spec: CameraSpec) -> Source:
    """Connect to a camera.

    Raises:
        UsageError: if the options make no sense.
        SourceError: if there is no such camera or no image comes.
        CalibrationError: if the calibration is unreadable or for other images.
    """
    kind = "realsense" if spec.address.partition(":")[0] == "realsense" else "webcam"
    options = {"with_depth": spec.with_depth} if kind == "realsense" else {}
    if spec.with_depth and kind == "webcam":
        raise UsageError(f"{without_secrets(spec.address)} measures no depth; leave out --use-depth on")
    module, name = CAMERAS[kind].split(":")
    source: Source = getattr(importlib.import_module(module), name)(
        spec.address,
        (spec.width, spec.height),
        spec.fps,
        CameraChoice(spec.calib, spec.hfov_deg, undistort_hfov_deg=spec.undistort_hfov_deg),
        spec.reconnect_s,
        spec.max_frames,
        **options,
    )
    return source

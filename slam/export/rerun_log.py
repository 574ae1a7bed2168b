"""A recording for the Rerun viewer: cameras, images and depth over time, path and cloud."""

from pathlib import Path
from typing import Any

import numpy as np

from slam.errors import SlamError
from slam.export.cloud import fused
from slam.export.keyframes import usable_records
from slam.export.options import ExportOptions
from slam.export.trajectories import final_trajectory
from slam.frames import Keyframe
from slam.io.run import Run
from slam.mapping.fusion import reliable_depth

FILE = "run.rrd"
TIMELINE, NUMBERS = "time", "keyframe"
JPEG_QUALITY = 85


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`run.rrd`."""
    rr = rerun()
    recording = rr.RecordingStream("v2d-slam")  # with an identity of its own: the viewer merges those that share one
    stream = recording.binary_stream()
    recording.send_recording_name(run.path.resolve().name)
    points = log_map(rr, recording, run, options)
    records = usable_records(run)
    for record in records:
        log_keyframe(rr, recording, run.keyframe(record), options)
    (folder / FILE).write_bytes(stream.read())  # rerun's own writer waits for ever where the disk is full
    return f"{len(records)} keyframes, {points} points"


def log_map(rr: Any, recording: Any, run: Run, options: ExportOptions) -> int:
    """What does not change: conventions, path and cloud. The number of its points."""
    recording.log("about", rr.TextDocument("\n".join(options.conventions)), static=True)
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    recording.log("world/path", rr.LineStrips3D([final_trajectory(run).T_wc[:, :3, 3]]), static=True)
    cloud = fused(run, options)
    recording.log("world/cloud", rr.Points3D(cloud.points, colors=cloud.colors), static=True)
    return len(cloud)


def log_keyframe(rr: Any, recording: Any, keyframe: Keyframe, options: ExportOptions) -> None:
    """Its camera, image and confident depth, at its number and, unless that is of another recording, its time."""
    recording.set_time(NUMBERS, sequence=keyframe.id)
    if keyframe.view.frame_id >= 0:
        recording.set_time(TIMELINE, timestamp=np.datetime64(keyframe.view.time_ns, "ns"))
    T_wc, K = keyframe.T_wc.numpy(), keyframe.view.K.numpy()
    rgb = keyframe.view.image.rgb
    recording.log("world/camera", rr.Transform3D(translation=T_wc[:3, 3], mat3x3=T_wc[:3, :3]))
    recording.log(
        "world/camera",
        rr.Pinhole(image_from_camera=K, resolution=rgb.shape[1::-1], camera_xyz=rr.ViewCoordinates.RDF),
    )
    recording.log("world/camera/image", rr.Image(rgb).compress(jpeg_quality=JPEG_QUALITY))
    recording.log("world/camera/depth", rr.DepthImage(reliable_depth(keyframe, options.fusion), meter=1.0))


def rerun() -> Any:
    """The library, an optional extra.

    Raises:
        SlamError: if it is missing.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise SlamError("the target rerun needs the extra of that name: pip install 'v2d-slam[rerun]'") from error
    return rr

"""A recording for the Rerun viewer: cameras, images and depth over time, path and cloud."""

from pathlib import Path
from typing import Any

import numpy as np

from slam.errors import SlamError
from slam.export.cloud import fused
from slam.export.keyframes import is_confident, usable_records
from slam.export.options import ExportOptions
from slam.export.trajectories import final_trajectory
from slam.io.run import Run

FILE = "run.rrd"
TIMELINE = "time"
JPEG_QUALITY = 85


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`run.rrd`."""
    rr = rerun()
    records = usable_records(run)
    recording = rr.RecordingStream("v2d-slam", recording_id=run.path.resolve().name)
    recording.save(str(folder / FILE))
    recording.log("about", rr.TextDocument("\n".join(options.conventions)), static=True)
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
    recording.log("world/path", rr.LineStrips3D([final_trajectory(run).T_wc[:, :3, 3]]), static=True)
    cloud = fused(run, options)
    recording.log("world/cloud", rr.Points3D(cloud.points, colors=cloud.colors), static=True)
    for record in records:
        keyframe = run.keyframe(record)
        recording.set_time(TIMELINE, timestamp=np.datetime64(record.time_ns, "ns"))
        T_wc, K = keyframe.T_wc.numpy(), keyframe.view.K.numpy()
        recording.log("world/camera", rr.Transform3D(translation=T_wc[:3, 3], mat3x3=T_wc[:3, :3]))
        size = [record.width, record.height]
        recording.log(
            "world/camera", rr.Pinhole(image_from_camera=K, resolution=size, camera_xyz=rr.ViewCoordinates.RDF)
        )
        recording.log("world/camera/image", rr.Image(keyframe.view.image.rgb).compress(jpeg_quality=JPEG_QUALITY))
        depth = np.where(is_confident(keyframe, options.fusion), keyframe.dense.depth().numpy(), 0)
        recording.log("world/camera/depth", rr.DepthImage(depth.astype(np.float32), meter=1.0))
    recording.flush()
    recording.disconnect()
    return f"{len(records)} keyframes, {len(cloud)} points"


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

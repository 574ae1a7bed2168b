"""A run for COLMAP and what reads its models: pictures, cameras, and points with tracks."""

import logging
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.export.keyframes import agreed, usable_records
from slam.export.options import ExportOptions
from slam.export.pictures import Pictures
from slam.export.tracks import PointBatch, Tracks
from slam.io.colmap import SparseModel, write_binary_model, write_text_model
from slam.io.images import write_color
from slam.io.run import KeyframeRecord, Run
from slam.io.trajectory import format_time_ns

log = logging.getLogger(__name__)

NOTES = (
    "QW QX QY QZ TX TY TZ is T_cw (camera from world), the inverse of the line in trajectory.txt",
    "pixels: (0.5, 0.5) is the centre of the top left one; the pictures are undistorted",
)


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`images/`, and `sparse/0/` with the model as text and as binary."""
    pictures = Pictures(run, options.max_size)
    tracks = Tracks(pictures.camera.matrix().numpy())
    batches: list[PointBatch] = []
    records: list[KeyframeRecord] = []
    shown = pictures.at(usable_records(run))
    record, picture = next(shown, (None, None))
    for view in agreed(run, options.fusion):
        if record is None or picture is None:
            break
        if view.keyframe.id != record.id:  # the source has lost its frame
            continue
        write_color(folder / "images" / picture_name(record), picture)
        batches += tracks.add(len(records), picture, view)
        records.append(record)
        record, picture = next(shown, (None, None))
    batches += tracks.rest()
    model = joined(pictures, records, batches)
    comments = (*options.conventions, *NOTES)
    write_text_model(folder / "sparse/0", model, comments)
    write_binary_model(folder / "sparse/0", model)
    if not len(model.points):
        raise SourceError(f"no point of the map of {run.path} is seen in two keyframes; COLMAP's model would be empty")
    return (
        f"{len(records)} images, {len(model.points)} points in {len(model.image) / len(model.points):.1f} images each, "
        f"median reprojection error {np.median(model.errors):.2f} px"
    )


def picture_name(record: KeyframeRecord) -> str:
    """Of a keyframe's full-size picture: its time stamp, as in trajectory.txt."""
    return f"{format_time_ns(record.time_ns)}.jpg"


def joined(pictures: Pictures, records: list[KeyframeRecord], batches: list[PointBatch]) -> SparseModel:
    """The model of all pictures and points."""
    starts = np.cumsum([0, *(len(batch.points) for batch in batches)])
    return SparseModel(
        camera=pictures.camera,
        names=tuple(picture_name(record) for record in records),
        T_wc=np.array([record.T_wc for record in records]).reshape(-1, 4, 4),
        points=np.concatenate([np.zeros((0, 3)), *(batch.points for batch in batches)]),
        colors=np.concatenate([np.zeros((0, 3), np.uint8), *(batch.colors for batch in batches)]),
        errors=np.concatenate([np.zeros(0), *(batch.errors for batch in batches)]),
        image=np.concatenate([np.zeros(0, np.int32), *(batch.image for batch in batches)]),
        point=np.concatenate([np.zeros(0, np.int32), *(b.point + n for b, n in zip(batches, starts.tolist()))]),
        uv=np.concatenate([np.zeros((0, 2)), *(batch.uv for batch in batches)]),
    )

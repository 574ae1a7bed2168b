"""Opening the frames of an earlier run again."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from slam.errors import MASK, SourceError, without_secrets
from slam.io.run_record import SourceRecord
from slam.sources import DEMO, Source, SourceSpec, open_source
from slam.sources.conditioned import ConditionedSource, uncropped_camera
from slam.sources.sequence import FrameWindow, ImageSequence

CAMERA = "camera"  # kind of source


def recorded_spec(name: str, spec: SourceSpec, source: Source) -> SourceRecord:
    """What a run keeps of its source.

    Args:
        name: as the user named it.
        spec: resolved, see `slam.sources.resolved`.
    """
    return SourceRecord(
        name=without_secrets(name),
        kind=spec.kind,
        path=without_secrets(spec.path) if spec.kind in (DEMO, "webvideo") else str(Path(spec.path).absolute()),
        camera=source.camera,
        start=spec.start,
        stride=spec.stride,
        max_frames=spec.max_frames,
        fps=spec.fps,
        topic=spec.topic,
        with_depth=spec.with_depth,
        depth_scale=spec.depth_scale,
        conditioning=source.conditioning if isinstance(source, ConditionedSource) else None,
    )


def reopened(record: SourceRecord) -> Source:
    """The same frames again: the same images, stamps and camera.

    Raises:
        SourceError: if they were a camera's, are no longer there, or have an address with a secret, which is not kept.
    """
    if record.kind == "webvideo" and MASK in record.path:
        raise SourceError(
            f"{record.path} was opened with a password or a token, which is not kept (***); fetch the video, and run "
            "v2d-slam --video FILE on it"
        )
    if record.kind == CAMERA:
        raise SourceError(f"the frames of {record.name} were not kept; record a camera with --record DIR")
    spec = SourceSpec(
        path=record.path,
        kind=record.kind,
        camera=record.camera,
        fps=record.fps,
        topic=record.topic,
        start=record.start,
        stride=record.stride,
        max_frames=record.max_frames,
        with_depth=record.with_depth,
        depth_scale=record.depth_scale,
        conditioning=record.conditioning,
    )
    return open_source(spec)


def frame_times(record: SourceRecord) -> np.ndarray:
    """(N,) int64 stamps, ns, of all frames of the recording that a run was made of, those that it left out included.

    Raises:
        SourceError: as `reopened`.
    """
    camera = record.camera if record.conditioning is None else uncropped_camera(record.camera, record.conditioning)
    whole = replace(record, start=0, stride=1, max_frames=None, with_depth=False, depth_scale=None)
    source = reopened(replace(whole, camera=camera, conditioning=None))
    try:
        if isinstance(source, ImageSequence):
            return source.times_ns
        return np.array([frame.time_ns for frame in source], np.int64)
    finally:
        source.close()


def used_times(record: SourceRecord) -> np.ndarray:
    """(N,) int64 stamps, ns, of the frames that a run took, up to the last one where it was stopped.

    Raises:
        SourceError: as `reopened`.
    """
    times_ns = frame_times(record)
    taken = times_ns[list(FrameWindow(record.start, record.stride, record.max_frames).indices(len(times_ns)))]
    return taken if record.last_ns is None else taken[taken <= record.last_ns]

"""What v2d-train learns from without truth: the options, and the videos that they name, tracked by the system."""

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from slam.errors import UsageError

if TYPE_CHECKING:  # a machine that trains on rendered scenes need not be able to read images
    from slam.frames import Keyframe, Progress, Trajectory
    from slam.io.run import Run
    from slam.io.run_record import SourceRecord
    from slam.sources import Source, SourceSpec
    from slam.training.video import Video

log = logging.getLogger(__name__)

TOLD_EVERY = 100  # frames
STAGE = "selfsup"
POSES = ("map", "network")

Windowed = TypeVar("Windowed", "SourceSpec", "SourceRecord")


def add_videos(p: argparse.ArgumentParser) -> None:
    """The options that choose the videos."""
    group = p.add_argument_group("videos of --stage selfsup", "Depth and true poses that they may have are not used.")
    group.add_argument(
        "--video", nargs="+", default=[], metavar="FILE", help="video files; the system tracks them first"
    )
    group.add_argument("--sequence", nargs="+", default=[], metavar="NAME|PATH", help="known sequences, or recordings")
    group.add_argument("--run", nargs="+", default=[], metavar="DIR", help="finished runs of v2d-slam, as they ended")
    group.add_argument("--part", type=float, nargs=2, default=(0.0, 1.0), metavar=("FROM", "TO"), help="share of each")
    poses = "map: those of the system; network: learned with the depth, for what cannot be tracked"
    group.add_argument("--poses", choices=POSES, default="map", help=poses)
    group.add_argument("--calib", type=Path, metavar="FILE", help="calibration of --video and --sequence")
    group.add_argument("--hfov", type=float, metavar="DEG", help="horizontal field of view, instead of a calibration")


def check_videos(options: argparse.Namespace, stage: str) -> None:
    """Refuse options that make no sense together.

    Raises:
        UsageError: naming them.
    """
    given = [name for name in ("video", "sequence", "run") if getattr(options, name)]
    if stage == STAGE and not given:
        raise UsageError("--stage selfsup learns from videos: give --video, --sequence or --run")
    if stage != STAGE and given:
        raise UsageError(f"--{given[0]} is for --stage selfsup")
    first, last = options.part
    if not 0 <= first < last <= 1:
        raise UsageError(
            f"--part takes two shares of the frames from 0 to 1, the smaller first, got {first:g} {last:g}"
        )


def videos_of(options: argparse.Namespace, pixels: int, stop: Callable[[], bool]) -> "list[Video]":
    """The videos that the options name; kept in OUT/videos, so that going on later takes the same.

    Args:
        pixels: width times height of the network's images.
        stop: ends the tracking; what there is by then is useless.
    """
    from slam.io.run import RECORD, Run
    from slam.sources import SourceSpec, resolved
    from slam.training.video import Video

    folder = options.out / "videos"
    folder.mkdir(exist_ok=True)
    tasks: list[tuple[str, Path, Callable[[], Video | None]]] = []
    for path in options.run:
        tasks.append((path, Path(path) / RECORD, partial(_of_run, Run(path), path, options, pixels)))
    specs = [SourceSpec(path, "video") for path in options.video] + [SourceSpec(path) for path in options.sequence]
    for spec in specs:
        found = resolved(replace(spec, calib=options.calib, hfov_deg=options.hfov, with_depth=False))
        tasks.append((spec.path, Path(found.path), partial(_of_spec, found, spec.path, options, pixels, stop)))
    videos = []
    for n, (name, file, make) in enumerate(tasks):
        asked = [name, file.stat().st_mtime_ns if file.exists() else 0, pixels, *options.part, options.poses]
        key = json.dumps([*asked, options.profile, str(options.calib), options.hfov])
        video = Video.load(folder / f"{n}.safetensors", key)
        if video is None:
            video = make()
            if video is None:
                break
            video.save(folder / f"{n}.safetensors", key)
        videos.append(video)
    return videos


def _of_run(run: "Run", name: str, options: argparse.Namespace, pixels: int) -> "Video":
    """The frames of a finished run, with its poses and depths."""
    from slam.sources.reopen import reopened
    from slam.training.video import read_video, tracked_video

    record = run.record().source
    source = reopened(windowed(record, reopened(record), options.part))
    try:
        if options.poses == "network":
            return read_video(name, source, pixels)
        return tracked_video(name, source, pixels, run.trajectory(), run.keyframes())
    finally:
        source.close()


def _of_spec(
    spec: "SourceSpec", name: str, options: argparse.Namespace, pixels: int, stop: Callable[[], bool]
) -> "Video | None":
    """The frames of a recording, with the poses and depths that the system finds; None if it was stopped."""
    from slam.sources import open_source
    from slam.training.video import read_video, tracked_video

    source = open_source(windowed(spec, open_source(spec), options.part))
    try:
        if options.poses == "network":
            return read_video(name, source, pixels)
        trajectory, keyframes = tracked(name, source, options.profile, stop)
        if stop():
            return None
        return tracked_video(name, source, pixels, trajectory, keyframes)
    finally:
        source.close()


def windowed(wanted: Windowed, source: "Source", part: tuple[float, float]) -> Windowed:
    """A source that delivers a part of its frames; `source` is what it is now, and closed.

    Raises:
        UsageError: if a part is wanted of unknown length.
    """
    count = source.count
    source.close()
    if tuple(part) == (0.0, 1.0):
        return wanted
    if count is None:
        raise UsageError(f"--part: the number of frames of {wanted.path} is not known; cut the video instead")
    first, last = (round(share * count) for share in part)
    if first == last:
        raise UsageError(f"--part {part[0]:g} {part[1]:g} of the {count} frames of {wanted.path} is none")
    return replace(wanted, start=wanted.start + first * wanted.stride, max_frames=(last - first) * wanted.stride)


def tracked(
    name: str, source: "Source", profile: str, stop: Callable[[], bool]
) -> "tuple[Trajectory, tuple[Keyframe, ...]]":
    """Final poses of the frames and final keyframes, by the system on one thread: the same each time."""
    from slam.build import build_slam
    from slam.config import SlamConfig, load_config

    slam = build_slam(load_config(SlamConfig, None, [f"profile={profile}"]), source.camera, threads=False)

    def tell(progress: "Progress") -> None:
        if progress.counts.seen % TOLD_EVERY == 0:
            log.info("tracking %s: %d of %s frames", name, progress.counts.seen, source.count or "unknown")

    try:
        slam.run(source, tell, stopped=stop)
        return slam.store.trajectory(), tuple(k.on_host() for k in slam.store.everything())
    finally:
        slam.store.close()

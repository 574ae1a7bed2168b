"""Depth images with poses in TUM layout, so that RGB-D programs, this one included, read them as a sequence."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.export.keyframes import usable_records
from slam.export.options import ExportOptions
from slam.export.pictures import own
from slam.frames import Trajectory
from slam.frontend.preparation import Preparation
from slam.geometry.camera import Camera
from slam.io.calibration import write_calibration
from slam.io.files import write_text
from slam.io.images import write_color, write_depth
from slam.io.refined import REFINED, Frames, has_frames
from slam.io.run import Run
from slam.io.trajectory import format_time_ns, write_tum
from slam.sources.reopen import reopened

log = logging.getLogger(__name__)

MAX_VALUE = 65535
LOST = 0.01  # share of the depth past the range of the files that is worth a word

Shot = tuple[int, np.ndarray, np.ndarray, np.ndarray, tuple[tuple[float, ...], ...]]  # ns, rgb, depth, T_wc, K


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`rgb/`, `depth/`, their lists, `groundtruth.txt` (the estimated poses) and `calibration.yaml`.

    Depth is that of every frame after v2d-refine, else that of the keyframes; what is less sure than asked for is 0.
    """
    shots, what = shots_of(run, options)
    times, poses, lost, known = [], [], 0, 0
    K: tuple[tuple[float, ...], ...] = ()
    size = (0, 0)
    for time_ns, rgb, depth, T_wc, K_of in shots:
        stamp = format_time_ns(time_ns)
        write_color(folder / "rgb" / f"{stamp}.png", rgb)
        write_depth(folder / "depth" / f"{stamp}.png", depth, options.depth_scale)
        times.append(time_ns)
        poses.append(T_wc)
        K, size, known = K_of, depth.shape, known + int((depth > 0).sum())
        lost += int((depth * options.depth_scale > MAX_VALUE).sum())
    if not times:
        raise SourceError(f"the source of {run.path} has none of its frames: it has changed since; run v2d-slam again")
    if lost > LOST * known:
        log.warning(
            "%.0f %% of the depth is past %.1f map units, the range of 16 bits at %g a unit, and left out: "
            "give a smaller --depth-scale",
            100 * lost / known,
            MAX_VALUE / options.depth_scale,
            options.depth_scale,
        )
    words = (
        *options.conventions,
        f"depth: 16-bit PNG, z along the axis = value / {options.depth_scale:g}, 0 is unknown",
    )
    for kind in ("rgb", "depth"):
        lines = [*(f"# {line}" for line in words), "# timestamp filename"]
        lines += [f"{format_time_ns(t)} {kind}/{format_time_ns(t)}.png" for t in times]
        write_text(folder / f"{kind}.txt", "\n".join(lines) + "\n")
    trajectory = Trajectory(np.array(times, np.int64), np.array(poses))
    write_tum(folder / "groundtruth.txt", trajectory, "\n".join((*options.conventions, "estimated by v2d-slam")))
    camera = Camera(size[1], size[0], K[0][0], K[1][1], K[0][2], K[1][2])
    write_calibration(folder / "calibration.yaml", camera, "; ".join(words))
    if options.depth_scale != 5000.0:
        text = (folder / "calibration.yaml").read_text(encoding="utf-8")
        write_text(folder / "calibration.yaml", f"{text}depth_scale: {options.depth_scale:g}\n")
    return f"{len(times)} {what}"


def shots_of(run: Run, options: ExportOptions) -> tuple[Iterator[Shot], str]:
    """What there is depth of, in time, and its name."""
    refined = (run.path, run.path / REFINED) if run.number == 1 else ()  # it is of the first map
    frames = next((path for path in refined if has_frames(path)), None)
    if frames is not None:
        try:
            return refined_frames(run, Frames(frames), options), "frames"
        except SourceError as error:
            log.warning("depth is that of the keyframes, not of every frame, whose images are gone: %s", error)
    return keyframes(run, options), "keyframes"


def keyframes(run: Run, options: ExportOptions) -> Iterator[Shot]:
    """Image and confident depth of each keyframe."""
    for record in own(usable_records(run), run):  # times of another recording would be mixed with those of this one
        confident = run.confidence(record) >= options.fusion.min_confidence
        depth = np.where(confident, run.depth(record), 0)
        yield record.time_ns, run.image(record), depth, np.array(record.T_wc), record.K


def refined_frames(run: Run, frames: Frames, options: ExportOptions) -> Iterator[Shot]:
    """Image, from the source, and confident refined depth of each frame; raises SourceError before the first one if the
    source is gone."""
    listing = frames.listing
    source = reopened(run.record().source)
    prepare = Preparation(source.camera, listing.width * listing.height)

    def each() -> Iterator[Shot]:
        wanted = {record.time_ns: record for record in frames.records}
        for frame in source:
            record = wanted.get(frame.time_ns)
            if record is None:
                continue
            image, _ = prepare.image_and_depth(frame)
            if image.shape[:2] != (listing.height, listing.width):
                raise SourceError(f"{frames.path} is not of the camera that run.json names; run v2d-refine again")
            confident = frames.confidence(record) >= options.fusion.min_confidence
            depth = np.where(confident, frames.depth(record), 0)
            yield record.time_ns, image, depth, np.array(record.T_wc), listing.K
        source.close()

    return each()

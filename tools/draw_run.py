"""Pictures of a finished run: its keyframes with depth and confidence, and a short animation of how its map grew.

python tools/draw_run.py results/latest --out images/
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from open3d.visualization import rendering
from PIL import Image  # with matplotlib

from apps.common import guarded
from slam.errors import SourceError, UsageError
from slam.frames import Keyframe
from slam.io.images import write_color
from slam.io.run import Run
from slam.mapping.fusion import FusionConfig, nearest_keyframes
from slam.sources.reopen import reopened
from slam.viewer.clouds import KeyframePoints, keyframe_points
from slam.viewer.controls import Controls
from slam.viewer.driver import check_driver
from slam.viewer.painter import Painter
from slam.viewer.panel_images import panel_images
from slam.viewer.run import FinishedRun
from slam.viewer.shapes import Viewpoint, median_depth, poses
from slam.viewer.view_state import ViewState

PANEL = (240, 180)  # columns, rows of image and depth; a cell of the animation's left column
MAP = (400, 360)  # columns, rows
LENGTH_S = 4.8  # of the animation, before it rests
REST_S = 1.2  # on the whole map
QUALITY = 70  # of WebP
FIELD_OF_VIEW_DEG = 55.0
EYE = (2.3, 1.6)  # above and behind the middle of the map, times the median depth
MOST = (0.05, 0.95)  # quantiles of the map's points along each axis
CONTROLS = Controls(shows_keyframes=False, shows_graph=False)


def keyframe_strip(run: Run, count: int) -> np.ndarray:
    """Colour, depth and confidence (rows) of `count` keyframes spread over the run (columns), (H, W, 3) uint8."""
    records = run.keyframe_records()
    columns = []
    for n in np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int):
        depth = run.depth(records[n])
        known = depth[depth > 0]
        low, high = np.quantile(1 / known, [0.02, 0.98]) if len(known) else (0.0, 1.0)
        near = np.where(depth > 0, (1 / np.maximum(depth, 1e-9) - low) / (high - low), 0).clip(0, 1)
        shaded = (255 * matplotlib.colormaps["turbo"](near)[..., :3] * (depth > 0)[..., None]).astype(np.uint8)
        confidence = (255 * run.confidence(records[n])).astype(np.uint8)
        columns.append(np.vstack([run.image(records[n]), shaded, np.repeat(confidence[..., None], 3, axis=2)]))
    return np.hstack(columns)


def moments(run: Run, finished: FinishedRun, count: int) -> Iterator[ViewState]:
    """The run at `count` of its frames with a pose, evenly spread: full-size image, the map and the path until then.

    Raises:
        SourceError: if the frames are no longer there.
    """
    keyframes, trajectory = finished.keyframes, finished.trajectory
    stamps = np.array([keyframe.view.time_ns for keyframe in keyframes])
    wanted = set(np.linspace(0, len(trajectory) - 1, count).round().astype(int))
    rows = {int(trajectory.time_ns[n]): int(n) for n in wanted}
    for frame in reopened(run.record().source):
        n = rows.get(frame.time_ns)
        if n is not None:
            shown = max(int(np.searchsorted(stamps, frame.time_ns, "right")), 1)
            path = trajectory.T_wc[: n + 1, :3, 3]
            yield ViewState(keyframes, shown, path, trajectory.T_wc[n], frame.image, "")


def outlook(middle: np.ndarray, keyframes: tuple[Keyframe, ...], turn_rad: float) -> Viewpoint:
    """From above the middle of the map, looking as the first camera did, but turned to the right."""
    T_wcs, z = poses(keyframes), median_depth(keyframes)
    up = -T_wcs[:, :3, 1].mean(0)
    up /= np.linalg.norm(up)
    right = np.cross(T_wcs[0, :3, 2], up)
    right /= np.linalg.norm(right)
    ahead = math.cos(turn_rad) * np.cross(up, right) + math.sin(turn_rad) * right
    above, behind = EYE
    return Viewpoint(middle + z * (above * up - behind * ahead), middle, up)


def animation(run: Run, finished: FinishedRun, count: int) -> Iterator[np.ndarray]:
    """At the left what the camera sees and the newest keyframe's depth, at the right map, path and camera, uint8 RGB.

    The viewpoint goes half round the room meanwhile.
    """
    check_driver()
    renderer = rendering.OffscreenRenderer(*MAP)
    painter = Painter(renderer.scene)
    points: dict[int, KeyframePoints] = {}
    middle = np.quantile(finished.fused_cloud().points, MOST, axis=0).mean(0)
    for i, shown in enumerate(moments(run, finished, count)):
        changed = set()
        for n, keyframe in enumerate(shown.drawn):
            if keyframe.id not in points:
                others = nearest_keyframes(shown.keyframes, n, FusionConfig.neighbours)
                points[keyframe.id] = keyframe_points((keyframe, others, CONTROLS.min_confidence))
                changed.add(keyframe.id)
        painter.draw_points(shown, points, changed, 3)
        painter.draw_lines(shown, CONTROLS)
        view = outlook(middle, shown.keyframes, math.pi * i / count)
        renderer.setup_camera(FIELD_OF_VIEW_DEG, view.center, view.eye, view.up)
        drawn = np.asarray(renderer.render_to_image())[..., :3]
        panels = [cv2.resize(one, PANEL, interpolation=cv2.INTER_AREA) for one in panel_images(shown)[:2]]
        yield np.hstack([np.vstack(panels), drawn])


def write_animation(path: Path, frames: list[np.ndarray]) -> None:
    """A WebP that plays for ever, and rests at its end.

    Raises:
        SourceError: if there are no frames.
    """
    if not frames:
        raise SourceError("the source of the run has none of its frames: it has changed since")
    step_ms = round(1000 * LENGTH_S / len(frames))
    first, *others = [Image.fromarray(frame) for frame in frames]
    durations = [step_ms] * (len(frames) - 1) + [round(1000 * REST_S)]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, quality=QUALITY, method=6)


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--keyframes", type=int, default=5, help="in keyframes.jpg (default %(default)s)")
    parser.add_argument("--frames", type=int, default=60, help="of the animation (default %(default)s)")
    options = parser.parse_args()
    return guarded("draw_run", lambda: draw(options))


def draw(options: argparse.Namespace) -> int:
    """Write keyframes.jpg and run.webp."""
    if options.keyframes < 1 or options.frames < 2:
        raise UsageError(
            f"--keyframes must be at least 1 and --frames at least 2, got {options.keyframes} and {options.frames}"
        )
    run, finished = Run(options.run), FinishedRun(options.run)
    options.out.mkdir(parents=True, exist_ok=True)
    write_color(options.out / "keyframes.jpg", keyframe_strip(run, options.keyframes))
    write_animation(options.out / "run.webp", list(animation(run, finished, options.frames)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

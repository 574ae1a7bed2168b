"""The files of a run directory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slam.frames import Keyframe, Trajectory
from slam.io.images import write_color, write_confidence, write_depth
from slam.io.ply import PointCloud, write_ply
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import write_tum

DEPTH_LEVELS = 20000  # 16-bit levels spent on four times the median depth of a keyframe


def write_trajectories(run: RunDirectory, trajectory: Trajectory, keyframes: Trajectory, header: str) -> None:
    """`trajectory.txt` (every frame) and `keyframes.txt`, TUM format, T_wc."""
    run.write("trajectory.txt", lambda path: write_tum(path, trajectory, header))
    run.write("keyframes.txt", lambda path: write_tum(path, keyframes, header))


def write_cloud(run: RunDirectory, cloud: PointCloud, header: str) -> None:
    """`map.ply`, world frame."""
    run.write("map.ply", lambda path: write_ply(path, cloud, tuple(header.splitlines())))


def write_keyframes(run: RunDirectory, keyframes: Sequence[Keyframe]) -> None:
    """`keyframes/`: colour, 16-bit depth and 8-bit confidence of each, and `keyframes.json` that names them."""
    entries = [_write_keyframe(run, keyframe) for keyframe in keyframes]
    run.write_json("keyframes/keyframes.json", entries)


def _write_keyframe(run: RunDirectory, keyframe: Keyframe) -> dict[str, Any]:
    inv_depth = keyframe.dense.value.numpy()
    depth = np.where(inv_depth > 0, 1 / np.maximum(inv_depth, 1e-9), 0).astype(np.float32)
    known = depth[depth > 0]
    scale = DEPTH_LEVELS / (4 * float(np.median(known))) if len(known) else 1.0
    stem = f"keyframes/{keyframe.id:06d}"
    names = {"color": f"{stem}_color.jpg", "depth": f"{stem}_depth.png", "confidence": f"{stem}_confidence.png"}
    run.write(names["color"], lambda path: write_color(path, keyframe.view.image.rgb))
    run.write(names["depth"], lambda path: write_depth(path, depth, scale))
    run.write(names["confidence"], lambda path: write_confidence(path, keyframe.dense.confidence.numpy()))
    height, width = inv_depth.shape
    return {
        "id": keyframe.id,
        "parent_id": keyframe.parent_id,
        "frame_id": keyframe.view.frame_id,
        "time_ns": keyframe.view.time_ns,
        **{kind: name.removeprefix("keyframes/") for kind, name in names.items()},
        "depth_scale": scale,
        "K": keyframe.view.K.tolist(),
        "width": width,
        "height": height,
        "T_wc": keyframe.T_wc.tolist(),
    }

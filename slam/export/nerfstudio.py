"""A run for nerfstudio and the trainers of Gaussian splats that read its `transforms.json`.

Reference: https://docs.nerf.studio/quickstart/data_conventions.html: T_wc with the camera axes of OpenGL; pixel
(0.5, 0.5) is the centre of the top left one, as in COLMAP, from which its principal points usually come.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from slam.export.cloud import fused
from slam.export.colmap import picture_name
from slam.export.keyframes import usable_records
from slam.export.options import ExportOptions
from slam.export.pictures import Pictures
from slam.io.files import write_text
from slam.io.images import write_color, write_depth
from slam.io.ply import write_ply
from slam.io.poses import OPENCV_FROM_OPENGL
from slam.io.run import KeyframeRecord, Run
from slam.io.trajectory import format_time_ns
from slam.mapping.fusion import reliable_depth

CENTRE = 0.5
CLOUD = "sparse_pc.ply"
CLOUD_RATIO = 0.02  # side of a voxel, times the median depth: splats need a start, no more
MILLIMETRES = 1000.0


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`transforms.json`, `images/`, `depths/` (16-bit, thousandths of a map unit) and `sparse_pc.ply`."""
    pictures = Pictures(run, options.max_size)
    frames = []
    for record, picture in pictures.at(usable_records(run)):
        write_color(folder / "images" / picture_name(record), picture)
        depth = cv2.resize(
            reliable_depth(run.keyframe(record), options.fusion),
            picture.shape[1::-1],
            interpolation=cv2.INTER_NEAREST_EXACT,
        )
        write_depth(folder / "depths" / f"{format_time_ns(record.time_ns)}.png", depth, MILLIMETRES)
        frames.append(entry(record))
    write_ply(folder / CLOUD, fused(run, options, CLOUD_RATIO), options.conventions)
    camera = pictures.camera
    content = {
        "conventions": [
            *options.conventions,
            "transform_matrix: camera to world, camera axes of OpenGL (x right, y up, looking along -z)",
            "pixels: (0.5, 0.5) is the centre of the top left one; the pictures are undistorted",
            "depth: 16-bit PNG, z along the axis = value * depth_unit_scale_factor map units, 0 is unknown",
        ],
        "camera_model": "OPENCV",
        "w": camera.width,
        "h": camera.height,
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx + CENTRE,
        "cy": camera.cy + CENTRE,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "depth_unit_scale_factor": 1 / MILLIMETRES,
        "applied_transform": np.eye(4)[:3].tolist(),  # from the world of trajectory.txt to that of this file
        "ply_file_path": CLOUD,
        "frames": frames,
    }
    write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")
    return f"{len(frames)} images"


def entry(record: KeyframeRecord) -> dict[str, Any]:
    """A frame of the file."""
    T_wg = np.array(record.T_wc) @ OPENCV_FROM_OPENGL
    return {
        "file_path": f"images/{picture_name(record)}",
        "depth_file_path": f"depths/{format_time_ns(record.time_ns)}.png",
        "transform_matrix": T_wg.tolist(),
    }

"""ICL-NUIM layout: the copies in TUM form (`rgb/0.png`, `depth/0.png`, `livingRoom0.gt.freiburg`) and the original one
(`scene_00_0000.{png,depth,txt}`).

Reference: Handa et al., A benchmark for RGB-D visual odometry, 3D reconstruction and SLAM, ICRA 2014. Its focal length
in y is negative, -480: the y axis of camera and world points up, in a left-handed frame. Mirroring y in both gives the
axes used here. Depth of the original form is the distance along the ray, metres.
"""

import re
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.geometry.camera import Camera, pixel_grid
from slam.io.poses import FramePoses, floats, from_matrices, from_quaternions, number_rows
from slam.reading import read_text
from slam.sources.depth_format import DepthFormat
from slam.sources.layout import Recording, numbered, require
from slam.sources.sequence import DEFAULT_FPS, ListedImage, frame_time_ns

KNOWN = Camera(640, 480, 481.2, 480.0, 319.5, 239.5)
MIRROR_Y = np.diag([1.0, -1.0, 1.0, 1.0])
TRUTH = "*.gt.freiburg"
ORIGINAL = r"scene_\d+_(\d+)"
PNG = DepthFormat(scale=5000.0, is_stated=True)
MAX_FRAME = 1e9


def is_layout(path: Path) -> bool:
    """True of a folder in either form."""
    if any(path.glob("scene_*_0*.txt")) and any(path.glob("scene_*_0*.png")):
        return True
    return any(numbered(path / "rgb", r"(\d+)\.png")) and (any(path.glob(TRUTH)) or path.name.endswith("_frei_png"))


def recording(path: Path) -> Recording:
    """The frames at 30 per second of their numbers."""
    images = numbered(path / "rgb", r"(\d+)\.png")
    depth, form = dict(numbered(path / "depth", r"(\d+)\.png")), PNG
    if not images:
        images = numbered(path, ORIGINAL + r"\.png")
        depth, form = dict(numbered(path, ORIGINAL + r"\.depth")), DepthFormat(1.0, is_stated=True, read=read_ranges)
    listed = [ListedImage(frame_time_ns(n, DEFAULT_FPS), file, depth.get(n)) for n, file in images]

    def truth() -> FramePoses:
        poses = _original_poses(path) if form is not PNG else read_poses(_truth_file(path))
        return poses.of_images([number for number, _ in images])

    return Recording(path, listed, lambda width, height: [KNOWN], form, truth)


def read_poses(path: Path) -> FramePoses:
    """Poses T_wc of a `.gt.freiburg` file, by frame number; y is mirrored to the axes of OpenCV."""
    values = floats(path, number_rows(path), 8)
    if not ((values[:, 0] >= 0) & (values[:, 0] < MAX_FRAME)).all():
        raise SourceError(f"{path}: the first column must be frame numbers")
    usable, T = from_quaternions(values[:, 1:4], values[:, 4:], str(path))
    frame, first = np.unique(np.rint(values[usable, 0]).astype(np.int64), return_index=True)
    return FramePoses(frame, MIRROR_Y @ T[first] @ MIRROR_Y)


def poses_of_images(file: Path) -> FramePoses:
    """The poses of a `.gt.freiburg` file, by index of the images beside it; without these, the first is the first's."""
    poses = read_poses(file)
    numbers = [number for number, _ in numbered(file.parent / "rgb", r"(\d+)\.png")]
    return poses.of_images(numbers or poses.frame.tolist())


def read_ranges(path: Path, form: DepthFormat) -> np.ndarray:
    """Distances along the rays, as text, -> (H, W) float32 z-depth, metres, 0 unknown.

    Raises:
        SourceError: if the file is no image of the known camera.
    """
    try:
        distance = np.array(read_text(path, "depth").split(), np.float64)
    except ValueError as error:
        raise SourceError(f"cannot read the depth {path}: {error}") from error
    if distance.size != KNOWN.width * KNOWN.height:
        raise SourceError(f"{path} is no depth of {KNOWN.width}x{KNOWN.height} pixels: it has {distance.size} numbers")
    K = KNOWN.matrix()
    xy = ((pixel_grid(KNOWN.height, KNOWN.width, K) - K[:2, 2]) / K.diagonal()[:2]).numpy()
    z = distance.reshape(KNOWN.height, KNOWN.width) / np.sqrt(1 + (xy**2).sum(-1)) / form.scale
    return np.where(np.isfinite(z) & (z > 0), z, 0).astype(np.float32)


def _truth_file(path: Path) -> Path:
    return require(next(iter(sorted(path.glob(TRUTH))), None), f"{path} has no ground truth ({TRUTH})")


def _original_poses(path: Path) -> FramePoses:
    files = numbered(path, ORIGINAL + r"\.txt")
    require(path if files else None, f"{path} has no ground truth (scene_00_0000.txt ...)")
    usable, T = from_matrices(np.stack([_original_pose(file) for _, file in files]), str(path))
    return FramePoses(np.array([number for number, _ in files], np.int64)[usable], MIRROR_Y @ T @ MIRROR_Y)


def _original_pose(file: Path) -> np.ndarray:
    """(12,) row-major pose from `cam_pos`, `cam_dir`, `cam_up` of POV-Ray, as the set's own computeRT.m does it."""
    text = read_text(file, "pose")
    vectors = []
    for name in ("cam_pos", "cam_dir", "cam_up"):
        match = re.search(name + r"\s*=\s*\[([^\]]+)\]", text)
        words = match[1].replace(",", " ").split() if match else []
        vectors.append(floats(file, [(1, words)], 3)[0])
    position, forward, up = vectors
    forward = forward / np.linalg.norm(forward)
    right = np.cross(up, forward)
    right = right / np.linalg.norm(right)
    return np.column_stack([right, np.cross(forward, right), forward, position]).ravel()

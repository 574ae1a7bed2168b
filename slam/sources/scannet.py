"""ScanNet layout: `color/0.jpg`, `depth/0.png`, `pose/0.txt`, `intrinsic/intrinsic_color.txt`.

Reference: Dai et al., ScanNet: Richly-annotated 3D reconstructions of indoor scenes, CVPR 2017. Depth is in millimetres
and has another size and other intrinsics than colour; poses T_wc of frames that were lost are -inf.
"""

from pathlib import Path

from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.io.images import read_depth
from slam.io.poses import FramePoses, read_matrix, read_matrix_files
from slam.sources.depth_format import DepthFormat
from slam.sources.layout import Recording, first_existing, numbered, require
from slam.sources.sequence import DEFAULT_FPS, ListedImage, frame_time_ns

SCALE = 1000.0
IMAGE = r"(\d+)\.(?:jpg|jpeg|png)"


def is_layout(path: Path) -> bool:
    """True of the folder of a scan."""
    return bool(_intrinsics(path, "color")) and (path / "color").is_dir()


def recording(path: Path) -> Recording:
    """The frames at 30 per second of their numbers; an export may have left some out."""
    depth = {number: file for number, file in numbered(path / "depth", r"(\d+)\.png")}
    found = numbered(path / "color", IMAGE)
    images = [ListedImage(frame_time_ns(number, DEFAULT_FPS), file, depth.get(number)) for number, file in found]
    file = require(_intrinsics(path, "color"), f"{path} has no intrinsic/intrinsic_color.txt")

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [_camera(file, width, height)]

    def truth() -> FramePoses:
        poses = numbered(path / "pose", r"(\d+)\.txt")
        require(path if poses else None, f"{path} has no ground truth (pose/0.txt ...)")
        return read_matrix_files(poses, str(path / "pose")).of_images([number for number, _ in found])

    return Recording(path, images, cameras, _depth_format(path, next(iter(depth.values()), None)), truth)


def _depth_format(path: Path, first: Path | None) -> DepthFormat | None:
    if first is None:
        return None
    file = _intrinsics(path, "depth")
    height, width = read_depth(first).shape
    return DepthFormat(SCALE, is_stated=True, camera=None if file is None else _camera(file, width, height))


def _camera(file: Path, width: int, height: int) -> Camera:
    K = read_matrix(file)
    return camera_of("pinhole", width, height, (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), (), str(file))


def _intrinsics(path: Path, kind: str) -> Path | None:
    return first_existing(path / "intrinsic" / f"intrinsic_{kind}.txt", path / f"intrinsic_{kind}.txt")

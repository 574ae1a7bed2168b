"""KITTI odometry layout: `sequences/00/{image_2,calib.txt,times.txt}` and `poses/00.txt`.

Reference: Geiger, Lenz & Urtasun, Are we ready for autonomous driving?, CVPR 2012. Poses are those of camera 0, the
left gray one; the `P` rows of `calib.txt` say how far beside it each other camera stands.
"""

from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.io.poses import FramePoses, floats, from_matrix, number_rows, read_matrix_rows
from slam.io.trajectory import parse_time_ns
from slam.reading import read_text
from slam.sources.images import images_in
from slam.sources.layout import Recording, at_rate, first_existing, require
from slam.sources.names import natural_key
from slam.sources.sequence import ListedImage

IMAGES = ("image_2", "image_0", "image_3", "image_1")  # left colour first


def is_layout(path: Path) -> bool:
    """True of a sequence, and of one of its folders of images."""
    folder = path.parent if path.name in IMAGES else path
    return (folder / "calib.txt").is_file() and any((folder / name).is_dir() for name in IMAGES)


def recording(path: Path) -> Recording:
    """The frames of the left colour camera, or of the one whose folder `path` is.

    Raises:
        SourceError: if a list is damaged.
    """
    folder, name = (path.parent, path.name) if path.name in IMAGES else (path, "")
    name = name or _camera(folder)
    files = sorted(images_in(folder / name), key=natural_key)
    images = at_rate((file, None) for file in files)
    if (folder / "times.txt").is_file():
        time_ns = read_times(folder / "times.txt")
        if len(time_ns) < len(files):
            raise SourceError(f"{folder / 'times.txt'} has {len(time_ns)} stamps for {len(files)} images")
        images = [ListedImage(int(t), file) for t, file in zip(time_ns, files)]
    P = _projection(folder / "calib.txt", _row(folder, name))
    intrinsics = (P[0, 0], P[1, 1], P[0, 2], P[1, 2])

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [camera_of("pinhole", width, height, intrinsics, (), f"{folder / 'calib.txt'}")]

    return Recording(folder, images, cameras, truth=lambda: _poses(folder, P))


def read_times(path: Path) -> np.ndarray:
    """(N,) int64 nanoseconds of `times.txt`.

    Raises:
        SourceError: if a line is no time, or not later than the one before.
    """
    times = []
    for number, words in number_rows(path, "list of times"):
        try:
            times.append(parse_time_ns(words[0]))
        except ValueError as error:
            raise SourceError(f"{path}, line {number}: {error}") from error
        if len(times) > 1 and times[-1] <= times[-2]:
            raise SourceError(f"{path}, line {number}: time {words[0]} is not later than the one before it")
    return np.array(times, np.int64)


def read_poses(path: Path) -> FramePoses:
    """The poses of a file of 12 numbers a line, T_wc, one line for each frame."""
    return read_matrix_rows(path, 12)


def poses_of_images(file: Path, folder: Path) -> FramePoses:
    """The poses of a file, moved from camera 0 to the camera whose images `recording` takes from the sequence."""
    poses = read_poses(file)
    if not is_layout(folder):
        return poses
    file = folder / "calib.txt"
    return FramePoses(poses.frame, poses.T_wc @ _camera_beside(_projection(file, _row(folder)), file))


def sequence_of(poses: Path) -> Path | None:
    """The folder with the `times.txt` that belongs to a file of poses: its own, or the sequence of its name."""
    file = first_existing(poses.parent / "times.txt", poses.parent.parent / "sequences" / poses.stem / "times.txt")
    return None if file is None else file.parent


def _camera(folder: Path) -> str:
    """The name of the best folder of images."""
    name = next((name for name in IMAGES if images_in(folder / name)), None)
    if name is None:
        raise SourceError(f"{folder} has no images in {', '.join(IMAGES)}")
    return name


def _row(folder: Path, name: str = "") -> str:
    """The row of `calib.txt` of a folder of images."""
    return f"P{(name or _camera(folder))[-1]}"


def _poses(folder: Path, P: np.ndarray) -> FramePoses | Trajectory:
    """Poses of the camera with this projection matrix (3, 4)."""
    file = first_existing(
        folder.parent.parent / "poses" / f"{folder.name}.txt",
        folder.parent / "poses" / f"{folder.name}.txt",
        folder / "poses.txt",
        folder / f"{folder.name}.txt",
    )
    poses = read_poses(require(file, f"{folder} has no ground truth (../../poses/{folder.name}.txt)"))
    return FramePoses(poses.frame, poses.T_wc @ _camera_beside(P, folder / "calib.txt"))


def _camera_beside(P: np.ndarray, file: Path) -> np.ndarray:
    """Where a camera stands, seen from camera 0 (4, 4), by its projection P = K [I | t] (3, 4) in this file."""
    try:
        t = np.linalg.solve(P[:, :3], P[:, 3:])
    except np.linalg.LinAlgError as error:
        raise SourceError(f"{file}: the projection of these images is none of a camera") from error
    return from_matrix(np.hstack([np.eye(3), -t]), str(file))


def _projection(file: Path, row: str) -> np.ndarray:
    for line in read_text(file, "calibration").splitlines():
        key, _, numbers = line.partition(":")
        if key.strip() == row:
            return floats(file, [(1, numbers.split())], 12).reshape(3, 4)
    raise SourceError(f"{file} has no row {row}:, the projection of these images")

"""OpenLORIS-Scene layout: `color/`, `color.txt`, `aligned_depth/`, `groundtruth.txt`, `sensors.yaml`,
`trans_matrix.yaml`.

Reference: Shi et al., Are we ready for service robots? The OpenLORIS-Scene datasets for lifelong SLAM, ICRA 2020. The
truth is of the robot's base; `trans_matrix.yaml` places the camera on it. Depth is in millimetres. The intrinsics stand
as fx, cx, fy, cy in the published files, and as fx, fy, cx, cy in copies.
"""

from pathlib import Path

import numpy as np

from slam.errors import CalibrationError, SourceError
from slam.frames import Trajectory
from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.io.calibration_text import load_yaml
from slam.io.poses import from_matrix, read_stamped
from slam.reading import read_text
from slam.sources.depth_format import DepthFormat
from slam.sources.image_lists import read_image_list
from slam.sources.layout import Recording, require
from slam.sources.sequence import ListedImage
from slam.sources.tum import associate

SENSOR = "d400_color_optical_frame"
BASE = "base_link"
DEPTH = DepthFormat(scale=1000.0, is_stated=True)


def is_layout(path: Path) -> bool:
    """True of a folder with the list of colour images and the sensors."""
    return (path / "color.txt").is_file() and (path / "sensors.yaml").is_file()


def recording(path: Path) -> Recording:
    """The colour frames with their stamps."""
    color = read_image_list(path / "color.txt", path)
    depth: dict[int, Path] = {}
    if (path / "aligned_depth.txt").is_file():
        listed = read_image_list(path / "aligned_depth.txt", path)
        depth = {i: listed[j][1] for i, j in associate(_times(color), _times(listed))}
    images = [ListedImage(time_ns, file, depth.get(i)) for i, (time_ns, file) in enumerate(color)]

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [_camera(path / "sensors.yaml")]

    return Recording(path, images, cameras, DEPTH if depth else None, lambda: read_poses(path))


def read_poses(path: Path) -> Trajectory:
    """Poses T_wc of the colour camera: the robot's T_wb times T_bc."""
    file = path / "groundtruth.txt"
    return of_camera(require(file if file.is_file() else None, f"{path} has no ground truth (groundtruth.txt)"))


def of_camera(file: Path) -> Trajectory:
    """The poses of a file of the robot, moved to the colour camera by `trans_matrix.yaml` beside it."""
    robot = read_stamped(file)
    return Trajectory(robot.time_ns, robot.T_wc @ camera_on_robot(file.parent / "trans_matrix.yaml"))


def camera_on_robot(file: Path) -> np.ndarray:
    """T_bc (4, 4), along the chain of frames of `trans_matrix.yaml`.

    Raises:
        SourceError: if the file is damaged or does not lead from the base to the camera.
    """
    links: dict[str, list[tuple[str, np.ndarray]]] = {}
    try:
        for entry in load_yaml(read_text(file, "list of frames"), file)["trans_matrix"]:
            T_pc = from_matrix(entry["matrix"]["data"], str(file))
            links.setdefault(entry["parent_frame"], []).append((entry["child_frame"], T_pc))
            links.setdefault(entry["child_frame"], []).append((entry["parent_frame"], np.linalg.inv(T_pc)))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{file} is no list of trans_matrix with parent_frame, child_frame and matrix") from error
    reached = {BASE: np.eye(4)}
    waiting = [BASE]
    while waiting:
        frame = waiting.pop()
        for other, T_fo in links.get(frame, []):
            if other not in reached:
                reached[other] = reached[frame] @ T_fo
                waiting.append(other)
    if SENSOR not in reached:
        raise SourceError(f"{file} does not lead from {BASE} to {SENSOR}")
    return reached[SENSOR]


def _camera(file: Path) -> Camera:
    try:
        sensor = load_yaml(read_text(file, "calibration", CalibrationError), file)[SENSOR]
        a, b, c, d = (float(x) for x in sensor["intrinsics"]["data"])
        size = int(sensor["width"]), int(sensor["height"])
        distortion = tuple(float(x) for x in sensor.get("distortion_coefficients", {}).get("data", ()))
        model = str(sensor.get("distortion_model") or "radtan")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise CalibrationError(f"{file} has no intrinsics and size of {SENSOR}") from error
    intrinsics = (a, c, b, d) if abs(a - c) < abs(a - b) else (a, b, c, d)  # pixels are square
    is_plain = not any(distortion)
    return camera_of("pinhole" if is_plain else model, *size, intrinsics, () if is_plain else distortion, str(file))


def _times(listed: list[tuple[int, Path]]) -> np.ndarray:
    return np.array([time_ns for time_ns, _ in listed], np.int64)

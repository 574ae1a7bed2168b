"""EuRoC MAV layout: `mav0/cam0/{data.csv,data/,sensor.yaml}`, ground truth of the IMU body.

Reference: Burri et al., The EuRoC micro aerial vehicle datasets, IJRR 2016.
"""

from pathlib import Path

import numpy as np
import yaml

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.io.files import read_text
from slam.io.lists import columns, content_lines, in_time
from slam.io.quaternion import matrix_from_quat_xyzw
from slam.sources.image_lists import read_image_list
from slam.sources.sequence import ALL_FRAMES, OWN_CAMERA, CameraChoice, FrameWindow, ImageSequence, ListedImage

NANOSECOND = 1  # unit of the stamps
GROUND_TRUTHS = ("state_groundtruth_estimate0", "mocap0", "vicon0", "leica0")


class EurocSource(ImageSequence):
    """Frames of the left camera, stamps in nanoseconds as the file has them."""

    def __init__(self, path: Path, window: FrameWindow = ALL_FRAMES, choice: CameraChoice = OWN_CAMERA) -> None:
        """Read the list of images.

        Raises:
            SourceError: if the folder is not of this layout, the list is damaged, or no image can be read.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        camera = camera_folder(path)
        listed = read_image_list(camera / "data.csv", camera / "data", NANOSECOND)
        super().__init__(
            str(path),
            [ListedImage(*each) for each in listed],
            window,
            lambda width, height: choice.camera(width, height, [camera / "sensor.yaml"], str(path)),
        )


def is_euroc(path: Path) -> bool:
    """True if the folder has a `cam0` of this layout."""
    return any((path / name / "data.csv").is_file() for name in ("mav0/cam0", "cam0"))


def camera_folder(path: Path) -> Path:
    """The folder of the left camera.

    Raises:
        SourceError: if there is none.
    """
    for name in ("mav0/cam0", "cam0"):
        if (path / name / "data.csv").is_file():
            return path / name
    raise SourceError(f"{path} has no mav0/cam0/data.csv")


def read_poses(path: Path) -> Trajectory:
    """Ground truth T_wc of the left camera: the body's poses T_wb times T_bc (`T_BS` of `cam0/sensor.yaml`).

    Raises:
        SourceError: if the ground truth or the camera's place on the body is missing or damaged.
    """
    camera = camera_folder(path)
    T_bc = _camera_on_body(camera / "sensor.yaml")
    for name in GROUND_TRUTHS[:2]:  # vicon0 is of the markers, leica0 has no rotation
        file = camera.parent / name / "data.csv"
        if file.is_file():
            break
    else:
        raise SourceError(f"{path} has no ground truth with orientation ({GROUND_TRUTHS[0]}/data.csv)")
    rows = _rows(file, 7)
    try:
        values = np.array([[float(word) for word in words[:7]] for _, words in rows])
    except ValueError as error:
        raise SourceError(f"{file}: {error}; expected time, position, quaternion w x y z") from error
    if not np.isfinite(values).all() or np.linalg.norm(values[:, 3:], axis=-1).min() < 0.1:
        raise SourceError(f"{file} has poses that are not finite or no rotations")
    T_wb = np.tile(np.eye(4), (len(rows), 1, 1))
    T_wb[:, :3, :3] = matrix_from_quat_xyzw(values[:, [4, 5, 6, 3]])  # the file has w first
    T_wb[:, :3, 3] = values[:, :3]
    return Trajectory(np.array([time_ns for time_ns, _ in rows], np.int64), T_wb @ T_bc)


def _camera_on_body(file: Path) -> np.ndarray:
    """T_bc (4, 4) of a sensor.yaml."""
    try:
        data = yaml.safe_load(read_text(file, "sensor description"))["T_BS"]["data"]
        return np.array([float(x) for x in data]).reshape(4, 4)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{file} has no T_BS, the camera's place on the body") from error


def _rows(file: Path, number: int) -> list[tuple[int, list[str]]]:
    """Time (ns) and so many words after it of each line, increasing in time."""
    expected = f"a time in ns and {number} more columns"
    stamps, rows = [], []
    for line, text in content_lines(read_text(file, "list")):
        words = columns(text)
        if len(words) <= number:
            raise SourceError(f"{file}, line {line}: expected {expected}")
        stamps.append((line, words[0]))
        rows.append(words[1 : number + 1])
    if not rows:
        raise SourceError(f"{file} is empty")
    return in_time(file, stamps, rows, expected, NANOSECOND)

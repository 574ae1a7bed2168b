"""EuRoC MAV layout: `mav0/cam0/{data.csv,data/,sensor.yaml}`, ground truth of the IMU body.

Reference: Burri et al., The EuRoC micro aerial vehicle datasets, IJRR 2016.
"""

from pathlib import Path

import numpy as np

from slam.errors import CalibrationError, SourceError
from slam.frames import Trajectory
from slam.io.calibration_text import load_yaml
from slam.io.poses import from_matrix, read_stamped
from slam.reading import read_text
from slam.sources.image_lists import read_image_list
from slam.sources.layout import Recording, first_existing, require
from slam.sources.sequence import ListedImage

NANOSECOND = 1  # unit of the stamps
CAMERAS = ("mav0/cam0", "cam0", ".", "..")  # seen from the root, from mav0, from cam0, and from its data
GROUND_TRUTHS = ("state_groundtruth_estimate0", "mocap0")


def is_layout(path: Path) -> bool:
    """True if the folder has a `cam0` of this layout, or is it."""
    return _camera_folder(path) is not None


def recording(path: Path) -> Recording:
    """The frames of the left camera, stamps in nanoseconds as the file has them.

    Raises:
        SourceError: if the folder is not of this layout, or the list is damaged.
    """
    camera = require(_camera_folder(path), f"{path} has no mav0/cam0/data.csv")
    listed = read_image_list(camera / "data.csv", camera / "data", NANOSECOND)

    def truth() -> Trajectory:
        T_bc = camera_on_body(camera)
        # vicon0 is of the markers, leica0 has no rotation
        file = first_existing(*(camera.parent / name / "data.csv" for name in GROUND_TRUTHS))
        problem = f"{path} has no ground truth with orientation ({GROUND_TRUTHS[0]}/data.csv)"
        return of_camera(read_stamped(require(file, problem)), T_bc)

    images = [ListedImage(*each) for each in listed]
    return Recording(path, images, lambda width, height: calibrations(camera), truth=truth)


def of_camera(body: Trajectory, T_bc: np.ndarray) -> Trajectory:
    """Poses T_wb of the body -> T_wc of a camera at T_bc on it."""
    return Trajectory(body.time_ns, body.T_wc @ T_bc)


def camera_on_body(camera: Path) -> np.ndarray:
    """T_bc (4, 4) of the camera with this folder: `T_BS` of its `sensor.yaml`, or the inverse of Kalibr's `T_cam_imu`.

    Raises:
        SourceError: if neither is there, or it is no rigid motion.
    """
    files = calibrations(camera)
    for file in files:
        try:
            content = load_yaml(read_text(file, "sensor description"), file)
            if "T_BS" in content:
                return from_matrix(content["T_BS"]["data"], str(file))
            if "T_cam_imu" in content[camera.name]:
                return np.linalg.inv(from_matrix(content[camera.name]["T_cam_imu"], str(file)))
        except (CalibrationError, KeyError, TypeError, ValueError, OverflowError):
            continue
    names = " and ".join(str(file) for file in files)
    raise SourceError(f"{names or camera} has no T_BS, the camera's place on the body")


def calibrations(camera: Path) -> list[Path]:
    """The files that may describe the camera with this folder, best first."""
    folders = (camera.parent, camera.parent.parent, camera.parent / "dso", camera.parent.parent / "dso")
    places = (camera / "sensor.yaml", *(folder / "camchain.yaml" for folder in folders))
    return [file for file in places if file.is_file()]


def _is_camera(folder: Path) -> bool:
    """True of a folder with the list of a camera; other sensors have lists too, and no images."""
    is_one = (folder / "data").is_dir() or folder.resolve().name.startswith("cam")
    return is_one and (folder / "data.csv").is_file()


def _camera_folder(path: Path) -> Path | None:
    """The folder of the left camera."""
    for name in CAMERAS:
        if _is_camera(path / name):
            return (path / name).resolve() if name.startswith(".") else path / name
    return None

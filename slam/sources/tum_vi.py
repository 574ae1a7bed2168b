"""TUM-VI's export for DSO: `dso/{cam0/{images/,times.txt},camchain.yaml,gt_imu.csv}`; its other form is EuRoC's.

Reference: Schubert et al., The TUM VI benchmark for evaluating visual-inertial odometry, IROS 2018. A line of
`times.txt` is the name of an image, its time in seconds, and its exposure. The truth is of the IMU.
"""

from pathlib import Path

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.geometry.camera import Camera
from slam.io.poses import number_rows, read_stamped
from slam.io.trajectory import parse_time_ns
from slam.sources import euroc
from slam.sources.images import IMAGE_SUFFIXES
from slam.sources.layout import Recording, first_existing, require
from slam.sources.sequence import ListedImage

CAMERAS = ("dso/cam0", "cam0", ".", "..")  # seen from the root, from dso, from cam0, and from its images


def is_layout(path: Path) -> bool:
    """True of the root, of `dso`, and of the folder of the camera."""
    return _camera_folder(path) is not None


def recording(path: Path) -> Recording:
    """The frames of the left camera with their stamps.

    Raises:
        SourceError: if the list is damaged.
    """
    camera = require(_camera_folder(path), f"{path} has no dso/cam0/times.txt")
    images = []
    for number, words in number_rows(camera / "times.txt", "list of times"):
        try:
            time_ns = parse_time_ns(words[1])
        except (IndexError, ValueError) as error:
            where = f"{camera / 'times.txt'}, line {number}"
            raise SourceError(f"{where}: expected a name and a time in seconds") from error
        images.append(ListedImage(time_ns, _image(camera / "images", words[0])))
    images.sort(key=lambda image: image.time_ns)

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return list(euroc.calibrations(camera))

    def truth() -> Trajectory:
        file = first_existing(camera.parent / "gt_imu.csv", camera.parent.parent / "mav0/mocap0/data.csv")
        body = read_stamped(require(file, f"{path} has no ground truth (dso/gt_imu.csv)"))
        return euroc.of_camera(body, euroc.camera_on_body(camera))

    return Recording(path, images, cameras, truth=truth)


def _image(folder: Path, name: str) -> Path:
    return first_existing(*(folder / f"{name}{suffix}" for suffix in sorted(IMAGE_SUFFIXES))) or folder / f"{name}.png"


def _camera_folder(path: Path) -> Path | None:
    for name in CAMERAS:
        camera = path / name
        if (camera / "times.txt").is_file() and (camera / "images").is_dir():
            return camera.resolve() if name.startswith(".") else camera
    return None

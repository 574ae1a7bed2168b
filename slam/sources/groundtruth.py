"""Ground truth of the data sets, apart from their frames, in whichever form they have it."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slam.errors import SourceError, UsageError
from slam.frames import Trajectory
from slam.io.poses import (
    FramePoses,
    floats,
    from_matrices,
    is_nanoseconds_table,
    number_rows,
    read_matrix_files,
    read_matrix_rows,
    read_stamped,
)
from slam.sources import euroc, icl_nuim, kitti, nerfstudio, openloris, record3d, tartanair
from slam.sources.archives import archive_kind, unpacked
from slam.sources.bags.poses import read_poses
from slam.sources.bags.storage import is_bag
from slam.sources.layout import numbered
from slam.sources.locate import LAYOUTS, kind_of, layout, recording_near

log = logging.getLogger(__name__)

TUM_NAMES = ("groundtruth.txt", "groundtruth.tum", "gt.txt")
FORMS = (
    "8 numbers a line (TUM), a table of nanoseconds (EuRoC), 12 (KITTI), 16 (Replica, ScanNet) or 7 (TartanAir), "
    "transforms.json, or metadata of Record3D"
)


def read_groundtruth(
    path: Path, frame_times: Callable[[], np.ndarray] | None = None, topic: str | None = None
) -> Trajectory:
    """Ground truth T_wc of the camera.

    Args:
        path: a file, or the folder of a recording, in any of the forms that data sets have.
        frame_times: gives the stamps (N,) int64, ns, of all frames of the recording that is evaluated. Poses without
            stamps are paired with them by number.
        topic: of the poses in a ROS bag; None: the only one.

    Raises:
        SourceError: if there is none, it is damaged, or it has no stamps and nothing else has them.
    """
    if path.is_file() and archive_kind(path) is not None:
        path = unpacked(path)
    if is_bag(path):
        return read_poses(path, topic)
    if topic is not None:
        raise UsageError(f"--topic is for ROS bags; {path} is none")
    if path.is_file():
        poses, times = _of_file(path)
    elif path.is_dir():
        poses, times = _of_folder(path)
    else:
        raise SourceError(f"no ground truth at {path}")
    if isinstance(poses, Trajectory):
        return poses
    if frame_times is not None:
        try:
            stamped = poses.stamped(frame_times())
        except SourceError:  # the recording is gone
            if times is None:
                raise
        else:
            log.info("%s has no time stamps of its own: pose n is that of frame n of the recording that was run", path)
            return stamped
    if times is None:
        raise SourceError(
            f"{path} has no time stamps: evaluate the directory of a run, whose frames it is then paired with by "
            "number, or name the folder of the recording"
        )
    return poses.stamped(times())


def known_truth(path: Path) -> Trajectory | None:
    """Ground truth that lies in the folder of a recording; None if there is none or, with a WARNING, it is damaged."""
    if not path.is_dir():
        return None
    kind = kind_of(path)
    if kind == "ros":  # it may have poses, and does not say whose: only where they are asked for
        return None
    if kind in (None, "tum") and not any((path / name).is_file() for name in TUM_NAMES):
        return None
    try:
        return read_groundtruth(path)
    except SourceError as error:
        log.warning("no score at the end: %s", error)
        return None


Times = Callable[[], np.ndarray] | None


def _of_folder(path: Path) -> tuple[Trajectory | FramePoses, Times]:
    kind = kind_of(path)
    if kind in LAYOUTS:
        recording = layout(kind).recording(path)
        if recording.truth is not None:
            return recording.truth(), lambda: np.array([image.time_ns for image in recording.images], np.int64)
    for name in TUM_NAMES:
        if (path / name).is_file():
            return read_stamped(path / name), None
    near = recording_near(path)
    if near is not None and near[0] != path:
        return _of_folder(near[0])
    files = numbered(path, r"(?:frame-)?(\d+)(?:\.pose)?\.txt")  # ScanNet's pose/
    if files:
        return read_matrix_files([(n, file) for n, (_, file) in enumerate(files)], str(path)), None
    raise SourceError(f"{path} has no ground truth ({TUM_NAMES[0]}, or that of a known layout: {', '.join(LAYOUTS)})")


def _of_file(path: Path) -> tuple[Trajectory | FramePoses, Times]:
    """Poses of a file by its content, and the stamps that lie beside it."""
    if path.suffix == ".json" or path.name == "metadata":
        if path.name.startswith("metadata"):
            return record3d.read_poses(path), None
        return nerfstudio.read_poses(path), None
    if path.name.endswith(".gt.freiburg"):
        return icl_nuim.poses_of_images(path), None
    rows = number_rows(path)
    columns = len(rows[0][1])
    if is_nanoseconds_table(path) and columns >= 8:
        return _on_body(path), None
    if columns == 8:
        return openloris.of_camera(path) if openloris.is_layout(path.parent) else read_stamped(path), None
    if columns == 4 and _are_times([words[0] for _, words in rows]):
        raise SourceError(f"{path} has positions without orientation (time x y z), which are not compared: give poses")
    if columns == 12:
        return _of_kitti(path)
    if columns == 16:
        return read_matrix_rows(path, 16), None
    if columns == 7:
        log.info("%s is read as TartanAir's: position and quaternion xyzw in axes north-east-down", path)
        return tartanair.read_poses(path), None
    if columns == 4 and len(rows) % 4 == 0:
        values = floats(path, rows, 4).reshape(-1, 16)
        return FramePoses(*from_matrices(values, str(path))), None
    raise SourceError(f"{path}, line {rows[0][0]}: {columns} numbers are no known form of poses; expected {FORMS}")


def _are_times(words: list[str]) -> bool:
    """True of a column that increases as no column of stacked matrices does."""
    try:
        values = np.array(words, np.float64)
    except ValueError:
        return False
    return len(values) > 4 and bool((np.diff(values) > 0).all())


def _on_body(path: Path) -> Trajectory:
    """A table of EuRoC or TUM-VI, moved from the body to the camera whose calibration lies beside it."""
    body = read_stamped(path)
    folders = (path.parent.parent / "cam0", path.parent / "cam0")
    camera = next((folder for folder in folders if folder.is_dir() and euroc.calibrations(folder)), None)
    if camera is None:
        log.warning(
            "%s is taken as poses of the camera: no cam0/sensor.yaml beside it says where on the body that is", path
        )
        return body
    return euroc.of_camera(body, euroc.camera_on_body(camera))


def _of_kitti(path: Path) -> tuple[FramePoses, Times]:
    folder = kitti.sequence_of(path)
    if folder is None:
        return kitti.read_poses(path), None
    log.info("%s: time stamps, and the place of the camera, of %s", path, folder)
    return kitti.poses_of_images(path, folder), lambda: kitti.read_times(folder / "times.txt")

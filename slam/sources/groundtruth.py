"""Ground truth of the data sets, apart from their frames."""

import logging
from pathlib import Path

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.io.trajectory import read_tum
from slam.sources import euroc, seven_scenes

log = logging.getLogger(__name__)

TUM_NAMES = ("groundtruth.txt", "groundtruth.tum", "gt.txt")


def read_groundtruth(path: Path) -> Trajectory:
    """Ground truth T_wc of the camera.

    Args:
        path: a TUM trajectory file, or the folder of a sequence (TUM layout, 7-Scenes, EuRoC).

    Raises:
        SourceError: if there is none, or it is damaged.
    """
    if path.is_file():
        return read_tum(path)
    if not path.is_dir():
        raise SourceError(f"no ground truth at {path}")
    for name in TUM_NAMES:
        if (path / name).is_file():
            return read_tum(path / name)
    if seven_scenes.is_seven_scenes(path):
        return seven_scenes.read_poses(path)
    if euroc.is_euroc(path):
        return euroc.read_poses(path)
    raise SourceError(f"{path} has no ground truth ({TUM_NAMES[0]}, frame-XXXXXX.pose.txt, or EuRoC's mav0)")


def known_truth(path: Path) -> Trajectory | None:
    """Ground truth that lies in the folder of a recording; None if there is none or, with a WARNING, it is damaged."""
    kinds = (seven_scenes.is_seven_scenes, euroc.is_euroc)
    if not path.is_dir() or not (any((path / name).is_file() for name in TUM_NAMES) or any(k(path) for k in kinds)):
        return None
    try:
        return read_groundtruth(path)
    except SourceError as error:
        log.warning("no score at the end: %s", error)
        return None

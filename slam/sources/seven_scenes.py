"""7-Scenes layout: `seq-01/frame-000000.{color.png,depth.png,pose.txt}`.

Reference: Shotton et al., Scene coordinate regression forests, CVPR 2013. The data set gives one focal length, 585,
for colour and depth, and no registration between them.
"""

from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.geometry.camera import Camera
from slam.io.calibration import read_calibration
from slam.io.files import read_text, shipped
from slam.sources.depth_format import DepthFormat
from slam.sources.sequence import (
    ALL_FRAMES,
    OWN_CAMERA,
    CameraChoice,
    FrameWindow,
    ImageSequence,
    ListedImage,
    frame_time_ns,
)

FPS = 30.0
DEPTH = DepthFormat(scale=1000.0, invalid=65535, is_stated=True)
MAX_SKEW = 0.01  # the rotations of the set are orthonormal to about 1e-4


class SevenScenesSource(ImageSequence):
    """Frames of one 7-Scenes sequence at 30 frames per second; of a scene folder, its first sequence."""

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        with_depth: bool = False,
        depth_scale: float | None = None,
    ) -> None:
        """List the frames.

        Raises:
            SourceError: if there are none, or none can be read.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        folder = sequence_folder(path)
        shots = [
            ListedImage(
                frame_time_ns(number, FPS), file, folder / f"frame-{number:06d}.depth.png" if with_depth else None
            )
            for number, file in _numbered(folder, ".color.png")
        ]
        super().__init__(
            str(folder),
            shots,
            window,
            lambda width, height: choice.camera(
                width, height, [folder / "calibration.yaml", path / "calibration.yaml", _known()], str(folder)
            ),
            DEPTH.rescaled(depth_scale) if with_depth else None,
        )


def is_seven_scenes(path: Path) -> bool:
    """True if the folder has frames of this layout, or `seq-XX` folders that do."""
    return any(_has_frames(folder) for folder in (path, *sorted(path.glob("seq-*"))))


def sequence_folder(path: Path) -> Path:
    """The folder with the frames: `path` itself, or its first `seq-XX`.

    Raises:
        SourceError: if neither has frames.
    """
    for folder in (path, *sorted(path.glob("seq-*"))):
        if _has_frames(folder):
            return folder
    raise SourceError(f"{path} has no frame-XXXXXX.color.png, nor a folder seq-XX with them")


def read_poses(path: Path) -> Trajectory:
    """Ground truth T_wc of a sequence, stamped like its frames.

    Raises:
        SourceError: if a pose is no rigid motion, or there are none.
    """
    folder = sequence_folder(path)
    numbered = _numbered(folder, ".pose.txt")
    if not numbered:
        raise SourceError(f"{folder} has no ground truth (frame-XXXXXX.pose.txt)")
    T_wc = np.stack([_read_pose(file) for _, file in numbered])
    return Trajectory(np.array([frame_time_ns(number, FPS) for number, _ in numbered], np.int64), T_wc)


def _known() -> Camera:
    return read_calibration(shipped("calibrations/7scenes.yaml"))


def _has_frames(folder: Path) -> bool:
    return next(folder.glob("frame-*.color.png"), None) is not None


def _numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    names = [(file.name.removeprefix("frame-").removesuffix(suffix), file) for file in folder.glob(f"frame-*{suffix}")]
    return sorted((int(number), file) for number, file in names if number.isdecimal())


def _read_pose(file: Path) -> np.ndarray:
    try:
        T_wc = np.array([float(word) for word in read_text(file, "pose").split()]).reshape(4, 4)
    except ValueError as error:
        raise SourceError(f"{file} is no pose: expected 4x4 numbers") from error
    R = T_wc[:3, :3]
    if not np.isfinite(T_wc).all() or np.abs(R @ R.T - np.eye(3)).max() > MAX_SKEW or np.linalg.det(R) < 0:
        raise SourceError(f"{file} is no pose: its 3x3 part is no rotation")
    U, _, Vt = np.linalg.svd(R)
    T_wc[:3, :3] = U @ Vt  # the text has seven digits
    return T_wc

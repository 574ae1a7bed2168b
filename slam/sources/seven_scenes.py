"""7-Scenes layout: `seq-01/frame-000000.{color.png,depth.png,pose.txt}`.

Reference: Shotton et al., Scene coordinate regression forests, CVPR 2013. The data set gives one focal length, 585,
for colour and depth, and no registration between them.
"""

from pathlib import Path

from slam.errors import SourceError
from slam.geometry.camera import Camera
from slam.io.files import shipped
from slam.io.poses import FramePoses, read_matrix_files
from slam.sources.depth_format import DepthFormat
from slam.sources.layout import CALIBRATION, Recording, numbered, require
from slam.sources.sequence import DEFAULT_FPS, ListedImage, frame_time_ns

DEPTH = DepthFormat(scale=1000.0, invalid=65535, is_stated=True)


def is_layout(path: Path) -> bool:
    """True if the folder has frames of this layout, or `seq-XX` folders that do."""
    return _sequence_folder(path) is not None


def recording(path: Path) -> Recording:
    """The frames at 30 per second of their numbers; of a scene folder, those of its first sequence.

    Raises:
        SourceError: if there are none.
    """
    folder = _sequence_folder(path)
    if folder is None:
        raise SourceError(f"{path} has no frame-XXXXXX.color.png, nor a folder seq-XX with them")
    found = numbered(folder, r"frame-(\d+)\.color\.png")
    depth = dict(numbered(folder, r"frame-(\d+)\.depth\.png"))
    images = [ListedImage(frame_time_ns(number, DEFAULT_FPS), file, depth.get(number)) for number, file in found]

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [path / CALIBRATION, shipped("calibrations/7scenes.yaml")]

    def truth() -> FramePoses:
        poses = numbered(folder, r"frame-(\d+)\.pose\.txt")
        require(folder if poses else None, f"{folder} has no ground truth (frame-XXXXXX.pose.txt)")
        return read_matrix_files(poses, str(folder)).of_images([number for number, _ in found])

    return Recording(folder, images, cameras, DEPTH, truth)


def _sequence_folder(path: Path) -> Path | None:
    """The folder with the frames: `path` itself, or its first `seq-XX`; None if neither has frames."""
    folders = (path, *sorted(path.glob("seq-*")))
    return next((folder for folder in folders if any(folder.glob("frame-*.color.png"))), None)

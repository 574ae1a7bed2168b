"""TartanAir layout: `P000/{image_left,depth_left,pose_left.txt}`, and that of its second version (`lcam_front`).

Reference: Wang et al., TartanAir: A dataset to push the limits of visual SLAM, IROS 2020. Poses are in axes
north-east-down, of the camera too (x forward, y right, z down); all images see 90 degrees.
"""

from pathlib import Path

from slam.geometry.camera import Camera
from slam.io.poses import NED_FROM_OPENCV, FramePoses, floats, from_quaternions, number_rows
from slam.sources.depth_format import DepthFormat, read_npy
from slam.sources.images import images_in
from slam.sources.layout import Recording, at_rate, first_existing, require
from slam.sources.names import natural_key

CAMERAS = ("left", "lcam_front", "right", "rcam_front")
KNOWN = (Camera(640, 480, 320, 320, 320, 240), Camera(640, 640, 320, 320, 320, 320))
DEPTH = DepthFormat(scale=1.0, is_stated=True, read=read_npy)


def is_layout(path: Path) -> bool:
    """True of a trajectory, and of one of its folders of images."""
    return _camera_of(path) is not None


def recording(path: Path) -> Recording:
    """The frames of the left camera, or of the one whose folder `path` is, at 30 frames per second."""
    camera = require_camera(path)
    folder = path.parent if path.name == f"image_{camera}" else path

    def depth(image: Path) -> Path | None:
        return first_existing(folder / f"depth_{camera}" / f"{image.stem}_depth.npy")

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [next((known for known in KNOWN if (known.width, known.height) == (width, height)), KNOWN[0])]

    images = at_rate((image, depth(image)) for image in sorted(images_in(folder / f"image_{camera}"), key=natural_key))
    truth = folder / f"pose_{camera}.txt"
    return Recording(folder, images, cameras, DEPTH, lambda: read_poses(truth))


def read_poses(path: Path) -> FramePoses:
    """Poses T_wc of a file of position and quaternion xyzw, north-east-down; the world keeps its axes."""
    values = floats(path, number_rows(path), 7)
    frames, T_wn = from_quaternions(values[:, :3], values[:, 3:], str(path))
    return FramePoses(frames, T_wn @ NED_FROM_OPENCV)


def require_camera(path: Path) -> str:
    """The name of the camera; raises SourceError if this is no such folder."""
    camera = _camera_of(path)
    require(None if camera is None else path, f"{path} has no image_left beside pose_left.txt")
    return str(camera)


def _camera_of(path: Path) -> str | None:
    for camera in CAMERAS:
        folder = path.parent if path.name == f"image_{camera}" else path
        named = path.name == f"image_{camera}" or not path.name.startswith("image_")
        if (
            named
            and (folder / f"image_{camera}").is_dir()
            and ((folder / f"pose_{camera}.txt").is_file() or (folder / f"depth_{camera}").is_dir())
        ):
            return camera
    return None

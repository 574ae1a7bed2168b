"""Replica as NICE-SLAM rendered it: `results/frame000000.jpg` and `depth000000.png`, `traj.txt`, `cam_params.json`.

Reference: Zhu et al., NICE-SLAM, CVPR 2022; Sucar et al., iMAP, ICCV 2021. Poses T_wc in the axes of OpenCV, 16 numbers
a line; depth has a scale of its own.
"""

from pathlib import Path

from slam.errors import CalibrationError
from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.io.files import read_json
from slam.io.poses import read_matrix_rows
from slam.sources.depth_format import DepthFormat, stated_scale
from slam.sources.layout import Recording, at_rate, first_existing, numbered

KNOWN = Camera(1200, 680, 600, 600, 599.5, 339.5)
KNOWN_SCALE = 6553.5


def is_layout(path: Path) -> bool:
    """True of a scene, and of its folder `results`."""
    return (_scene(path) / "traj.txt").is_file() and bool(_frames(path))


def recording(path: Path) -> Recording:
    """The frames at 30 per second."""
    scene = _scene(path)
    depth = dict(numbered(scene / "results", r"depth(\d+)\.png"))
    images = at_rate((file, depth.get(number)) for number, file in _frames(path))
    parameters = first_existing(scene / "cam_params.json", scene.parent / "cam_params.json")
    scale = None if parameters is None else stated_scale(parameters.parent)

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [KNOWN if parameters is None else _camera(parameters)]

    return Recording(
        scene,
        images,
        cameras,
        DepthFormat(scale or KNOWN_SCALE, is_stated=scale is not None),
        lambda: read_matrix_rows(scene / "traj.txt", 16),
    )


def _camera(file: Path) -> Camera:
    try:
        c = read_json(file, dict)["camera"]
        size = int(c["w"]), int(c["h"])
        intrinsics = tuple(float(c[name]) for name in ("fx", "fy", "cx", "cy"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{file} is no cam_params.json: expected camera with w, h, fx, fy, cx, cy") from error
    return camera_of("pinhole", *size, intrinsics, (), str(file))


def _scene(path: Path) -> Path:
    return path.parent if path.name == "results" else path


def _frames(path: Path) -> list[tuple[int, Path]]:
    return numbered(_scene(path) / "results", r"frame(\d+)\.(?:jpg|jpeg|png)")

"""`transforms.json` of nerfstudio, Polycam and instant-ngp: images, intrinsics and poses in one file.

Reference: https://docs.nerf.studio/quickstart/data_conventions.html. Poses T_wc have the camera axes of OpenGL (y up,
looking along -z); frames may stand in any order and may each have intrinsics of their own.
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from slam.errors import CalibrationError, SourceError, warn_once
from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.io.files import read_json
from slam.io.folders import is_file
from slam.io.poses import OPENCV_FROM_OPENGL, FramePoses, from_matrices
from slam.sources.depth_format import DepthFormat, checked_scale, read_npy
from slam.sources.images import IMAGE_SUFFIXES
from slam.sources.layout import Recording, at_rate, first_existing, require, usual_intrinsics
from slam.sources.names import natural_key

NAMES = ("transforms.json", "transforms_train.json")
INTRINSICS = ("fl_x", "fl_y", "cx", "cy")
DISTORTION = {"OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"), "": ("k1", "k2", "p1", "p2", "k3")}
MILLIMETRES = 1000.0  # depth in integers, unless the file says otherwise


def is_layout(path: Path) -> bool:
    """True of a folder with such a file."""
    return first_existing(*(path / name for name in NAMES)) is not None


def recording(path: Path) -> Recording:
    """The frames in the natural order of their names, at 30 per second.

    Raises:
        SourceError: if the file is damaged or none of its images exists.
    """
    file = require(first_existing(*(path / name for name in NAMES)), f"{path} has no {NAMES[0]}")
    content = read_transforms(file)
    frames = sorted(((_image(file, frame), frame) for frame in content["frames"]), key=lambda f: _order(f[0]))
    present = [(image, frame) for image, frame in frames if is_file(image)]
    if not present:
        raise SourceError(f"{file} lists {len(frames)} images and none exists; the first would be {frames[0][0]}")
    if len(present) < len(frames):
        warn_once(f"{file}: {len(frames) - len(present)} of its {len(frames)} images do not exist")
    images = at_rate((image, _depth(file, frame)) for image, frame in present)

    def cameras(width: int, height: int) -> list[Path | Camera]:
        camera = _camera(content, [frame for _, frame in present], width, height, str(file))
        return [] if camera is None else [camera]

    def truth() -> FramePoses:
        return _poses([frame for _, frame in present], str(file))

    depth = next((image.depth for image in images if image.depth is not None), None)
    return Recording(path, images, cameras, None if depth is None else _depth_format(content, depth, file), truth)


def read_transforms(file: Path) -> dict[str, Any]:
    """The content of the file.

    Raises:
        SourceError: if it is no such file.
    """
    content: dict[str, Any] = read_json(file, dict)
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise SourceError(f"{file} has no frames; expected a list of file_path and transform_matrix")
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise SourceError(f"{file}: frame {number} has no file_path")
    return content


def read_poses(file: Path) -> FramePoses:
    """Poses T_wc of a file alone, its frames in the natural order of their names."""
    frames = read_transforms(file)["frames"]
    return _poses(sorted(frames, key=lambda frame: _order(_image(file, frame))), str(file))


def _poses(frames: list[dict[str, Any]], name: str) -> FramePoses:
    values = np.full((len(frames), 16), np.nan)
    for number, frame in enumerate(frames):
        try:
            values[number, :12] = np.array(frame["transform_matrix"], np.float64).reshape(-1)[:12]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SourceError(f"{name}: frame {frame['file_path']} has no transform_matrix of 4x4 numbers") from error
    values[:, 12:] = 0, 0, 0, 1
    usable, T_wg = from_matrices(values, name)
    return FramePoses(usable, T_wg @ OPENCV_FROM_OPENGL)


def _camera(content: dict[str, Any], frames: list[dict[str, Any]], width: int, height: int, name: str) -> Camera | None:
    """The camera of all frames: the median of those that differ, with a WARNING; None if the file has no intrinsics."""
    whole = [{**content, **frame} for frame in frames]
    model = str(whole[0].get("camera_model") or ("OPENCV_FISHEYE" if whole[0].get("is_fisheye") else "OPENCV")).upper()
    try:
        size = int(whole[0].get("w") or width), int(whole[0].get("h") or height)
        values = np.array([_intrinsics(camera, *size) for camera in whole], np.float64)
        names = DISTORTION.get(model, DISTORTION[""])
        coefficients = np.array([[float(camera.get(key) or 0.0) for key in names] for camera in whole])
    except KeyError:
        return None
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise CalibrationError(f"{name}: intrinsics that are no numbers ({error})") from error
    distortion = np.median(coefficients, axis=0)
    used = tuple(distortion.tolist()) if distortion.any() or model == "OPENCV_FISHEYE" else ()
    return camera_of(model, *size, usual_intrinsics(values, name), used, name)


def _intrinsics(camera: dict[str, Any], width: int, height: int) -> list[float]:
    """fx fy cx cy; raises KeyError if there are none. In the file (0.5, 0.5) is the centre of the first pixel."""
    centre = [float(camera.get("cx", width / 2)) - 0.5, float(camera.get("cy", height / 2)) - 0.5]
    if camera.get("fl_x"):
        return [float(camera["fl_x"]), float(camera.get("fl_y") or camera["fl_x"]), *centre]
    fx = 0.5 * width / math.tan(0.5 * float(camera["camera_angle_x"]))
    angle_y = camera.get("camera_angle_y")
    return [fx, fx if angle_y is None else 0.5 * height / math.tan(0.5 * float(angle_y)), *centre]


def _image(file: Path, frame: dict[str, Any]) -> Path:
    """The image of a frame; the synthetic sets leave the suffix out."""
    path = file.parent / PurePosixPath(frame["file_path"].replace("\\", "/"))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    return first_existing(*(path.with_name(path.name + suffix) for suffix in sorted(IMAGE_SUFFIXES))) or path


def _depth(file: Path, frame: dict[str, Any]) -> Path | None:
    name = frame.get("depth_file_path") or frame.get("depth_path")
    path = file.parent / PurePosixPath(str(name).replace("\\", "/"))
    return path if name and is_file(path) else None


def _depth_format(content: dict[str, Any], first: Path, file: Path) -> DepthFormat:
    metres = content.get("depth_unit_scale_factor") or content.get("integer_depth_scale")  # in one unit
    is_given = isinstance(metres, (int, float)) and math.isfinite(metres) and metres > 0
    scale = checked_scale(1 / metres, file) if is_given else None  # type: ignore[operator]
    if first.suffix == ".npy":
        return DepthFormat(scale or 1.0, is_stated=True, read=read_npy)
    return DepthFormat(scale or MILLIMETRES, is_stated=scale is not None)


def _order(image: Path) -> tuple[str, list[tuple[int, int, str]]]:
    return str(image.parent), natural_key(image)

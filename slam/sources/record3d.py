"""Exports of Record3D: `metadata` or `metadata.json`, images in `rgb/` or `rgbd/`, depth in `depth/` or `rgbd/`.

Reference: https://record3d.app and https://github.com/marek-simonik/record3d. `K` is column-major; poses are quaternion
xyzw and position of T_wc, in the axes of ARKit and OpenGL (y up, looking along -z).
"""

import importlib
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np

from slam.errors import CalibrationError, SourceError
from slam.geometry.camera import Camera
from slam.io.calibration import camera_of
from slam.io.files import MAX_JSON_BYTES, read_json
from slam.io.images import read_unchanged
from slam.io.poses import OPENCV_FROM_OPENGL, FramePoses, from_quaternions
from slam.reading import read_bytes, reason
from slam.sources.depth_format import DepthFormat
from slam.sources.layout import Recording, first_existing, numbered, require, usual_intrinsics
from slam.sources.sequence import DEFAULT_FPS, ListedImage, frame_time_ns

NAMES = ("metadata.json", "metadata")
FOLDERS = ("rgbd", "rgb")
MAX_BYTES = 64 << 20  # of a compressed depth map
DECODERS = ("lzfse", "liblzfse")  # packages for the depth of `rgbd/`; either will do


def is_layout(path: Path) -> bool:
    """True of a folder with the metadata and images."""
    return _metadata_file(path) is not None and bool(_images(path))


def recording(path: Path) -> Recording:
    """The frames with the stamps of the export, else at its rate.

    Raises:
        SourceError: if the metadata are damaged.
    """
    file = require(_metadata_file(path), f"{path} has no metadata.json")
    content = read_metadata(file)
    found = _images(path)
    time_ns = _times(content, [number for number, _ in found])
    images = [ListedImage(t, image, _depth(path, number)) for t, (number, image) in zip(time_ns, found)]

    def cameras(width: int, height: int) -> list[Path | Camera]:
        return [_camera(content, str(file))]

    def truth() -> FramePoses:
        return read_poses(file).of_images([number for number, _ in found])

    first = next((image.depth for image in images if image.depth is not None), None)
    return Recording(path, images, cameras, None if first is None else _depth_format(content, first, file), truth)


def read_metadata(file: Path) -> dict[str, Any]:
    """The content of the metadata.

    Raises:
        SourceError: if it is no such file.
    """
    content: dict[str, Any] = read_json(file, dict)
    if not {"K", "poses"} <= set(content):
        raise SourceError(f"{file} is no metadata of Record3D: expected K, poses, w and h")
    return content


def read_poses(file: Path) -> FramePoses:
    """Poses T_wc by frame number."""
    try:
        values = np.array(read_metadata(file)["poses"], np.float64).reshape(-1, 7)
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{file}: poses are no rows of 7 numbers (qx qy qz qw x y z)") from error
    usable, T_wg = from_quaternions(values[:, 4:], values[:, :4], str(file))
    return FramePoses(usable, T_wg @ OPENCV_FROM_OPENGL)


def read_compressed(path: Path, form: DepthFormat) -> np.ndarray:
    """Depth of `rgbd/`: float32 metres, compressed by LZFSE.

    Raises:
        SourceError: if the file is damaged, or no package decodes it.
    """
    decoder = _decoder()
    if decoder is None:
        raise SourceError(
            f"{path} is compressed by LZFSE: pip install lzfse (or v2d-slam[record3d]), or go without --use-depth"
        )
    assert form.camera is not None
    try:
        data = decoder.decompress(read_bytes(path, MAX_BYTES))
        depth = np.frombuffer(data, np.float32).reshape(form.camera.height, form.camera.width)
    except OSError as error:
        raise SourceError(f"cannot read the depth {path}: {reason(error)}") from error
    except Exception as error:  # the decoders raise classes of their own
        raise SourceError(f"cannot read the depth {path}: {error}") from error
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_exr(path: Path, form: DepthFormat) -> np.ndarray:
    """Depth of `depth/`: OpenEXR, metres.

    Raises:
        SourceError: if the file is damaged, or OpenCV was built without OpenEXR.
    """
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # read when the codec is first used
    depth = read_unchanged(path).astype(np.float32)
    depth = depth[..., -1] if depth.ndim == 3 else depth  # gray as R = G = B
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _camera(content: dict[str, Any], name: str) -> Camera:
    try:
        K = np.array(content["K"], np.float64).reshape(3, 3).T
        values = np.array([[K[0, 0], K[1, 1], K[0, 2], K[1, 2]]])
        each = content.get("perFrameIntrinsicCoeffs") or []
        if len(each):
            values = np.array(each, np.float64).reshape(-1, 4)
        size = int(content["w"]), int(content["h"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{name}: expected K of 3x3 numbers, w and h") from error
    return camera_of("pinhole", *size, usual_intrinsics(values, name), (), name)


def _times(content: dict[str, Any], numbers: list[int]) -> list[int]:
    """Stamps of the frames with these numbers."""
    stamps = content.get("frameTimestamps")
    if isinstance(stamps, list) and len(stamps) > max(numbers, default=0):
        try:
            time_ns = [round(float(stamps[n]) * 1e9) for n in numbers]
        except (TypeError, ValueError, OverflowError):
            time_ns = []
        if time_ns and all(a < b for a, b in itertools.pairwise(time_ns)):
            return time_ns
    rate = content.get("fps")
    is_rate = isinstance(rate, (int, float)) and 0 < rate <= 1000
    return [frame_time_ns(n, float(rate) if is_rate else DEFAULT_FPS) for n in numbers]  # type: ignore[arg-type]


def _depth_format(content: dict[str, Any], first: Path, file: Path) -> DepthFormat:
    """Depth has its own size and the field of view of the images."""
    camera, size = _camera(content, str(file)), (content.get("dw"), content.get("dh"))
    if first.suffix == ".exr":
        height, width = read_exr(first, DepthFormat()).shape
        same = (width, height) == (camera.width, camera.height)
        return DepthFormat(1.0, is_stated=True, camera=None if same else camera.resized(width, height), read=read_exr)
    if not all(isinstance(n, int) and n > 0 for n in size):
        raise SourceError(f"{file} does not say the size of the depth images (dw, dh)")
    return DepthFormat(1.0, is_stated=True, camera=camera.resized(*size), read=read_compressed)  # type: ignore[arg-type]


def _depth(path: Path, number: int) -> Path | None:
    return first_existing(path / "rgbd" / f"{number}.depth", path / "depth" / f"{number}.exr")


def _images(path: Path) -> list[tuple[int, Path]]:
    return next((found for name in FOLDERS if (found := numbered(path / name, r"(\d+)\.(?:jpg|jpeg|png)"))), [])


def _metadata_file(path: Path) -> Path | None:
    for name in NAMES:
        if (path / name).is_file():
            try:
                content = read_bytes(path / name, MAX_JSON_BYTES)
            except OSError:
                continue  # whoever reads it says what is wrong with it
            if content.lstrip()[:1] == b"{" and b'"poses"' in content and b'"K"' in content:
                return path / name
    return None


def _decoder() -> Any:
    for name in DECODERS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None

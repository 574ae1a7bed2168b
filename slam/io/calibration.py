"""Camera calibration files: our YAML, one text line, OpenCV and ROS YAML, EuRoC `sensor.yaml`, ORB-SLAM settings.

All follow OpenCV: pixels, pixel (0, 0) is the centre of the first one, distortion k1 k2 p1 p2 k3.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from slam.errors import CalibrationError
from slam.geometry.camera import Camera
from slam.io.files import read_text, write_text
from slam.io.lens_names import lens_of
from slam.io.plausible import check_plausible

FORMATS = (
    "width, height, calibration: [fx, fy, cx, cy, k1, k2, p1, p2, k3] in YAML, "
    "or one line fx fy cx cy [k1 k2 p1 p2 [k3]]"
)
PLAIN_MODELS = ("", "none", "pinhole", "plumb_bob", "radtan", "radial-tangential", "rational_polynomial", "opencv")


def camera_of(
    model: str,
    width: int,
    height: int,
    intrinsics: Sequence[float],
    coefficients: Sequence[float],
    name: str,
) -> Camera:
    """The camera that a file or a message describes; every reader makes its cameras here.

    What is doubtful is a WARNING, once; what cannot be a camera is refused.

    Args:
        model: any common name of a lens model (plumb_bob, radtan, opencv, equidistant, KannalaBrandt8, fisheye, mei,
            ds, ...) in any spelling, or camera and distortion model in one, `pinhole-equi`. Empty: OpenCV's.
        intrinsics: fx fy cx cy, pixels; Kalibr's omni, ds and eucm have their own coefficients in front.
        coefficients: of the distortion, in the order of `slam.geometry.lens`; none: no distortion.
        name: of the calibration, for messages.

    Raises:
        CalibrationError: if the model is unknown, or the numbers are not those of a camera of this size.
    """
    lens, (fx, fy, cx, cy), distortion = lens_of(model, intrinsics, coefficients, name)
    try:
        camera = Camera(width, height, fx, fy, cx, cy, distortion, lens)
    except CalibrationError as error:
        raise CalibrationError(f"{name}: {error}") from error
    check_plausible(camera, name)
    return camera


def read_calibration(path: str | Path, size: tuple[int, int] | None = None) -> Camera:
    """Read a calibration file of any of the known kinds.

    Args:
        size: (width, height) of the images in use. A file without a size gets it; a file with another size is an
            error, never rescaled: a crop and a resize look alike in the numbers.

    Raises:
        CalibrationError: if the file is missing, of no known kind, incomplete, not a camera, or for other images.
    """
    path = Path(path)
    text = read_text(path, "calibration", CalibrationError)
    lines = [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]
    if len(lines) == 1 and _is_numbers(lines[0]):
        file_size, values = None, _floats(lines[0].replace(",", " ").split(), path)
    else:
        file_size, values = _from_mapping(load_yaml(text, path), path)
    width, height = file_size or size or (0, 0)
    if not width:
        raise CalibrationError(f"{path} gives no image size: write it as YAML with width and height")
    camera = _camera(width, height, values, path)
    if size is not None:
        check_size(camera, *size, str(path))
    return camera


def check_size(camera: Camera, width: int, height: int, name: str) -> None:
    """Make sure that a calibration belongs to images of this size.

    Args:
        name: the calibration, as the user knows it.

    Raises:
        CalibrationError: saying both sizes and what to do.
    """
    if (camera.width, camera.height) == (width, height):
        return
    problem = f"{name} is for {camera.width}x{camera.height} images but these are {width}x{height}"
    if camera.width * height == camera.height * width:
        s = width / camera.width
        scaled = camera.resized(width, height)
        numbers = f"{scaled.fx:.6g}, {scaled.fy:.6g}, {scaled.cx:.6g}, {scaled.cy:.6g}"
        raise CalibrationError(
            f"{problem}; if they are the same images resized by {s:g}, put width: {width}, height: {height} and "
            f"[{numbers}, same distortion] into the file, else calibrate at this size"
        )
    raise CalibrationError(f"{problem}, another shape: calibrate again with images of this size")


def write_calibration(path: Path, camera: Camera) -> None:
    """Write our YAML form, every digit kept; raises OutputError."""
    values = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion]
    numbers = ", ".join(repr(float(value)) for value in values)
    names = ["fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3"][: len(values)]
    write_text(
        path,
        f"# pixels; [{', '.join(names)}] as in OpenCV, pixel (0, 0) is the centre of the first\n"
        f"width: {camera.width}\nheight: {camera.height}\ncalibration: [{numbers}]\n",
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML that also knows the matrix tag of OpenCV's FileStorage."""


def _opencv_matrix(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)


def load_yaml(text: str, path: Path) -> dict[str, Any]:
    if text.startswith("%YAML"):  # OpenCV writes "%YAML:1.0", which is not YAML
        text = text.partition("\n")[2]
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader with one more tag
    except yaml.YAMLError as error:
        raise CalibrationError(f"{path} is no readable calibration ({_one_line(error)}); expected {FORMATS}") from error
    if not isinstance(content, dict):
        raise CalibrationError(f"{path} is no calibration; expected {FORMATS}")
    return {str(key).lower(): value for key, value in content.items()}


def _from_mapping(content: dict[str, Any], path: Path) -> tuple[tuple[int, int] | None, list[float]]:
    """Size, if given, and fx fy cx cy + distortion of whichever kind of YAML this is."""
    model = str(content.get("distortion_model") or content.get("camera_model") or content.get("camera.type") or "")
    if model.lower() not in PLAIN_MODELS:
        raise CalibrationError(f"{path}: lens model {model!r} is not supported in a file of this kind")
    if "calibration" in content:  # ours
        return _size(content, "width", "height", path), _floats(content["calibration"], path)
    if "intrinsics" in content:  # EuRoC
        size = content.get("resolution")
        named = dict(zip(("width", "height"), size)) if isinstance(size, list) else {}
        distortion = content.get("distortion_coefficients") or []
        return _size(named, "width", "height", path), _floats([*_items(content["intrinsics"], path), *distortion], path)
    for matrix in ("camera_matrix", "cameramatrix", "k"):
        if matrix in content:  # OpenCV, ROS
            K = _matrix(content[matrix], path)
            named_distortion = [content[n] for n in ("distortion_coefficients", "dist_coeffs", "d") if n in content]
            distortion = _matrix(named_distortion[0], path) if named_distortion else []
            width, height = ("image_width", "image_height") if "image_width" in content else ("width", "height")
            if len(K) != 9:
                raise CalibrationError(f"{path}: {matrix} needs 3x3 numbers, found {len(K)}")
            return _size(content, width, height, path), [K[0], K[4], K[2], K[5], *distortion]
    for camera in ("camera1", "camera"):
        if f"{camera}.fx" in content:  # ORB-SLAM
            names = [f"{camera}.{name}" for name in ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")]
            missing = [name for name in names[:4] if name not in content]
            if missing:
                raise CalibrationError(f"{path} lacks {', '.join(missing)}")
            return _size(content, "camera.width", "camera.height", path), _floats(
                [content.get(name, 0.0) for name in names], path
            )
    raise CalibrationError(f"{path} is no known kind of calibration; expected {FORMATS}")


def _size(content: dict[str, Any], width: str, height: str, path: Path) -> tuple[int, int] | None:
    given = [content.get(width), content.get(height)]
    if given == [None, None]:
        return None
    values = _floats(given, path)
    if min(values) < 1 or any(value % 1 for value in values):
        raise CalibrationError(f"{path}: the image size must be whole pixels, got {given[0]} x {given[1]}")
    return int(values[0]), int(values[1])


def _camera(width: int, height: int, values: list[float], path: Path) -> Camera:
    if len(values) < 4:
        raise CalibrationError(f"{path}: expected fx fy cx cy [k1 k2 p1 p2 [k3]], got {len(values)} numbers")
    return camera_of("", width, height, values[:4], values[4:], str(path))


def _matrix(value: object, path: Path) -> list[float]:
    """The numbers of `{rows, cols, data}`, of nested lists, or of a flat list."""
    items = value.get("data") if isinstance(value, dict) else value
    rows = _items(items, path)
    return _floats([x for row in rows for x in (row if isinstance(row, list) else [row])], path)


def _items(value: object, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise CalibrationError(f"{path}: expected a list of numbers, got {value!r}")
    return value


def _floats(values: object, path: Path) -> list[float]:
    """Finite floats; PyYAML reads 1e-3 as text, so text is converted too."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise CalibrationError(f"{path}: expected a list of numbers, got {values!r}")
    floats = []
    for value in values:
        try:
            floats.append(float(value) if not isinstance(value, bool) else math.nan)
        except (TypeError, ValueError):
            floats.append(math.nan)
        if not math.isfinite(floats[-1]):
            raise CalibrationError(f"{path}: {value!r} is not a finite number")
    return floats


def _is_numbers(line: str) -> bool:
    """True if the line is meant as numbers: it has no `key:` and starts like one."""
    return ":" not in line and line.lstrip("+-.[")[:1].isdigit()


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "not YAML"
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)

"""What calibration files say, in the words of their makers.

Ours, one text line, OpenCV, ROS, EuRoC, Kalibr, OKVIS, Basalt, ORB-SLAM, OpenVSLAM (stella), VINS, nerfstudio. Keys are
matched without case and without the names of the sections around them; an order within a list is that of
`slam.geometry.lens`, with fx fy cx cy in front.
"""

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slam.errors import CalibrationError, shown, warn_once
from slam.geometry.lens import DOUBLE_SPHERE, EUCM, FISHEYE, FOV, OMNI
from slam.io.lens_names import joined, kind_of
from slam.parsing import parse_json, parse_yaml

FORMATS = (
    "width, height, calibration: [fx, fy, cx, cy, k1, k2, p1, p2, k3] in YAML, "
    "or one line fx fy cx cy [k1 k2 p1 p2 [k3]]"
)
SECTIONS = ("camera1", "camera", "cam", "intrinsics", "calib", "projection_parameters", "distortion_parameters",
            "mirror_parameters", "image_size", "resolution", "image")  # fmt: skip
SIZE_LISTS = ("resolution", "image_size", "imagesize", "img_size", "image_dimension", "image_dimensions")
SIZE_PAIRS = (("width", "height"), ("image_width", "image_height"), ("img_width", "img_height"),
              ("imagewidth", "imageheight"), ("cols", "rows"), ("w", "h"))  # fmt: skip
MATRICES = ("camera_matrix", "cameramatrix", "intrinsic_matrix", "camera_intrinsics", "k", "mtx")
DISTORTIONS = ("distortion_coefficients", "distortion_coeffs", "distortion_coefs", "distortion_parameters",
               "distortion_params", "distortion", "dist_coeffs", "dist_coefs", "distcoeffs", "dist", "coeffs",
               "d")  # fmt: skip
CAMERA_MODELS = ("camera_model", "model", "type", "model_type", "camera_type", "projection_model", "lens_model")
DISTORTION_MODELS = ("distortion_model", "distortion_type")
FISHEYE_FLAGS = ("fisheye_model", "is_fisheye", "fisheye")  # OpenCV's samples, instant-ngp
PINHOLE_NAMES = (("fx", "fl_x", "fu", "gamma1", "mu"), ("fy", "fl_y", "fv", "gamma2", "mv"), ("cx", "u0", "pu"),
                 ("cy", "v0", "pv"))  # fmt: skip
COEFFICIENT_NAMES = {
    FISHEYE: ("k1", "k2", "k3", "k4"),
    FOV: ("w",),
    OMNI: ("xi", "k1", "k2", "p1", "p2"),
    DOUBLE_SPHERE: ("xi", "alpha"),
    EUCM: ("alpha", "beta"),
}
RADTAN_NAMES = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
NUMBERS = {name for names in (*PINHOLE_NAMES, *SIZE_PAIRS, RADTAN_NAMES) for name in names}
SKEW = 1e-3  # of a matrix, relative to fx, that may be left out


@dataclass(frozen=True)
class Described:
    """A camera as a file describes it, the arguments of `slam.io.calibration.camera_of`."""

    model: str
    intrinsics: list[float]
    coefficients: list[float]
    size: tuple[int, int] | None = None  # (width, height)
    undistort_hfov_deg: float | None = None
    is_guess: bool = False


def described(text: str, path: Path) -> Described:
    """Read the text of a calibration file.

    Raises:
        CalibrationError: if it is of no known kind, incomplete, or contradicts itself.
    """
    lines = [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]
    if len(lines) == 1 and _is_numbers(lines[0]):
        return Described("", *_split(_floats(lines[0].replace(",", " ").split(), path), path))
    content = _first_camera(load_yaml(text, path), path)
    values: dict[str, Any] = {}
    _flatten(content, "", values, path)
    model = _named_model(values, path)
    intrinsics, coefficients = _intrinsics(values, model, path)
    hfov = values.get("undistort_hfov")
    hfov_deg = None if hfov is None else _floats([hfov], path)[0]
    return Described(model, intrinsics, coefficients, _size(values, path), hfov_deg, values.get("guess") is True)


class _Loader(yaml.SafeLoader):
    """Safe YAML that also knows the matrix tag of OpenCV's FileStorage."""


def _opencv_matrix(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _opencv_matrix)


def load_yaml(text: str, path: Path) -> dict[Any, Any]:
    """The mapping of a YAML or JSON file, that of OpenCV's FileStorage too; raises CalibrationError."""
    if text.startswith("%YAML"):  # OpenCV writes "%YAML:1.0", which is not YAML
        text = text.partition("\n")[2]
    try:
        content = _json_of(text) or parse_yaml(text, _Loader)  # a SafeLoader with one more tag
    except ValueError as error:
        raise CalibrationError(f"{path} is no readable calibration ({error}); expected {FORMATS}") from error
    if not isinstance(content, dict):
        raise CalibrationError(f"{path} is no calibration; expected {FORMATS}")
    return content


def _json_of(text: str) -> Any:
    """JSON, which is YAML too unless it is indented by tabs; None if it is none."""
    with contextlib.suppress(ValueError):
        return parse_json(text) if text.lstrip().startswith("{") else None
    return None


def _first_camera(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The mapping of the first camera of a file that may hold several; a WARNING says so."""
    if isinstance(content.get("value0"), dict):  # Basalt
        content = content["value0"]
        cameras = content.get("intrinsics")
        if isinstance(cameras, list) and cameras and isinstance(cameras[0], dict):
            _tell_first(["camera 0", *cameras[1:]], path)
            sizes = content.get("resolution")
            return {**cameras[0], **({"resolution": sizes[0]} if isinstance(sizes, list) and sizes else {})}
    listed = content.get("cameras")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):  # OKVIS
        _tell_first(["the first", *listed[1:]], path)
        return _first_camera(listed[0], path) if "camera" in listed[0] else listed[0]
    named = listed if isinstance(listed, dict) else content
    numbered = {
        int(match[1]): key
        for key, value in named.items()
        if (match := re.fullmatch(r"cam(?:era)?[_-]?(\d+)", str(key).lower())) and isinstance(value, dict)
    }
    if numbered:  # Kalibr and others
        first = numbered[min(numbered)]
        _tell_first([first, *list(numbered)[1:]], path)
        shared = {key: value for key, value in named.items() if not isinstance(value, dict)}
        return {**shared, **named[first]}
    if any(str(key).lower().startswith("camera2.") and str(key).lower().endswith("fx") for key in content):
        _tell_first(["Camera1", "Camera2"], path)
    return content


def _tell_first(cameras: list[Any], path: Path) -> None:
    if len(cameras) > 1:
        warn_once(f"{path} holds {len(cameras)} cameras: {cameras[0]} is used")


def _flatten(content: dict[Any, Any], section: str, values: dict[str, Any], path: Path) -> None:
    """Values by their keys, in lower case, sections as `a.b` but for those of SECTIONS, which are left out."""
    for name, value in content.items():
        key = f"{section}{name}".lower()
        for prefix in SECTIONS:
            key = key.removeprefix(f"{prefix}.")
        if isinstance(value, dict) and "data" not in value:
            _flatten(value, f"{key}.", values, path)
        elif key in values and values[key] != value and key in NUMBERS:
            raise CalibrationError(f"{path} gives {key} twice, {values[key]} and {value}")
        else:
            values.setdefault(key, value)


def _named_model(values: dict[str, Any], path: Path) -> str:
    """One name of the lens model, of all that the file says of it."""
    camera = next((str(values[key]) for key in CAMERA_MODELS if values.get(key) is not None), "")
    distortion = next((str(values[key]) for key in DISTORTION_MODELS if values.get(key) is not None), "")
    if not distortion and any(str(values.get(key, 0)).lower() in ("1", "true") for key in FISHEYE_FLAGS):
        distortion = "fisheye"
    if not (camera or distortion) and "k4" in values and "p1" not in values:
        raise CalibrationError(
            f"{path} has k4 and no p1, as a fisheye has, and names no model: add distortion_model: fisheye or radtan"
        )
    return joined(camera, distortion, str(path))


def _size(values: dict[str, Any], path: Path) -> tuple[int, int] | None:
    """(width, height); all that are given must agree."""
    found = []
    for key in SIZE_LISTS:
        if key in values:
            numbers = _numbers(values[key], path)
            if len(numbers) != 2:
                raise CalibrationError(f"{path}: {key} needs width and height, got {shown(values[key])}")
            found.append(numbers)
    for pair in SIZE_PAIRS:
        given = [values.get(name) for name in pair]
        if given != [None, None] and not (pair == ("w", "h") and given[1] is None):  # w: of the FOV model
            found.append(_floats(given, path))
    sizes = list(dict.fromkeys((width, height) for width, height in found))
    if len(sizes) > 1:
        raise CalibrationError(f"{path} gives several image sizes: {', '.join(f'{w:g}x{h:g}' for w, h in sizes)}")
    if not sizes:
        return None
    width, height = sizes[0]
    if min(width, height) < 1 or width % 1 or height % 1:
        raise CalibrationError(f"{path}: the image size must be whole pixels, got {width:g} x {height:g}")
    return int(width), int(height)


def _intrinsics(values: dict[str, Any], model: str, path: Path) -> tuple[list[float], list[float]]:
    """fx fy cx cy and the coefficients."""
    listed = {key: _numbers(values[key], path) for key in DISTORTIONS if isinstance(values.get(key), list | dict)}
    unread = [key for key in values if re.search("dist(?!ance)|coef", key) and key not in listed
              and key not in DISTORTION_MODELS and isinstance(values[key], list | dict)]  # fmt: skip
    if unread or len(listed) > 1:
        keys = ", ".join([*listed, *unread])
        raise CalibrationError(f"{path} has {keys}: give the distortion once, as distortion_coefficients")
    coefficients = next(iter(listed.values()), [])
    if "calibration" in values:  # ours
        intrinsics, own = _split(_floats(values["calibration"], path), path)
        return intrinsics, own + coefficients
    matrix = next((key for key in MATRICES if key in values), None)
    if matrix is not None:
        return _of_matrix(_numbers(values[matrix], path), matrix, path), coefficients
    if isinstance(values.get("intrinsics"), list | dict):
        intrinsics = _numbers(values["intrinsics"], path)
        return (_of_matrix(intrinsics, "intrinsics", path) if len(intrinsics) == 9 else intrinsics), coefficients
    if isinstance(values.get("focal_length"), list):  # OKVIS
        return [*_numbers(values["focal_length"], path), *_numbers(values.get("principal_point"), path)], coefficients
    return _by_name(values, model, coefficients, path)


def _by_name(
    values: dict[str, Any], model: str, coefficients: list[float], path: Path
) -> tuple[list[float], list[float]]:
    """As `_intrinsics`, where every number has its own name."""
    found = [next((name for name in names if name in values), None) for names in PINHOLE_NAMES]
    missing = [names[0] for names, name in zip(PINHOLE_NAMES, found, strict=True) if name is None]
    if len(missing) == len(PINHOLE_NAMES):
        raise CalibrationError(f"{path} is no known kind of calibration; expected {FORMATS}")
    if missing:
        raise CalibrationError(f"{path} lacks {', '.join(missing)}")
    intrinsics = _floats([values[name] for name in found if name is not None], path)
    if coefficients:
        return intrinsics, coefficients
    kind = kind_of(model, str(path))
    names = COEFFICIENT_NAMES.get(kind, RADTAN_NAMES)
    if kind == FISHEYE and "k5" in values and "k1" not in values:
        names = ("k2", "k3", "k4", "k5")  # VINS counts the powers
    given = [name for name in RADTAN_NAMES if name in values and _floats([values[name]], path)[0]]
    unread = [name for name in given if name not in names]
    if unread:
        raise CalibrationError(f"{path}: a {kind} lens has no {', '.join(unread)}")
    if not any(name in values for name in names):
        return intrinsics, []
    numbers = _floats([values.get(name, 0.0) for name in names], path)
    if names is RADTAN_NAMES:
        numbers = numbers if any(numbers[5:]) else numbers[:5]
    return intrinsics, numbers


def _of_matrix(K: list[float], key: str, path: Path) -> list[float]:
    """fx fy cx cy of a camera matrix, row by row; one that was written by columns is turned, with a WARNING."""
    if len(K) != 9:
        raise CalibrationError(f"{path}: {key} needs 3x3 numbers, found {len(K)}")
    if K[2] == K[5] == 0 and K[6] and K[7]:
        warn_once(f"{path}: {key} is written by columns, and read so")
        K = [K[i] for i in (0, 3, 6, 1, 4, 7, 2, 5, 8)]
    if K[3] or K[6] or K[7] or K[8] != 1 or abs(K[1]) > SKEW * abs(K[0]):
        raise CalibrationError(f"{path}: {key} is not fx 0 cx, 0 fy cy, 0 0 1, row by row")
    return [K[0], K[4], K[2], K[5]]


def _split(numbers: list[float], path: Path) -> tuple[list[float], list[float]]:
    """fx fy cx cy, and what follows."""
    if len(numbers) < 4:
        raise CalibrationError(f"{path}: expected fx fy cx cy [k1 k2 p1 p2 [k3]], got {len(numbers)} numbers")
    return numbers[:4], numbers[4:]


def _numbers(value: object, path: Path) -> list[float]:
    """The numbers of `{rows, cols, data}`, of nested lists, or of a flat list."""
    items = value.get("data") if isinstance(value, dict) else value
    rows = _items(items, path)
    return _floats([x for row in rows for x in (row if isinstance(row, list) else [row])], path)


def _items(value: object, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise CalibrationError(f"{path}: expected a list of numbers, got {shown(value)}")
    return value


def _floats(values: object, path: Path) -> list[float]:
    """Finite floats; PyYAML reads 1e-3 as text, so text is converted too."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise CalibrationError(f"{path}: expected a list of numbers, got {shown(values)}")
    floats = []
    for value in values:
        try:
            floats.append(float(value) if not isinstance(value, bool) else math.nan)
        except (TypeError, ValueError):
            floats.append(math.nan)
        if not math.isfinite(floats[-1]):
            raise CalibrationError(f"{path}: {shown(value)} is not a finite number")
    return floats


def _is_numbers(line: str) -> bool:
    """True if the line is meant as numbers: it has no `key:` and starts like one."""
    return ":" not in line and line.lstrip("+-.[")[:1].isdigit()

"""The many names of the lens models, and how files order their coefficients."""

import math
import re
from collections.abc import Sequence

from slam.errors import CalibrationError, shown
from slam.geometry.lens import COEFFICIENTS, DOUBLE_SPHERE, EUCM, FISHEYE, FOV, OMNI, RADTAN

NONE, RADIAL, RADIAL_FISHEYE, UCM = "none", "radial", "radial_fisheye", "ucm"  # special cases of the models
NAMES = {  # lower case, letters and digits only; a camera model "pinhole" in front changes nothing
    NONE: "none null rectified simplepinhole",
    RADIAL: "radial simpleradial",
    RADTAN: "pinhole perspective plumbbob radtan radialtangential rationalpolynomial rational opencv fullopencv "
    "brown brownconrady",
    FISHEYE: "equidistant equi kannalabrandt kannalabrandt4 kannalabrandt8 kb kb4 kb8 fisheye opencvfisheye",
    RADIAL_FISHEYE: "radialfisheye simpleradialfisheye",
    FOV: "fov atan",
    OMNI: "omni omnidirectional mei unified omniradtan omniradialtangential omniplumbbob omninone",
    DOUBLE_SPHERE: "ds doublesphere dsnone doublespherenone",
    EUCM: "eucm eucmnone",
    UCM: "ucm",
}
MODELS = {name: model for model, names in NAMES.items() for name in names.split()} | {"": RADTAN}
LEADING = {OMNI: 1, DOUBLE_SPHERE: 2, EUCM: 2, UCM: 1}  # Kalibr puts these coefficients before fx fy cx cy
PADDED = (12, 14)  # OpenCV's thin prism and tilted sensor: zeros, or not supported


def joined(camera: str, distortion: str, name: str) -> str:
    """One name of a lens model, of that of the projection and that of the distortion, either of which may be empty.

    Raises:
        CalibrationError: if one is unknown.
    """
    if not distortion or not camera:
        return camera or distortion
    if kind_of(camera, name) == kind_of(distortion, name):
        return distortion
    return f"{camera}-{distortion}"


def lens_of(
    model: str, intrinsics: Sequence[float], coefficients: Sequence[float], name: str
) -> tuple[str, list[float], tuple[float, ...]]:
    """Lens model of `slam.geometry.lens`, fx fy cx cy, and the coefficients as that model takes them.

    Args:
        as of `slam.io.calibration.camera_of`.

    Raises:
        CalibrationError: if the model is unknown, or takes other coefficients.
    """
    kind = kind_of(model, name)
    pinhole, values = list(map(float, intrinsics)), list(map(float, coefficients))
    lead = LEADING.get(kind, 0)
    if lead and len(pinhole) == 4 + lead:
        pinhole, values = pinhole[lead:], pinhole[:lead] + values
    if len(pinhole) != 4:
        raise CalibrationError(f"{name}: expected fx fy cx cy, got {len(pinhole)} numbers")
    wrong = [value for value in (*pinhole, *values) if not math.isfinite(value)]
    if wrong:
        raise CalibrationError(f"{name}: {shown(wrong[0])} is not a finite number")
    known, complete = _coefficients(kind, values, name)
    return known, pinhole, complete


def kind_of(model: str, name: str) -> str:
    """The lens model that a name means; raises CalibrationError."""
    key = re.sub("[^a-z0-9]", "", model.lower())
    for prefix in ("", "pinhole", "perspective"):
        if key.removeprefix(prefix) in MODELS:
            return MODELS[key.removeprefix(prefix)]
    raise CalibrationError(
        f"{name}: lens model {shown(model)} is not supported, only radial-tangential, fisheye (equidistant, "
        "Kannala-Brandt), FOV, omnidirectional (Mei), double sphere and EUCM; calibrate with one of these "
        "(v2d-calibrate does the first), or undistort the images first"
    )


def _coefficients(kind: str, values: list[float], name: str) -> tuple[str, tuple[float, ...]]:
    """Lens model and its coefficients, complete."""
    count = len(values)
    if kind == NONE:
        if any(values):
            raise CalibrationError(f"{name} says that there is no distortion, and gives {count} coefficients of it")
        return RADTAN, ()
    if kind in (RADIAL, RADIAL_FISHEYE) and 1 <= count <= 2:
        return RADTAN if kind == RADIAL else FISHEYE, (*values, *[0.0] * (4 - count))
    if kind == UCM and count == 1:
        return DOUBLE_SPHERE, (0.0, *values)  # with xi = 0 they are the same
    if kind == RADTAN and count in PADDED and any(values[8:]):
        raise CalibrationError(f"{name}: thin prism and tilt coefficients are not supported, only k1 k2 p1 p2 k3 to k6")
    if kind == RADTAN and count in (8, *PADDED):
        return RADTAN, tuple(values[:8] if any(values[5:8]) else values[:5])
    if kind == FISHEYE:
        while len(values) > 4 and values[-1] == 0:  # ROS pads with zeros
            values = values[:-1]
        values = values or 4 * [0.0]
    if kind == OMNI and count == 1:
        values = [*values, *4 * [0.0]]
    if kind not in COEFFICIENTS or len(values) not in COEFFICIENTS[kind]:
        known = {UCM: (1,), RADIAL: (1, 2), RADIAL_FISHEYE: (1, 2)} | COEFFICIENTS
        wanted = " or ".join(map(str, known[kind]))
        raise CalibrationError(f"{name}: a lens of model {kind} takes {wanted} coefficients, got {count}")
    return kind, tuple(values)

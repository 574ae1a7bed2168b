"""Intrinsics that cannot be those of a camera, and those that hardly are."""

import math

import torch

from slam.errors import CalibrationError, warn_once
from slam.geometry.camera import Camera
from slam.geometry.lens import (
    DOUBLE_SPHERE,
    EUCM,
    FOV,
    HALF_SPACE,
    OMNI,
    RADTAN,
    TANGENTIAL,
    angle,
    central_slope,
    limit,
    profile,
)

OFF_CENTRE, FAR_OFF_CENTRE = 0.11, 0.25  # principal point from the middle, share of the side: doubtful, impossible
OTHER_SIZE = 0.2  # both coordinates off by the same factor, at least this: made for another resolution
SAME_FACTOR = 0.02
TURNED = 0.04  # distance from the middle of the images turned by 90 degrees, share of the side
UNEQUAL, VERY_UNEQUAL = 1.1, 2.0  # fx to fy
NARROW_DEG, VERY_NARROW_DEG = 10.0, 2.0  # field of view along the longer side
WIDE_DEG, VERY_WIDE_DEG = 120.0, 160.0  # without distortion
SHORTEST = 0.085  # focal length to the longer side: a pinhole of 161 degrees, a fisheye of 280 has 0.2
MIN_STRENGTH, MAX_STRENGTH = 0.2, 2.0  # distance from the middle: to the angle, and to that of a pinhole
MAX_SLANT = 0.2  # of the border by tangential distortion: lenses of bad make reach 0.05
PARAMETERS = {FOV: ("w",), OMNI: ("xi",), DOUBLE_SPHERE: ("xi", "alpha"), EUCM: ("alpha", "beta")}
RANGES = {  # of these, in which the models mean anything; xi of Mei's grows for lenses that are hardly wide
    FOV: ((-math.pi, math.pi),),
    OMNI: ((-0.9, 100.0),),
    DOUBLE_SPHERE: ((-1.0, 2.0), (0.0, 1.0)),
    EUCM: ((0.0, 1.0), (0.01, 100.0)),
}
NORMALISED = 3.0  # focal length and principal point below this are shares of the image, not pixels


def check_plausible(camera: Camera, name: str) -> None:
    """Refuse intrinsics that no camera of this image size has, and warn of those that hardly one has.

    Raises:
        CalibrationError: naming what cannot be.
    """
    _check_principal_point(camera, name)
    _check_coefficients(camera, name)
    _check_focal_length(camera, name)
    _check_folding(camera, name)
    _check_strength(camera, name)


def _check_principal_point(camera: Camera, name: str) -> None:
    W, H = camera.width, camera.height
    where = f"{name}: the principal point ({camera.cx:g}, {camera.cy:g}) of {W}x{H} images"
    if max(camera.fx, camera.fy, abs(camera.cx), abs(camera.cy)) < NORMALISED and max(W, H) > 10 * NORMALISED:
        raise CalibrationError(
            f"{name}: {camera.fx:g} {camera.fy:g} {camera.cx:g} {camera.cy:g} are shares of the image size; write "
            f"pixels: fx and cx times {W}, fy and cy times {H}"
        )
    along, down = (camera.cx + 0.5) / W, (camera.cy + 0.5) / H
    if max(abs(along - 0.5), abs(down - 0.5)) >= FAR_OFF_CENTRE:
        raise CalibrationError(
            f"{where} is far from their middle: the numbers are in another order, or of images of another size or crop"
        )
    if abs(along / down - 1) < SAME_FACTOR and abs(2 * along - 1) > OTHER_SIZE:
        raise CalibrationError(
            f"{where} is the middle of images of about {2 * camera.cx + 1:.0f}x{2 * camera.cy + 1:.0f}: give the "
            "calibration of the images in use"
        )
    is_turned = max(abs((camera.cx + 0.5) / H - 0.5), abs((camera.cy + 0.5) / W - 0.5)) < TURNED
    if is_turned and max(W, H) > 1.2 * min(W, H):
        raise CalibrationError(f"{where} is the middle of {H}x{W} images: give the calibration of the images as turned")
    if max(abs(along - 0.5), abs(down - 0.5)) > OFF_CENTRE:
        warn_once(
            f"{where} is {100 * abs(along - 0.5):.0f} % and {100 * abs(down - 0.5):.0f} % off their middle: "
            "right only if they are a crop"
        )


def _check_focal_length(camera: Camera, name: str) -> None:
    ratio = max(camera.fx / camera.fy, camera.fy / camera.fx)
    if ratio > VERY_UNEQUAL:
        raise CalibrationError(f"{name}: fx {camera.fx:g} and fy {camera.fy:g} are not of one lens")
    if ratio > UNEQUAL:
        warn_once(
            f"{name}: fx {camera.fx:g} and fy {camera.fy:g} differ by {100 * (ratio - 1):.0f} %: right only if the "
            "images were stretched"
        )
    size, focal = (camera.width, camera.fx) if camera.width >= camera.height else (camera.height, camera.fy)
    is_pinhole = camera.model == RADTAN
    half = torch.tensor(0.5 * size / focal, dtype=torch.float64)
    field_deg = 2 * math.degrees(float(half.atan() if is_pinhole else angle(half, camera.distortion, camera.model)))
    words = (
        f"{name}: a focal length of {focal:g} px sees {field_deg:.0f} degrees along the {size} px of the longer side"
    )
    if field_deg < VERY_NARROW_DEG or (is_pinhole and field_deg > VERY_WIDE_DEG):
        raise CalibrationError(f"{words}, which no such lens does: give pixels of images of this size")
    if field_deg < NARROW_DEG or (is_pinhole and field_deg > WIDE_DEG):
        warn_once(f"{words}: is it that of images of this size?")
    shortest = SHORTEST * size / central_slope(camera.distortion, camera.model)
    if focal < shortest:
        raise CalibrationError(
            f"{name}: a focal length of {focal:g} px is too short for the {size} px of the longer side: with these "
            f"coefficients even a fisheye has more than {shortest:.3g} px; give pixels of images of this size"
        )


def _check_coefficients(camera: Camera, name: str) -> None:
    names, ranges = PARAMETERS.get(camera.model, ()), RANGES.get(camera.model, ())
    for what, (low, high), value in zip(names, ranges, camera.distortion):
        if not low <= value <= high:
            raise CalibrationError(
                f"{name}: {what} of a {camera.model} lens is from {low:g} to {high:g}, not {value:g}"
            )


def _check_strength(camera: Camera, name: str) -> None:
    """Within the image a lens draws a ray neither much nearer to the axis than one that is proportional to the angle,
    nor much further from it than a pinhole."""
    if not camera.is_distorted:
        return
    side = 0.5 * min(camera.width / camera.fx, camera.height / camera.fy)
    theta = angle(torch.linspace(0.05, 1.0, 20, dtype=torch.float64) * side, camera.distortion, camera.model)
    radius = profile(theta, camera.distortion, camera.model) / central_slope(camera.distortion, camera.model)
    low = float((radius / theta).min())
    high = float(torch.where(theta < HALF_SPACE, radius / theta.tan(), 0.0).max())
    if not (low > MIN_STRENGTH and high < MAX_STRENGTH):
        factor = low if not low > MIN_STRENGTH else high
        raise CalibrationError(
            f"{name}: this distortion moves what is in the image to {factor:.3g} times its distance from the middle, "
            f"no lens does beyond {MIN_STRENGTH:g} to {MAX_STRENGTH:g}: check the order of the coefficients"
        )
    first = TANGENTIAL.get(camera.model)
    slant = 3 * side * max(map(abs, camera.distortion[first : first + 2]), default=0.0) if first is not None else 0.0
    if slant > MAX_SLANT:
        raise CalibrationError(
            f"{name}: the tangential distortion moves the border of the image by {100 * slant:.0f} % of its distance "
            f"from the middle, no lens does by more than {100 * MAX_SLANT:g} %: p1 and p2 are the third and fourth"
        )


def _check_folding(camera: Camera, name: str) -> None:
    """Where a lens model folds back, two rays share a pixel: it may do so beyond the image."""
    if not camera.is_distorted:
        return
    _, reach = limit(camera.distortion, camera.model)
    side = 0.5 * min(camera.width / camera.fx, camera.height / camera.fy)
    if reach < side:
        raise CalibrationError(
            f"{name}: this distortion folds the image back {reach * camera.fx:.0f} px from its middle: no lens does; "
            "check the order and the signs of the coefficients"
        )
    corner = 0.5 * math.hypot(camera.width / camera.fx, camera.height / camera.fy)
    if camera.model == RADTAN and reach < corner:
        warn_once(f"{name}: this distortion folds the image back towards its corners, which are left out")

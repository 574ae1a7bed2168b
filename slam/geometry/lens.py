"""Lens models: where a ray of the camera meets the plane that focal lengths and principal point turn into pixels.

| model | coefficients | source |
| --- | --- | --- |
| RADTAN | none, or k1 k2 p1 p2 [k3 [k4 k5 k6]] | OpenCV: radial-tangential, with eight numbers rational |
| FISHEYE | k1 k2 k3 k4 | Kannala & Brandt, PAMI 2006, as in OpenCV's fisheye; all zero: equidistant |
| FOV | w | Devernay & Faugeras, Straight lines have to be straight, 2001 (ATAN) |
| OMNI | xi k1 k2 p1 p2 | Mei & Rives, ICRA 2007 |
| DOUBLE_SPHERE | xi alpha | Usenko et al., The double sphere camera model, 3DV 2018 |
| EUCM | alpha beta | Khomutenko et al., RA-L 2016 |
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RADTAN, FISHEYE, FOV, OMNI, DOUBLE_SPHERE, EUCM = "radtan", "fisheye", "fov", "omni", "double_sphere", "eucm"
COEFFICIENTS = {RADTAN: (0, 4, 5, 8), FISHEYE: (4,), FOV: (1,), OMNI: (5,), DOUBLE_SPHERE: (2,), EUCM: (2,)}
TANGENTIAL = {RADTAN: 2, OMNI: 3}  # index of p1; p2 follows

UNDISTORT_STEPS = 20  # fixed-point steps; a wide lens (k1 = 0.3) reaches 1e-9 in about 15
BISECTIONS = 60  # of an angle: to the last bit
PROFILE_STEPS = 4000  # angles at which a lens is looked at to find its limit
HALF_SPACE = 0.5 * torch.pi - 1e-3  # radians; RADTAN and FOV end before it


def project(rays: Tensor, coefficients: Sequence[float], model: str = RADTAN) -> Tensor:
    """Rays (..., 3) of the camera, of any length -> distorted points (..., 2) on the plane, by the model.

    Rays beyond the reach of a model (behind the camera for RADTAN and FOV; see `limit`) give points of no meaning.
    """
    X, Y, Z = rays.unbind(-1)
    if model == RADTAN:
        return distort(torch.stack([X / Z, Y / Z], -1), coefficients)
    r2 = X * X + Y * Y
    d = (r2 + Z * Z).sqrt()
    if model == OMNI:
        xi, *rest = coefficients
        return distort(torch.stack([X, Y], -1) / (Z + xi * d)[..., None], rest)
    if model == DOUBLE_SPHERE:
        xi, alpha = coefficients
        z = xi * d + Z
        scale = 1 / (alpha * (r2 + z * z).sqrt() + (1 - alpha) * z)
    elif model == EUCM:
        alpha, beta = coefficients
        scale = 1 / (alpha * (beta * r2 + Z * Z).sqrt() + (1 - alpha) * Z)
    else:
        r = r2.sqrt()
        is_axis = r < 1e-9 * d
        if model == FISHEYE:
            theta = torch.atan2(r, Z)
            t2 = theta * theta
            k1, k2, k3, k4 = coefficients
            radius, slope = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))), 1.0
        else:
            w = coefficients[0]
            slope = 2 * math.tan(w / 2) / w
            radius = torch.atan(slope * w * r / Z) / w
        scale = torch.where(is_axis, slope / Z, radius / torch.where(is_axis, torch.ones_like(r), r))
    return scale[..., None] * torch.stack([X, Y], -1)


def distort(xy: Tensor, coefficients: Sequence[float], model: str = RADTAN) -> Tensor:
    """Points (..., 2) of an ideal image at z = 1 -> distorted points of the plane."""
    if not any(coefficients) and model == RADTAN:
        return xy
    if model != RADTAN:
        return project(torch.cat([xy, torch.ones_like(xy[..., :1])], -1), coefficients, model)
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *8 * [0.0])[:8]
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return torch.stack([xd, yd], -1)


def undistort(xy: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Distorted points (..., 2) of RADTAN -> ideal points at z = 1, by fixed-point iteration (inverse of `distort`)."""
    ideal = xy
    for _ in range(UNDISTORT_STEPS if any(coefficients) else 0):
        ideal = ideal - (distort(ideal, coefficients) - xy)
    return ideal


def angle(radius: Tensor, coefficients: Sequence[float], model: str = RADTAN) -> Tensor:
    """Angle from the axis (radians) of the rays whose distorted points lie at `radius` from it, by bisection.

    Radii beyond the `limit` of the lens give its angle. Tangential coefficients are left out.
    """
    low, high = torch.zeros_like(radius), torch.full_like(radius, limit(coefficients, model)[0])
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        is_nearer = profile(middle, coefficients, model) < radius
        low, high = torch.where(is_nearer, middle, low), torch.where(is_nearer, high, middle)
    return 0.5 * (low + high)


def limit(coefficients: Sequence[float], model: str = RADTAN) -> tuple[float, float]:
    """Angle from the axis (radians) up to which the lens maps outward rays outward, and the radius there.

    Beyond it the model folds back: two rays meet one point, and no image can be undistorted. Tangential coefficients
    are left out.
    """
    end = HALF_SPACE if model in (RADTAN, FOV) else torch.pi
    theta = torch.linspace(0, end, PROFILE_STEPS + 1, dtype=torch.float64)
    radius = profile(theta, coefficients, model)
    grows = (radius.diff() > 0) & radius[1:].isfinite()
    last = PROFILE_STEPS if bool(grows.all()) else int((~grows).int().argmax())
    return float(theta[last]), float(radius[last])


def profile(theta: Tensor, coefficients: Sequence[float], model: str) -> Tensor:
    """Distance from the axis of the distorted points of rays at these angles (radians) from it, by the symmetric part
    of a lens."""
    symmetric = list(coefficients)
    if model in TANGENTIAL and symmetric:
        first = TANGENTIAL[model]
        symmetric[first : first + 2] = 0.0, 0.0
    rays = torch.stack([theta.sin(), torch.zeros_like(theta), theta.cos()], -1)
    return project(rays, symmetric, model)[..., 0]


def central_slope(coefficients: Sequence[float], model: str = RADTAN) -> float:
    """Of the radius by the angle at the axis: 1 where focal lengths mean what they do for a pinhole."""
    small = torch.tensor(1e-6, dtype=torch.float64)
    return float(profile(small, coefficients, model) / small)

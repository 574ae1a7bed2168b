"""Lens models against OpenCV, against their papers' other form, and against each other where they meet."""

import math

import cv2
import numpy as np
import pytest
import torch

from slam.geometry.lens import (
    DOUBLE_SPHERE,
    EUCM,
    FISHEYE,
    FOV,
    OMNI,
    RADTAN,
    angle,
    distort,
    limit,
    project,
)

KB4 = (0.0034823894, 0.0007150348, -0.0020532361, 0.0002029367)  # a 195 degree lens
RATIONAL = (0.49, -2.65, 0.0006, -0.0002, 1.53, 0.37, -2.47, 1.46)  # a depth camera's colour lens


def rays(up_to_deg: float) -> torch.Tensor:
    """(200, 3) unit rays in all directions up to an angle from the axis."""
    generator = torch.Generator().manual_seed(0)
    theta = math.radians(up_to_deg) * torch.rand(200, generator=generator, dtype=torch.float64)
    phi = 2 * math.pi * torch.rand(200, generator=generator, dtype=torch.float64)
    return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1)


def test_fisheye_is_opencvs():
    X = rays(85)
    expected, _ = cv2.fisheye.projectPoints(X.numpy()[:, None], np.zeros(3), np.zeros(3), np.eye(3), np.array(KB4))
    torch.testing.assert_close(project(X, KB4, FISHEYE), torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-12)


def test_rational_is_opencvs():
    X = rays(40)
    expected, _ = cv2.projectPoints(X.numpy(), np.zeros(3), np.zeros(3), np.eye(3), np.array(RATIONAL))
    torch.testing.assert_close(project(X, RATIONAL), torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-12)


def test_omni_is_a_shifted_pinhole_of_the_unit_sphere():
    """Mei & Rives eq. 1 to 4, step by step: onto the sphere, along z by xi, divide, distort as OpenCV does."""
    xi, *rest = 1.2, -0.1, 0.02, 0.001, -0.002
    X = rays(100)
    sphere = X.numpy() + np.array([0, 0, xi])
    expected, _ = cv2.projectPoints(sphere, np.zeros(3), np.zeros(3), np.eye(3), np.array(rest))
    torch.testing.assert_close(project(X, (xi, *rest), OMNI), torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-12)


def test_double_sphere_by_its_two_spheres():
    """Usenko et al., sec. 3: a unit sphere, a second one shifted by xi, then a shifted pinhole."""
    xi, alpha = -0.2, 0.59
    X = rays(100)
    second = torch.nn.functional.normalize(X + torch.tensor([0, 0, xi], dtype=X.dtype), dim=-1)
    z = second[:, 2:] + alpha / (1 - alpha)
    expected = second[:, :2] / z / (1 - alpha)
    torch.testing.assert_close(project(X, (xi, alpha), DOUBLE_SPHERE), expected, rtol=0, atol=1e-12)


def test_models_meet_where_they_are_the_same():
    X = rays(80)
    pinhole = X[:, :2] / X[:, 2:]
    for model, coefficients in ((EUCM, (0.0, 1.0)), (DOUBLE_SPHERE, (0.0, 0.0)), (OMNI, (0.0,) * 5), (RADTAN, ())):
        torch.testing.assert_close(project(X, coefficients, model), pinhole)
    a, b = project(X, (0.6, 1.0), EUCM), project(X, (0.0, 0.6), DOUBLE_SPHERE)  # both are UCM
    torch.testing.assert_close(a, b)
    stereographic = project(X, (1.0, *[0.0] * 4), OMNI)  # tan(theta / 2)
    theta = X[:, 2].acos()
    torch.testing.assert_close(stereographic.norm(dim=-1), (theta / 2).tan())


def test_fov_keeps_the_radius_one_half():
    """Devernay & Faugeras: r_u = tan(r_d w) / (2 tan(w / 2)) is r_d at 1/2; about the axis its slope is the inverse."""
    w = 0.93
    X = torch.tensor([[0.5, 0, 1], [1e-12, 0, 1], [0, 0, 1]], dtype=torch.float64)
    radius = project(X, (w,), FOV)[:, 0]
    assert radius.tolist() == pytest.approx([0.5, 1e-12 * 2 * math.tan(w / 2) / w, 0.0], rel=1e-9)


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        (FISHEYE, KB4),
        (FOV, (0.93,)),
        (OMNI, (1.2, -0.1, 0.02, 0.001, -0.002)),
        (DOUBLE_SPHERE, (-0.2, 0.59)),
        (EUCM, (0.6, 1.1)),
        (RADTAN, (-0.28, 0.07, 0.0, 0.0)),
    ],
)
def test_angle_undoes_the_profile_and_length_does_not_matter(model, coefficients):
    theta = torch.linspace(0, math.radians(80), 9, dtype=torch.float64)
    X = torch.stack([torch.zeros_like(theta), theta.sin(), theta.cos()], -1)
    no_tangential = (*coefficients[:3], 0.0, 0.0) if model == OMNI else coefficients
    points = project(X, no_tangential, model)
    torch.testing.assert_close(angle(points[:, 1], coefficients, model), theta, rtol=0, atol=1e-9)
    torch.testing.assert_close(project(7 * X, no_tangential, model), points)
    torch.testing.assert_close(distort(X[:, :2] / X[:, 2:], no_tangential, model), points)


def test_limit_is_where_the_polynomial_turns():
    """r (1 + k1 r^2) rises up to r = sqrt(-1 / (3 k1)), where it is 2/3 of that."""
    k1 = -0.3
    theta, radius = limit((k1, 0.0, 0.0, 0.0))
    r = math.sqrt(1 / 0.9)
    assert (math.tan(theta), radius) == pytest.approx((r, 2 / 3 * r), abs=2e-3)
    theta, radius = limit((-0.05, 0.0, 0.0, 0.0), FISHEYE)
    assert (theta, radius) == pytest.approx((math.sqrt(1 / 0.15), 2 / 3 * math.sqrt(1 / 0.15)), abs=2e-3)
    assert limit(())[0] == pytest.approx(math.pi / 2, abs=2e-3)
    assert limit(KB4, FISHEYE)[0] > math.radians(110)

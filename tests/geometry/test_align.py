"""Least-squares alignment of point sets, degenerate ones included."""

import math

import pytest
import torch

from slam.geometry import se3
from slam.geometry.align import umeyama

F64 = torch.float64


def points(n=30, seed=0):
    return torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


def rotation(angle=2.2):
    axis = torch.tensor([0.36, -0.48, 0.8], dtype=F64)
    return se3.so3_exp(angle * axis)


T = torch.tensor([5.0, -3.0, 0.2], dtype=F64)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_recovers_a_known_similarity(scale):
    source = points()
    s, R, t = umeyama(source, scale * source @ rotation().mT + T)
    assert float(s) == pytest.approx(scale, rel=1e-12)
    torch.testing.assert_close(R, rotation(), rtol=0, atol=1e-12)
    torch.testing.assert_close(t, T, rtol=0, atol=1e-11)


def test_without_scale_the_rotation_is_the_same():
    source = points()
    s, R, t = umeyama(source, 3 * source @ rotation().mT + T, with_scale=False)
    assert float(s) == 1.0
    torch.testing.assert_close(R, rotation(), rtol=0, atol=1e-12)
    torch.testing.assert_close(t, (3 * source @ rotation().mT + T).mean(0) - R @ source.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-8, math.pi / 2, math.pi])
def test_awkward_angles(angle):
    source = points()
    _, R, _ = umeyama(source, source @ rotation(angle).mT)
    torch.testing.assert_close(R, rotation(angle), rtol=0, atol=1e-12)


def test_planar_points_have_one_answer():
    source = points() * torch.tensor([1.0, 1.0, 0.0], dtype=F64)
    s, R, t = umeyama(source, 2 * source @ rotation().mT + T)
    assert float(s) == pytest.approx(2.0)
    torch.testing.assert_close(R, rotation(), rtol=0, atol=1e-12)
    torch.testing.assert_close(t, T, rtol=0, atol=1e-12)


def test_a_mirror_image_gets_a_rotation_not_a_reflection():
    source = points()
    target = source * torch.tensor([-1.0, 1.0, 1.0], dtype=F64)
    s, R, _ = umeyama(source, target)
    assert float(torch.linalg.det(R)) == pytest.approx(1.0)
    a, b = source - source.mean(0), target - target.mean(0)
    assert float(s) == pytest.approx(float((b * (a @ R.mT)).sum() / a.square().sum()))  # the best scale for this R


def test_points_on_a_line_are_fitted_by_one_of_many_rotations():
    source = torch.linspace(-1, 1, 9, dtype=F64)[:, None] * torch.tensor([0.6, 0.0, 0.8], dtype=F64)
    target = 1.5 * source @ rotation().mT + T
    s, R, t = umeyama(source, target)
    torch.testing.assert_close(s * source @ R.mT + t, target, rtol=0, atol=1e-12)
    assert float(torch.linalg.det(R)) == pytest.approx(1.0)


def test_one_point_and_coincident_points_are_moved():
    for n in (1, 5):
        source = torch.ones(n, 3, dtype=F64)
        s, R, t = umeyama(source, source + T)
        assert float(s) == 1.0
        assert float(torch.linalg.det(R)) == pytest.approx(1.0)
        torch.testing.assert_close(s * source @ R.mT + t, source + T, rtol=0, atol=1e-12)


def test_no_small_change_fits_noisy_points_better():
    """The answer is a minimum: 200 small similarities on top of it all make the fit worse."""
    source, noise = points(), 0.1 * points(seed=1)
    target = 2 * source @ rotation().mT + T + noise
    s, R, t = umeyama(source, target)
    best = (s * source @ R.mT + t - target).square().sum()
    draw = 0.01 * torch.randn(200, 7, dtype=F64, generator=torch.Generator().manual_seed(2))
    for d in draw:
        fit = (s * d[6].exp()) * source @ (se3.so3_exp(d[3:6]) @ R).mT + t + d[:3]
        assert (fit - target).square().sum() > best


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="two equal"):
        umeyama(points(3), points(4))
    with pytest.raises(ValueError, match="two equal"):
        umeyama(points(0), points(0))

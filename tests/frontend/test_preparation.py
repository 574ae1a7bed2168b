"""Frames to images of network size: any aspect, any size, and the pixel-centre rule."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import UsageError
from slam.frames import Frame
from slam.frontend.preparation import Preparation, network_size, optics_of
from slam.geometry.camera import Camera, pixel_grid
from slam.geometry.lens import DOUBLE_SPHERE, FISHEYE, angle, limit

PIXELS = 256 * 192
PER_RADIAN = 60.0


def ramp(width: int, height: int) -> tuple[Camera, Frame]:
    """An image whose red rises by the column and green by the row, over the whole range."""
    camera = Camera(width, height, float(width), float(width), (width - 1) / 2, (height - 1) / 2)
    v, u = np.mgrid[:height, :width]
    image = np.stack([255 * u / (width - 1), 255 * v / (height - 1), 0 * u], -1)
    return camera, Frame(0, 0, np.rint(image).astype(np.uint8), camera)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1280, 720), (64, 48), (320, 240), (100, 75)])
def test_size_keeps_aspect_and_pixels(size):
    width, height = network_size(ramp(*size)[0], PIXELS)
    assert width % 8 == height % 8 == 0
    assert width * height == pytest.approx(PIXELS, rel=0.05)  # sides are rounded to multiples of 8
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (64, 48), (100, 75)])
def test_a_ramp_stays_a_ramp(size):
    """Smaller or larger, each pixel shows what lies at its place by the camera; blocks would be off by 1.4 gray levels.

    Tolerance: rounding of the image before and after (0.5 each) and of the weights. The border is left out: nothing
    lies beyond it.
    """
    camera, frame = ramp(*size)
    preparation = Preparation(camera, PIXELS)
    image = preparation.prepare(frame).image.rgb
    target = preparation.camera
    assert image.shape == (target.height, target.width, 3)
    u = (np.arange(target.width) + 0.5) * size[0] / target.width - 0.5
    v = (np.arange(target.height) + 0.5) * size[1] / target.height - 0.5
    np.testing.assert_allclose(image[8, 8:-8, 0], 255 * u[8:-8] / (size[0] - 1), atol=1.25)
    np.testing.assert_allclose(image[8:-8, 8, 1], 255 * v[8:-8] / (size[1] - 1), atol=1.25)
    assert target.cx == pytest.approx((target.width - 1) / 2) and target.cy == pytest.approx((target.height - 1) / 2)


KB4 = (0.0034823894, 0.0007150348, -0.0020532361, 0.0002029367)
RADTAN_FOLDING = Camera(320, 240, 180.0, 180.0, 161.0, 119.0, (-0.3, 0.0, 0.0, 0.0))  # beyond r = 0.70, corner 1.1


def painted(camera: Camera) -> Frame:
    """Red and green rise along and down by PER_RADIAN with the angle of a ray from the axis; blue: there is a ray."""
    K = camera.matrix()
    xy = (pixel_grid(camera.height, camera.width, like=K) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    radius = xy.norm(dim=-1)
    theta, (_, reach) = angle(radius, camera.distortion, camera.model), limit(camera.distortion, camera.model)
    ramps = 128 + PER_RADIAN * xy * (theta / radius.clamp_min(1e-12))[..., None]
    image = torch.cat([ramps.clamp(0, 255), 255.0 * (radius < reach)[..., None]], -1)
    return Frame(0, 0, image.round().to(torch.uint8).numpy(), camera)


@pytest.mark.parametrize(
    ("camera", "hfov_deg", "expected_deg"),
    [
        (Camera(320, 240, 125.0, 125.5, 162.5, 118.0, KB4, FISHEYE), None, 90.0),
        (Camera(240, 320, 125.0, 125.5, 121.5, 158.0, KB4, FISHEYE), None, 73.7),  # 90 along the longer side
        (Camera(320, 240, 125.0, 125.5, 162.5, 118.0, KB4, FISHEYE), 105.0, 105.0),
        (Camera(320, 240, 350.0, 350.5, 162.5, 118.0, KB4, FISHEYE), None, None),  # sees less than 90 degrees
        (Camera(256, 256, 79.0, 79.0, 127.0, 128.5, (-0.18, 0.59), DOUBLE_SPHERE), None, 90.0),
        (RADTAN_FOLDING, None, None),
    ],
    ids=["fisheye", "portrait", "chosen", "narrow", "double sphere", "folding"],
)
def test_wide_lenses_become_pinholes(camera: Camera, hfov_deg: float | None, expected_deg: float | None):
    """Every pixel shows the ray that the pinhole says, and none of them what the lens does not see.

    Tolerance: rounding of the painted and of the resampled image, and interpolation of what is not linear.
    """
    preparation = Preparation(replace(camera, undistort_hfov_deg=hfov_deg), PIXELS)
    target, frame = preparation.camera, painted(camera)
    assert not target.is_distorted
    if expected_deg is not None:
        assert math.degrees(2 * math.atan(0.5 * target.width / target.fx)) == pytest.approx(expected_deg, abs=0.6)
    K = target.matrix()
    xy = (pixel_grid(target.height, target.width, like=K) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    r = xy.norm(dim=-1, keepdim=True)
    expected = 128 + PER_RADIAN * xy * r.atan() / r.clamp_min(1e-12)
    shown = preparation.prepare(frame).image.rgb
    np.testing.assert_allclose(shown[..., :2], expected.numpy(), atol=1.5)
    assert shown[..., 2].min() == 255


def test_a_pinhole_can_be_narrowed_and_no_lens_widened():
    camera, frame = ramp(640, 480)  # sees 53.1 degrees
    preparation = Preparation(replace(camera, undistort_hfov_deg=40.0), PIXELS)
    width = preparation.camera.width
    u = ((np.arange(width) + 0.5) * 640 / width - 320) * 2 * math.tan(math.radians(20)) + 319.5
    np.testing.assert_allclose(preparation.prepare(frame).image.rgb[90, :, 0], 255 * u / 639, atol=1.25)
    with pytest.raises(UsageError, match="--undistort-hfov 60 is more than this lens fills: give at most 53"):
        Preparation(replace(camera, undistort_hfov_deg=60.0), PIXELS)


def test_depth_is_taken_from_the_middle_of_each_pixel_and_only_where_it_is_known(caplog):
    """A depth that rises by the column: nearest of those under the pixel, so at most half a source pixel off."""
    camera, frame = ramp(640, 480)
    depth = np.tile(np.arange(1.0, 641.0), (480, 1))
    depth[:40], depth[40:80], depth[80:120] = np.nan, np.inf, -1
    preparation = Preparation(camera, PIXELS)
    out = preparation.prepare(replace(frame, depth=depth)).sensor_depth
    assert out is not None and out.dtype == np.float32 and out.shape == (192, 256)
    u = (np.arange(256) + 0.5) * 2.5 - 0.5
    assert not out[:47].any() and np.abs(out[60] - 1 - u).max() <= 0.5 and abs((out[60] - 1 - u).mean()) < 0.3
    for _ in range(2):
        assert preparation.prepare(replace(frame, depth=depth[::2])).sensor_depth is None
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == ["frame 0: depth of 640x240 for an image of 640x480 is not used; align it to the image"]


def test_views_keep_their_size_when_the_camera_turns_out_to_be_another():
    """The size is rounded: asked for again by its own pixels, it would be another one here."""
    guess = Camera(240, 400, 300.0, 300.0, 119.5, 199.5)
    preparation = Preparation(guess, 49152)
    found = replace(guess, fx=330.0, fy=330.0)
    size = (preparation.camera.width, preparation.camera.height)
    after = preparation.recalibrated(found).camera
    assert network_size(guess, size[0] * size[1]) != size == (after.width, after.height)
    assert optics_of(found, 49152).pinhole == after

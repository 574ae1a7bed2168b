"""Frames to images of network size: any aspect, any size, and the pixel-centre rule."""

from dataclasses import replace

import numpy as np
import pytest

from slam.frames import Frame
from slam.frontend.preparation import Preparation, network_size
from slam.geometry.camera import Camera

PIXELS = 256 * 192


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

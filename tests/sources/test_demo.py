"""The rendered sequence keeps the contract of sources, and its truth is true."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import ConfigError
from slam.frontend.preparation import Preparation
from slam.geometry import se3
from slam.geometry.camera import sample
from slam.geometry.flow import in_image, reproject
from slam.geometry.lens import FISHEYE, angle
from slam.sources.demo import DemoConfig, DemoSource

SMALL = DemoConfig(frames=9, width=96, height=72, seed=5)


def test_frames_are_complete_and_repeat():
    source = DemoSource(SMALL)
    frames = list(source)
    assert not source.live and len(source) == source.count == len(frames) == 9 and source.skipped == 0
    assert [f.id for f in frames] == list(range(9))
    assert np.diff([f.time_ns for f in frames]) == pytest.approx(1e9 / 30, abs=1)
    for frame in frames:
        assert frame.image.shape == (72, 96, 3) and frame.image.dtype == np.uint8
        assert frame.camera is source.camera and frame.depth is None
    assert source.camera.width == 96 and source.camera.cx == 47.5
    again = list(source)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, again))
    other = next(iter(DemoSource(DemoConfig(frames=9, width=96, height=72, seed=6))))
    assert not np.array_equal(other.image, frames[0].image)
    source.close()


def test_true_depth_and_poses_explain_the_images():
    """Warping frame 8 into frame 0 by truth leaves noise; by no motion, much more."""
    source = DemoSource(DemoConfig(frames=9, width=96, height=72, seed=5, fps=10.0), with_depth=True)
    frames = list(source)
    truth = source.groundtruth()
    assert np.array_equal(truth.time_ns, [f.time_ns for f in frames])
    K = source.camera.matrix()[None]
    depth = [torch.from_numpy(frames[k].depth)[None].double() for k in (0, 8)]
    assert depth[0].min() > 0.2
    image = [torch.from_numpy(frames[k].image).permute(2, 0, 1)[None].double() / 255 for k in (0, 8)]
    T_wc = torch.from_numpy(truth.T_wc)
    uv, q, valid = reproject(1 / depth[0], (se3.inverse(T_wc[8]) @ T_wc[0])[None], K)
    seen = valid & in_image(uv, 72, 96)
    seen &= (sample(1 / depth[1][:, None], uv)[:, 0] * depth[0] * q[..., 2] - 1).abs() < 0.02
    assert seen.double().mean() > 0.3
    warped = (sample(image[1], uv) - image[0]).abs().mean(1)[seen].mean()
    still = (image[1] - image[0]).abs().mean(1)[seen].mean()
    assert warped < 0.05 and warped < 0.6 * still


def test_the_rows_of_a_rolling_shutter_are_taken_one_after_the_other():
    """In the time of a frame: the middle row where the frame is, the last one half-way to the next frame."""
    config = replace(SMALL, fps=10.0, readout_s=0.1)
    rolled, still = (list(DemoSource(c, with_depth=True)) for c in (config, replace(config, readout_s=0.0)))
    for k in (2, 5):
        middle = [f.depth[35:37] for f in (rolled[k], still[k])]
        np.testing.assert_allclose(*middle, rtol=0.02)
        shift = np.abs(rolled[k].depth[-1] / still[k].depth[-1] - 1).mean()
        assert shift > 3 * np.abs(middle[0] / middle[1] - 1).mean()
    alone = next(iter(DemoSource(replace(config, frames=1))))
    assert alone.image.shape == (72, 96, 3)


def test_an_exposure_blurs_what_moves():
    """Of a fast camera over half the time of a frame: fine detail goes, the mean stays; depth is that of the middle."""
    config = replace(SMALL, fps=10.0, shake_deg=3.0, noise=0.0, frames=4)
    sharp, blurred = (list(DemoSource(c, with_depth=True)) for c in (config, replace(config, exposure_s=0.05)))
    for a, b in zip(sharp, blurred, strict=True):
        steps = [np.abs(np.diff(frame.image.astype(float), axis=k)).mean() for frame in (a, b) for k in (0, 1)]
        assert sum(steps[2:]) < 0.8 * sum(steps[:2])
        assert a.image.mean() == pytest.approx(b.image.mean(), rel=0.03)
        np.testing.assert_allclose(a.depth, b.depth, rtol=1e-4)


def test_wrong_settings_are_reported():
    with pytest.raises(ConfigError, match="ocean"):
        DemoConfig(kind="ocean")
    with pytest.raises(ConfigError, match="frames"):
        DemoConfig(frames=0)
    with pytest.raises(ConfigError, match="readout_s"):
        DemoConfig(readout_s=0.05)
    with pytest.raises(ConfigError, match="exposure_s"):
        DemoConfig(exposure_s=0.05)
    with pytest.raises(ConfigError, match="hfov"):
        DemoConfig(hfov_deg=179.0)


def test_a_fisheye_undistorted_is_the_pinhole():
    """The same walk through both lenses: after undistortion the images agree but for the blur of resampling."""
    plain = dict(frames=1, width=320, height=240, noise=0.0, blur_px=0.1, exposure_drift_stops=0.0)
    fisheye = DemoSource(DemoConfig(hfov_deg=140, fisheye=True, **plain))
    assert fisheye.camera.model == FISHEYE
    theta = angle(torch.tensor(160 / fisheye.camera.fx, dtype=torch.float64), fisheye.camera.distortion, FISHEYE)
    assert math.degrees(float(theta)) == pytest.approx(70, abs=1e-6)
    preparation = Preparation(fisheye.camera, 320 * 240)
    assert preparation.camera.width == 320
    shown = preparation.prepare(next(iter(fisheye))).image.rgb.astype(float)
    pinhole = next(iter(DemoSource(DemoConfig(hfov_deg=90, **plain)))).image.astype(float)
    other = np.roll(pinhole, 4, axis=1)
    error, error_of_other = (np.abs(shown - image)[8:-8, 8:-8].mean() for image in (pinhole, other))
    assert error < 0.3 * error_of_other


def test_a_fisheye_must_see_what_is_before_it():
    with pytest.raises(ConfigError, match="hfov_deg 150: the corners see what is beside the camera"):
        DemoSource(DemoConfig(frames=1, hfov_deg=150, fisheye=True))

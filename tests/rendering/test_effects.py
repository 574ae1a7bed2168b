"""Camera effects: ranges, consistency in a clip, and what each does by itself."""

import dataclasses

import pytest
import torch

from slam.errors import ConfigError
from slam.rendering.effects import Effects, EffectsConfig, convolve, streak_kernels
from slam.rendering.jpeg import jpeg

OFF = EffectsConfig().scaled(0.0)


def clips(S: int = 6, V: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(S, 1, 3, 9, 12, generator=generator).expand(-1, V, -1, -1, -1).flatten(0, 1)
    image = torch.nn.functional.interpolate(smooth, (70, 90), mode="bilinear")
    return image.view(S, V, 3, 70, 90)


def run(seed: int = 1, **changes: float) -> torch.Tensor:
    return Effects(dataclasses.replace(OFF, **changes))(clips(), torch.Generator().manual_seed(seed))


def test_all_effects_keep_range_and_shape_and_repeat_by_seed():
    out = Effects()(clips(), torch.Generator().manual_seed(1))
    assert out.shape == clips().shape and out.min() >= 0 and out.max() <= 1 and out.isfinite().all()
    assert torch.equal(out, Effects()(clips(), torch.Generator().manual_seed(1)))
    assert (out - Effects()(clips(), torch.Generator().manual_seed(2))).abs().mean() > 0.01


def test_strength_zero_changes_nothing():
    torch.testing.assert_close(run(), clips(), rtol=0, atol=2e-4)  # 1e-4 floor before the power


def test_colour_is_the_same_change_for_all_views_of_a_clip():
    out = run(exposure_stops=1.0, white_balance=0.3, gamma=0.3)
    within = (out - out[:, :1]).abs().mean()
    against = (out[:, 0] - clips()[:, 0]).abs().mean()
    assert against > 0.05 and within < 0.15 * against


def test_exposure_drifts_between_views():
    out = run(exposure_drift_stops=0.3)
    assert (out[:, 1].mean((1, 2, 3)) / out[:, 0].mean((1, 2, 3)) - 1).abs().max() > 0.05


def test_gray_has_no_colour():
    out = run(gray_chance=1.0)
    assert (out.amax(2) - out.amin(2)).max() < 1e-6


def test_noise_has_its_level():
    residual = (run(noise=0.05) - clips()).flatten(1).std(1)
    assert residual.min() > 0.002 and 0.02 < residual.max() < 0.07
    assert (residual.max() / residual.min()) > 1.5  # differs from clip to clip


def test_vignetting_darkens_corners_only():
    ratio = (run(vignetting=1.0) / clips().clamp_min(0.02))[:, 0].mean(1)
    assert ratio[:, 0, 0].min() < 0.8
    torch.testing.assert_close(ratio[:, 35, 45], torch.ones(6), rtol=0, atol=0.02)


def test_blur_kernels_have_sum_one_and_their_length():
    length, angle = torch.tensor([0.0, 6.0, 6.0]), torch.tensor([0.0, 0.0, torch.pi / 2])
    kernels = streak_kernels(torch.zeros(3), length, angle)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(3))
    assert kernels[0, 4, 4] > 0.9
    torch.testing.assert_close(kernels[1], kernels[2].T)
    x = torch.arange(9.0) - 4
    assert 3 < (kernels[1].sum(0) * x.square()).sum() < 5  # a line of 6 to 7 pixels: L^2 / 12
    image = clips(1, 1)[0]
    torch.testing.assert_close(convolve(image, kernels[:1]), image, rtol=0, atol=0.02)


def test_jpeg_keeps_flat_areas_and_loses_more_at_low_quality():
    flat = torch.full((1, 3, 33, 47), 0.4)
    torch.testing.assert_close(jpeg(flat, torch.tensor([90.0])), flat, rtol=0, atol=0.01)
    noisy = (clips(1, 1)[0] + 0.05 * torch.randn(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    loss = [(jpeg(noisy, torch.tensor([q])) - noisy).square().mean() for q in (95.0, 60.0, 20.0)]
    assert loss[0] < loss[1] < loss[2] and loss[1] < 0.005
    assert jpeg(noisy, torch.tensor([60.0])).shape == noisy.shape


def test_bad_settings_are_reported():
    with pytest.raises(ConfigError, match="jpeg_chance"):
        EffectsConfig(jpeg_chance=1.5)
    with pytest.raises(ConfigError, match="noise"):
        EffectsConfig(noise=-1.0)

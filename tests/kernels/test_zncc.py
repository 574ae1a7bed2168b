import pytest
import torch
import torch.nn.functional as F

from slam.geometry import se3
from slam.kernels.zncc import zncc_volume
from slam.networks.stereo import wide_hypotheses

FOCAL, H, W = 100.0, 48, 64


def image(shift_px: float, contrast: float = 1.0) -> torch.Tensor:
    """(1, 1, H, W) of a smooth random wall that has moved to the left by `shift_px`, sampled exactly."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.arange(W) + shift_px, torch.arange(H)
    waves = 0.15 + 0.6 * torch.rand(20, 2, generator=generator)
    phases = 6.3 * torch.rand(20, generator=generator)
    value = (waves[:, :1, None] * u + waves[:, 1:, None] * v[:, None] + phases[:, None, None]).sin().mean(0)
    return (contrast * value / value.std())[None, None]


def camera(baselines: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """T_jk (1, M, 4, 4) of cameras to the right of the keyframe, and K."""
    T_jk = torch.eye(4, dtype=torch.float64).repeat(1, len(baselines), 1, 1)
    T_jk[0, :, 0, 3] = -torch.tensor(baselines, dtype=torch.float64)
    K = torch.tensor([[[FOCAL, 0, (W - 1) / 2], [0, FOCAL, (H - 1) / 2], [0, 0, 1]]], dtype=torch.float64)
    return T_jk, K


@pytest.mark.parametrize("parallax_px", [1.5, 6.0])
def test_the_true_plane_is_the_likeliest_even_at_a_fraction_of_a_pixel(parallax_px: float):
    """Hypotheses from 0.4 to 1.6 in 13 steps: with 1.5 px of parallax each step moves the image by 0.15 px."""
    baseline = parallax_px / FOCAL
    T_jk, K = camera([baseline, -baseline])
    hypotheses = wide_hypotheses(torch.tensor([0.4]), torch.tensor([1.6]), 13)
    found = zncc_volume(image(0), [image(parallax_px), image(-parallax_px)], T_jk, K, hypotheses)
    assert found.shape == (1, 13, H // 4, W // 4, 2)
    best = hypotheses.flatten()[found.argmax(1)][0, 2:-2, 4:-4]
    assert (best - 1).abs().max() < 1e-5
    assert found[0, 6, 2:-2, 4:-4].min() > 1.5  # of 2.3


def test_brightness_and_contrast_of_a_view_do_not_matter_and_plain_windows_say_nothing():
    T_jk, K = camera([0.06])
    hypotheses = wide_hypotheses(torch.tensor([0.4]), torch.tensor([1.6]), 7)
    usual = zncc_volume(image(0), [image(6)], T_jk, K, hypotheses)
    brighter = zncc_volume(image(0), [image(6) + 0.7], T_jk, K, hypotheses)
    torch.testing.assert_close(brighter, usual, rtol=0, atol=1e-3)
    stronger = zncc_volume(image(0), [1.5 * image(6)], T_jk, K, hypotheses)
    torch.testing.assert_close(stronger, usual, rtol=0, atol=0.15)  # its noise counts less
    plain = zncc_volume(image(0, contrast=1e-3), [image(6)], T_jk, K, hypotheses)
    assert plain.abs().max() < 0.1


def test_a_view_that_does_not_see_the_point_has_no_say():
    """A camera far to the right sees nothing of the wall's left side: the other view decides alone."""
    T_jk, K = camera([0.06, 0.6])
    hypotheses = wide_hypotheses(torch.tensor([0.4]), torch.tensor([1.6]), 7)
    both = zncc_volume(image(0), [image(6), image(60)], T_jk, K, hypotheses)
    one = zncc_volume(image(0), [image(6)], T_jk[:, :1], K, hypotheses)
    torch.testing.assert_close(both[:, -1, :, :8], one[:, -1, :, :8])
    behind = torch.eye(4, dtype=torch.float64)[None, None]
    behind[..., 2, 3] = -10.0
    nothing = zncc_volume(image(0), [F.pad(image(0)[..., 1:], (0, 1))], behind, K, hypotheses)
    assert torch.isfinite(nothing).all()


@pytest.mark.parametrize(("height", "width"), [(H, W), (8, 36), (20, 4)])
def test_loops_and_tensors_give_the_same_volume(height: int, width: int):
    """Two keyframes, motions that turn, that leave the image and that go behind the camera, hypotheses per cell.

    Gradients are for the tensors only, so that asking for them chooses.
    """
    g = torch.Generator().manual_seed(3)
    gray_k, *grays_j = torch.randn(3, 2, 1, height, width, generator=g).unbind()
    hypotheses = 0.2 + torch.rand(2, 5, height // 4, width // 4, generator=g)
    T_jk = se3.exp(0.2 * torch.randn(2, 2, 6, generator=g, dtype=torch.float64))
    T_jk[1, 0, 2, 3] = -1.5
    K = torch.tensor([[32.0, 0, (width - 1) / 2], [0, 32.0, (height - 1) / 2], [0, 0, 1]]).double().expand(2, 3, 3)
    loops = zncc_volume(gray_k, grays_j, T_jk, K, hypotheses)
    tensors = zncc_volume(gray_k.clone().requires_grad_(), grays_j, T_jk, K, hypotheses)
    assert tensors.requires_grad and (loops != 0).any()
    torch.testing.assert_close(loops, tensors.detach(), rtol=0, atol=2e-3)


def test_a_pose_that_is_not_finite_reads_no_foreign_memory():
    T_jk, K = camera([float("nan")])
    found = zncc_volume(image(0), [image(6)], T_jk, K, wide_hypotheses(torch.tensor([0.4]), torch.tensor([1.6]), 7))
    assert found.shape == (1, 7, H // 4, W // 4, 2)

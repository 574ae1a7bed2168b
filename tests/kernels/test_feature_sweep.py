import pytest
import torch

from slam.geometry import se3
from slam.kernels.feature_sweep import correlation_volume


@pytest.mark.parametrize(("height", "width", "channels", "groups"), [(9, 14, 16, 8), (12, 16, 6, 2), (2, 5, 3, 3)])
@pytest.mark.parametrize("per_cell", [False, True])
def test_loops_and_tensors_give_the_same_volume(height: int, width: int, channels: int, groups: int, per_cell: bool):
    """Two keyframes, motions that turn, that leave the image and that go behind the camera.

    Gradients are for the tensors only, so that asking for them chooses.
    """
    g = torch.Generator().manual_seed(1)
    matching_k, *matching_j = torch.randn(4, 2, channels, height, width, generator=g).unbind()
    hypotheses = 0.2 + torch.rand(2, 7, *((height, width) if per_cell else (1, 1)), generator=g)
    T_jk = se3.exp(0.15 * torch.randn(2, 3, 6, generator=g, dtype=torch.float64))
    T_jk[1, 0, 2, 3] = -1.5
    K = torch.tensor([[8.0, 0, (width - 1) / 2], [0, 9.0, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    given = (matching_j, T_jk, K.expand(2, 3, 3), hypotheses, groups)
    loops = correlation_volume(matching_k, *given)
    tensors = correlation_volume(matching_k.clone().requires_grad_(), *given)
    assert tensors.requires_grad and loops.shape == (2, 7, height, width, groups + 1)
    assert 0 < loops[..., -1].mean() < 1  # some places are seen, some are not
    torch.testing.assert_close(loops, tensors.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradients", [False, True])
def test_the_last_pixel_is_seen_and_what_lies_beyond_it_reads_zero(gradients: bool):
    """Camera moved by two pixels at inverse depth 1, along powers of two for exact places: k's u is u + 2 of j."""
    features = torch.rand(1, 1, 3, 8).requires_grad_(gradients)
    T_jk = torch.eye(4)[None, None].clone()
    T_jk[..., 0, 3] = 0.5
    K = torch.tensor([[[4.0, 0, 4], [0, 4, 1], [0, 0, 1]]])
    volume = correlation_volume(features, [features], T_jk, K, torch.ones(1, 1, 1, 1), 1)[0, 0].detach()
    image = features.detach()[0, 0]
    torch.testing.assert_close(volume[:, :6, 0], image[:, :6] * image[:, 2:], rtol=0, atol=1e-6)
    assert (volume[:, :6, 1] == 1).all() and (volume[:, 6:] == 0).all()


def test_a_pose_that_is_not_finite_sees_nothing():
    features = torch.ones(1, 4, 6, 8)
    T_jk = torch.full((1, 1, 4, 4), float("nan"))
    K = torch.tensor([[[5.0, 0, 3.5], [0, 5, 2.5], [0, 0, 1]]])
    assert correlation_volume(features, [features], T_jk, K, torch.ones(1, 3, 1, 1), 2).abs().max() == 0

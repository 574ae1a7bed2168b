"""What a wrong sign or convention would break: on a plane whose images, depths and poses are exact."""

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import sample
from slam.training.data import make_batch
from slam.training.self_supervision import (
    SelfSupervisionConfig,
    depth_scale,
    inconsistency,
    one_way_loss,
    pair_loss,
    photometric_error,
    smoothness,
    structural_similarity,
    warp_view,
)
from slam.training.validation import NO_CHANGE

Pair = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor, Tensor]
BARE = SelfSupervisionConfig(auto_mask=False, inconsistency_mask=False)


@pytest.fixture
def pair(plane_clip) -> Pair:
    """Images, true inverse depths, T_ba and K of two views."""
    clip = plane_clip(torch.Generator().manual_seed(3), views=2)
    batch = make_batch([clip], 2, NO_CHANGE, torch.Generator().manual_seed(0), torch.device("cpu"))
    T_ba = se3.inverse(batch.T_wc[:, 1]) @ batch.T_wc[:, 0]
    images, depths = batch.images.float(), batch.inv_depth
    return (images[:, 0], images[:, 1]), (depths[:, 0], depths[:, 1]), T_ba, batch.K


def losses(pair: Pair, T_ba: Tensor | None = None, config: SelfSupervisionConfig = BARE) -> dict[str, float]:
    images, depths, T, K = pair
    return {k: float(v) for k, v in pair_loss(images, depths, T if T_ba is None else T_ba, K, config)[1].items()}


def test_the_truth_is_consistent_and_every_wrong_convention_is_not(pair):
    (a, b), (d_a, d_b), T_ba, K = pair
    right = losses(pair)
    assert right["geometry"] < 1e-3 and right["photometric"] < 0.02
    negated, transposed = T_ba.clone(), T_ba.clone()
    negated[:, :3, 3] *= -1
    transposed[:, :3, :3] = T_ba[:, :3, :3].mT
    wrong = [losses(pair, T) for T in (se3.inverse(T_ba), negated, transposed)]
    wrong.append(losses(((a, b), (1 / d_a, 1 / d_b), T_ba, K)))
    for found in wrong:
        assert found["photometric"] > 2 * right["photometric"]
    assert all(found["geometry"] > 5 * right["geometry"] for found in wrong)


def test_near_points_move_more_to_the_left_where_the_camera_moves_to_the_right():
    """A ramp sampled between pixels is exact, so the warped image tells by how much."""
    K = torch.tensor([[[20.0, 0, 15.5], [0, 20, 11.5], [0, 0, 1]]], dtype=torch.float64)
    T_ba = se3.identity()[None].clone()
    T_ba[0, 0, 3] = -0.1  # camera b stands 0.1 to the right of a
    ramp = torch.arange(32.0).expand(1, 3, 24, 32) / 32
    depths = torch.full((1, 24, 32), 0.25), torch.full((1, 24, 32), 0.75)
    shifts = [(warp_view(ramp, d, d, T_ba, K).image - ramp)[0, 0, 12, 16] * 32 for d in depths]
    torch.testing.assert_close(torch.stack(shifts), torch.tensor([-0.5, -1.5]), rtol=0, atol=1e-4)
    half = sample(ramp, torch.tensor([[[[7.5, 3.5]]]]))
    torch.testing.assert_close(half[0, 0, 0, 0], torch.tensor(7.5 / 32))


def test_inconsistency_is_symmetric_and_free_of_the_unit():
    first, second = torch.tensor([1.0, 2.0, 0.01]), torch.tensor([2.0, 2.0, 5.0])
    torch.testing.assert_close(inconsistency(first, second), inconsistency(second, first))
    torch.testing.assert_close(inconsistency(1 / first, 1 / second), inconsistency(first, second))
    assert inconsistency(first, second)[0] == pytest.approx(1 / 3) and inconsistency(first, second)[1] == 0
    assert 0.99 < inconsistency(first, second)[2] <= 1


def test_the_unit_is_free_for_depths_and_translation_together_but_not_for_one_of_them(pair):
    images, (d_a, d_b), T_ba, K = pair
    scaled = T_ba.clone()
    scaled[:, :3, 3] /= 0.37
    right = losses(pair)
    assert losses((images, (0.37 * d_a, 0.37 * d_b), scaled, K)) == pytest.approx(right, abs=1e-5)
    for wrong in (losses((images, (d_a, 0.37 * d_b), T_ba, K)), losses(pair, scaled)):
        assert wrong["geometry"] > 10 * right["geometry"]
    s = depth_scale(d_a.flatten(), (d_a / 0.37).flatten())  # the map's depths are 0.37 of the network's
    assert float(s) == pytest.approx(1 / 0.37)


def test_a_mirrored_pair_has_the_same_loss(pair):
    images, depths, T_ba, K = pair
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    K_mirrored = K.clone()
    K_mirrored[:, 0, 2] = images[0].shape[-1] - 1 - K[:, 0, 2]
    flipped = tuple(x.flip(-1) for x in images), tuple(x.flip(-1) for x in depths), mirror @ T_ba @ mirror, K_mirrored
    assert losses(flipped) == pytest.approx(losses(pair), abs=1e-4)


def test_identical_images_and_points_behind_the_camera_give_nothing_and_no_nan(pair):
    (a, _), (d_a, _), _, K = pair
    config = SelfSupervisionConfig()
    d = d_a.clone().requires_grad_()
    still = one_way_loss(a, a, d, d, se3.identity()[None], K, config)
    assert still["photometric"].item() == 0
    behind = se3.exp(torch.tensor([[0, 0, 0, 0, 3.1, 0.0]], dtype=torch.float64))
    gone = one_way_loss(a, a, d, d, behind, K, config)
    assert gone["photometric"].item() == gone["geometry"].item() == 0
    sum([*still.values(), *gone.values()]).backward()
    assert torch.isfinite(d.grad).all()


def test_a_depth_too_near_is_pushed_away_and_without_translation_nothing_is(pair):
    """The images alone tell: b is what a constant depth of 1 would show, the guess is 10 % too near."""
    (a, _), (d_a, _), _, K = pair
    T_ba = se3.identity()[None].clone()
    T_ba[0, 0, 3] = 0.05
    ones = torch.ones_like(d_a)
    b = warp_view(a, ones, ones, se3.inverse(T_ba), K).image
    d = (1.1 * ones).requires_grad_()
    one_way_loss(a, b, d, d.detach(), T_ba, K, BARE)["photometric"].backward()
    assert d.grad.sum() > 0  # less inverse depth, less loss
    d = (1.1 * ones).requires_grad_()
    turned = se3.exp(torch.tensor([[0, 0, 0, 0, 0.02, 0.0]], dtype=torch.float64))
    one_way_loss(a, b, d, d.detach(), turned, K, BARE)["photometric"].backward()
    assert d.grad.abs().max() < 1e-6


def test_the_geometry_loss_moves_both_depths_and_the_masks_none(pair):
    """A weight that could be lowered by disagreeing would pay for it."""
    (a, b), (d_a, d_b), T_ba, K = pair
    d_a, d_b = (1.2 * d_a).requires_grad_(), d_b.clone().requires_grad_()
    found = one_way_loss(a, b, d_a, d_b, T_ba, K)
    to_a, to_b = torch.autograd.grad(found["geometry"], (d_a, d_b), retain_graph=True)
    assert to_a.abs().sum() > 0 and to_b.abs().sum() > 0
    (to_b,) = torch.autograd.grad(found["photometric"], d_b, allow_unused=True)
    assert to_b is None or to_b.abs().max() == 0  # it enters the photometric loss through the mask alone


def test_similarity_and_smoothness():
    images = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(structural_similarity(images, images), torch.ones_like(images))
    assert photometric_error(images, images).max() < 1e-6 < photometric_error(images, 1 - images).mean()
    flat, step = torch.full((1, 12, 16), 0.5), torch.ones(1, 12, 16)
    step[..., 8:] = 2
    edge = torch.zeros(1, 3, 12, 16)
    edge[..., 8:] = 1
    assert float(smoothness(flat, images)) == 0
    assert 0 < float(smoothness(step, edge)) < float(smoothness(step, torch.zeros_like(edge)))
    torch.testing.assert_close(smoothness(3 * step, edge), smoothness(step, edge))

"""Inverse depth with its uncertainty: the one rule of confidence, and what happens to both on the way."""

import pytest
import torch

from slam.geometry import se3
from slam.inv_depth import DECIDED_SIGMA, HALF_CONFIDENT, UNMEASURED_SIGMA, InvDepth, normalized_convolution


def sure(value: torch.Tensor, relative_sigma: float = 0.01) -> InvDepth:
    return InvDepth(value, relative_sigma * value)


def test_confidence_is_one_half_at_a_tenth_and_falls_with_the_square():
    """1 / (1 + (10 r)^2) at the relative sigma r, whatever the unit of length; 0 where nothing is known."""
    relative = torch.tensor([0.0, 0.05, HALF_CONFIDENT, 0.3, 1.0])
    expected = [1.0, 0.8, 0.5, 0.1, 1 / 101]
    for unit in (1e-3, 1.0, 1e3):
        depth = InvDepth(torch.full((5,), unit), unit * relative)
        assert depth.confidence.tolist() == pytest.approx(expected, rel=1e-5)
    assert InvDepth(torch.zeros(2), torch.tensor([0.0, 1.0])).confidence.tolist() == [0, 0]


def test_sigma_from_a_confidence_is_the_inverse_and_bounded():
    value, confidence = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([0.5, 0.8, 0.3])
    depth = InvDepth.from_confidence(value, confidence)
    torch.testing.assert_close(depth.confidence, confidence)
    assert depth.relative_sigma.tolist() == pytest.approx([0.1, 0.05, 0.1527525], rel=1e-5)
    ends = InvDepth.from_confidence(torch.ones(2), torch.tensor([0.0, 1.0]))
    assert torch.isfinite(ends.sigma).all() and (ends.sigma > 0).all()
    assert ends.confidence.tolist() == pytest.approx([0.01, 0.9999], rel=1e-4)


def test_a_measurement_replaces_what_it_knows_and_nothing_else():
    base, measured = sure(torch.full((2, 3), 0.5)), torch.zeros(2, 3)
    measured[0, 1] = 0.8
    both = base.composited(sure(measured, 0.002))
    assert float(both.value[0, 1]) == pytest.approx(0.8) and float(both.sigma[0, 1]) == pytest.approx(0.0016)
    kept = torch.ones(2, 3, dtype=torch.bool)
    kept[0, 1] = False
    assert torch.equal(both.value[kept], base.value[kept]) and torch.equal(both.sigma[kept], base.sigma[kept])


def test_another_unit_of_length_changes_both_and_not_the_confidence():
    depth = InvDepth(torch.rand(4, 5) + 0.1, torch.rand(4, 5))
    twice = depth.rescaled(2.0)
    torch.testing.assert_close(twice.value, depth.value / 2)
    torch.testing.assert_close(twice.confidence, depth.confidence)
    assert depth.rescaled(1.0) is depth


def test_a_wall_seen_from_nearer_has_the_exact_inverse_depth_and_keeps_its_confidence(wall_and_box):
    K, H, W = wall_and_box.K.clone(), 48, 64
    K[:2, 2] = torch.tensor([(W - 1) / 2, (H - 1) / 2])
    forward = wall_and_box.moved(z=-0.4)  # camera 0.4 nearer to the wall at depth 2
    moved = sure(torch.full((H, W), 0.5), 0.07).warped(forward, K)
    assert moved.known.float().mean() > 0.95
    torch.testing.assert_close(moved.value[moved.known], torch.full_like(moved.value[moved.known], 1 / 1.6))
    torch.testing.assert_close(moved.relative_sigma[moved.known], torch.full_like(moved.value[moved.known], 0.07))
    assert not moved.sigma[~moved.known].any()


def test_warp_agrees_with_the_truth_of_the_other_view(world, wall_and_box):
    """Each point covers the 2x2 pixels around it, so off the edges the error is the slope of one pixel."""
    a, b = wall_and_box.moved(), wall_and_box.moved(0.12, -0.06, 0.05, 0.02, -0.03, 0.04)
    truth_a, truth_b = world.inv_depth(a), world.inv_depth(b)
    moved = sure(truth_a).warped(b @ se3.inverse(a), wall_and_box.K)
    error = (moved.value - truth_b).abs()[moved.known]
    assert moved.known.float().mean() > 0.8
    assert float(error.quantile(0.9)) < 0.003 and float(error.median()) < 0.001
    assert float((truth_a - truth_b).abs().median()) > 0.01  # leaving it where it was would fail


def test_the_nearest_wins_whatever_comes_first(wall_and_box):
    for near_first in (True, False):
        inv_depth = torch.zeros(40, 60)
        near, far = (10, 17) if near_first else (20, 12)
        inv_depth[5, near], inv_depth[5, far] = 1.0, 0.3
        flow = 140 * torch.tensor([1.0, 0.3])  # pixels that a step of one unit moves them
        step = (far - near) / float(flow[0] - flow[1])  # after it both are in one column
        moved = sure(inv_depth, 0.5).warped(wall_and_box.moved(x=step), wall_and_box.K)
        column = round(near + step * float(flow[0]))
        assert float(moved.value[5, column]) == 1.0 and float(moved.sigma[5, column]) == 0.5
        assert float(moved.value.max()) == 1.0 and not moved.known[:5].any()


def test_unknown_depth_and_points_behind_land_nowhere(wall_and_box):
    inv_depth = torch.zeros(40, 60)
    inv_depth[:20] = 2.0  # depth 0.5, passed by the camera
    moved = sure(inv_depth).warped(wall_and_box.moved(z=-1.0), wall_and_box.K)
    assert not moved.known.any() and not moved.sigma.any()


def test_inpainting_keeps_what_is_known_and_says_that_the_rest_is_not_measured():
    value = torch.zeros(30, 40)
    value[:, :20] = 0.8
    depth = sure(value).inpainted()
    assert torch.equal(depth.value[:, :20], value[:, :20]) and float(depth.relative_sigma[5, 5]) == pytest.approx(0.01)
    torch.testing.assert_close(depth.value[:, 20:], torch.full((30, 20), 0.8), rtol=1e-3, atol=0)
    torch.testing.assert_close(depth.relative_sigma[:, 20:], torch.full((30, 20), UNMEASURED_SIGMA))


def test_a_fitted_prior_has_the_unit_of_what_is_known_and_its_own_shape():
    """A ramp that the prior tells in a unit three times too large, known in one half alone: the other half follows."""
    ramp = torch.linspace(0.2, 1.0, 40).expand(30, 40)
    value = torch.where(torch.arange(40) < 20, ramp, 0.0)
    prior = InvDepth(ramp / 3, 0.4 * ramp / 3)
    fitted = sure(value).fitted(prior)
    torch.testing.assert_close(fitted.value, ramp, rtol=1e-3, atol=0)
    torch.testing.assert_close(fitted.relative_sigma, torch.full((30, 40), UNMEASURED_SIGMA))  # whatever it says itself


def test_the_ratio_to_a_prior_continues_smoothly_between_what_is_known():
    """It is 1 at the left border and 2 at the right one."""
    prior = InvDepth(torch.full((30, 60), 0.5), torch.full((30, 60), 0.25))
    value = torch.zeros(30, 60)
    value[:, :10], value[:, -10:] = 0.5, 1.0
    ratio = sure(value).fitted(prior).value / prior.value
    assert abs(float(ratio[15, 2]) - 1) < 0.02 and abs(float(ratio[15, -3]) - 2) < 0.02
    assert abs(float(ratio[15, 30]) - 1.5) < 0.1
    assert float(ratio.diff(dim=1).abs().max()) < 0.1  # no edge where the known part ends
    assert float(ratio.min()) > 0.99 and float(ratio.max()) < 2.01


def test_sure_depth_decides_the_unit_of_a_prior():
    """Half of it is known for sure, the other half is a guess in another unit, of confidence 0.01."""
    value = torch.full((20, 30), 0.5)
    value[:, 15:] = 4.0
    sigma = torch.where(torch.arange(30) < 15, 0.005 * value, value)
    fitted = InvDepth(value, sigma).fitted(InvDepth(torch.ones(20, 30), 0.3 * torch.ones(20, 30)))
    assert abs(float(fitted.value[10, 3]) - 0.5) < 0.01 and float(fitted.value[10, 16]) < 1.0


def test_a_prior_stays_itself_where_nothing_is_known():
    prior = InvDepth(torch.rand(6, 8) + 0.1, torch.rand(6, 8))
    assert InvDepth.unknown((6, 8)).fitted(prior) is prior


def test_decided_is_what_is_known_better_than_a_guess():
    value = torch.tensor([2.0, 2.0, 0.0, 0.01])
    sigma = torch.tensor([0.99 * DECIDED_SIGMA * 2, 1.01 * DECIDED_SIGMA * 2, 0.0, 0.001])
    depth = InvDepth(value, sigma)
    assert depth.decided.tolist() == [True, False, False, True] and depth.decided_share == 0.5
    assert depth.rescaled(1e3).decided.tolist() == depth.decided.tolist()
    assert InvDepth.unknown((2, 2)).decided_share == 0.0


def test_sure_depth_outweighs_unsure_depth_beside_it():
    """The confidences are 0.99 and 0.01: what they continue into is the sure one's."""
    value, sigma = torch.zeros(20, 30), torch.zeros(20, 30)
    value[:, :10], sigma[:, :10] = 0.5, 0.005
    value[:10, 10:14], sigma[:10, 10:14] = 2.0, 2.0
    assert float(InvDepth(value, sigma).inpainted().value[5, 18]) < 0.65  # by their areas alone 1.0


def test_a_prior_that_fits_worse_than_a_constant_is_not_used():
    """Half of a wall is known; a prior that slants the right way goes on over the other half, one that slants the wrong
    way gives way to what is known, continued."""
    slant = torch.linspace(0.5, 1.5, 40).expand(30, 40)
    known = torch.where(torch.arange(40) < 20, slant, 0.0)
    wall = InvDepth(known, 0.02 * known)
    right, wrong = (wall.fitted(InvDepth(3 * shape, shape)).value[:, 38] for shape in (slant, slant.flip(1)))
    assert float(right.mean()) == pytest.approx(float(slant[0, 38]), rel=0.05)
    assert 0.7 < float(wrong.mean()) < 1.05  # the prior would say 0.3


def test_normalized_convolution_keeps_constants_and_continues_smoothly():
    value, weight = torch.zeros(30, 40), torch.zeros(30, 40)
    value[:, :20], weight[:, :20] = 0.8, 1.0
    torch.testing.assert_close(normalized_convolution(value, weight), torch.full((30, 40), 0.8), rtol=1e-4, atol=0)


def test_normalized_convolution_takes_the_values_nearby_and_ignores_those_without_weight():
    value, weight = torch.full((30, 60), 9.0), torch.zeros(30, 60)
    value[:, :10], weight[:, :10] = 0.5, 1.0
    value[:, -10:], weight[:, -10:] = 1.5, 1.0
    out = normalized_convolution(value, weight)
    assert abs(float(out[15, 2]) - 0.5) < 0.01 and abs(float(out[15, -3]) - 1.5) < 0.01
    assert abs(float(out[15, 30]) - 1.0) < 0.1
    assert float(out[15, 14]) < 0.7 and float(out[15, 45]) > 1.3
    assert float(out.min()) > 0.49 and float(out.max()) < 1.51


def test_normalized_convolution_of_nothing_is_unknown():
    assert not normalized_convolution(torch.zeros(8, 8), torch.zeros(8, 8)).any()
    value = torch.zeros(20, 20)
    value[:, :10] = 0.5
    out = normalized_convolution(value, torch.ones(20, 20))
    assert abs(float(out[10, 19]) - 0.5) < 0.01  # 0 is unknown, whatever its weight


def test_upsampling_puts_the_cells_at_their_centres():
    """A ramp over the cells is the same ramp over the pixels: cell c is centred at pixel 4 c + 1.5."""
    cells = (4 * torch.arange(8.0) + 1.5).expand(6, 8)
    fine = InvDepth(cells, 2 * cells).upsampled((24, 32))
    torch.testing.assert_close(fine.value[:, 2:-2], torch.arange(2.0, 30.0).expand(24, 28))
    torch.testing.assert_close(fine.sigma, 2 * fine.value)


def test_subsampling_keeps_the_first_row_and_column():
    value = torch.arange(35.0).view(5, 7) + 1
    half = sure(value).subsampled(2)
    assert half.value.tolist() == value[::2, ::2].tolist() and half.size == (3, 4)

"""What a tracked view becomes as a keyframe: depth carried over from the reference, measured, or inpainted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.frames import UNNUMBERED, Estimate, Status
from slam.geometry import se3
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.mapping.fusion import FusionConfig
from slam.mapping.promotion import CARRIED_SIGMA, carried_depth, promote
from slam.stereo.prior import PriorConfig

STRIDE = 4


@pytest.fixture(scope="module")
def motion(wall_and_box):
    """To the side, so that a part of the wall comes into view."""
    return wall_and_box.moved(0.3, 0.02, -0.05, 0, 0.02, 0)


@pytest.fixture(scope="module")
def reference(world):
    return world.keyframe(se3.identity(), 7)


def estimate(reference, T_ck) -> Estimate:
    T_wc = reference.T_wc @ se3.inverse(T_ck)
    return Estimate(41, 9, Status.TRACKING, reference.id, T_ck, reference.scale, T_wc)


def test_a_promoted_view_has_the_pose_of_its_estimate_and_the_reference_as_its_parent(world, reference, motion):
    view = world.view(motion, 41)
    keyframe = promote(view, estimate(reference, motion), replace(reference, metric=True), STRIDE)
    assert (keyframe.id, keyframe.parent_id, keyframe.metric) == (UNNUMBERED, 7, True)
    assert keyframe.view is view and keyframe.scale == 1.0 and not keyframe.refined and keyframe.keypoints is None
    torch.testing.assert_close(keyframe.T_wc, se3.inverse(motion))
    assert keyframe.dense.size == view.image.size and keyframe.coarse.size == (30, 40)


def test_depth_is_carried_over_where_the_reference_saw_it_and_inpainted_elsewhere(world, reference, motion):
    keyframe = promote(world.view(motion), estimate(reference, motion), reference, STRIDE)
    carried, truth = carried_depth(reference, motion, STRIDE), world.cell_inv_depth(motion)
    seen = carried.known
    assert 0.7 < seen.float().mean() < 0.95  # of it the rest came into view
    assert torch.equal(keyframe.coarse.value[seen], carried.value[seen])
    assert float((keyframe.coarse.value / truth - 1).abs()[seen].median()) < 0.01
    assert keyframe.coarse.known.all()
    assert keyframe.coarse.relative_sigma[~seen].tolist() == pytest.approx(
        [UNMEASURED_SIGMA] * int((~seen).sum()), rel=1e-5
    )


def test_carried_depth_is_less_sure_by_the_carried_sigma(reference, motion):
    """Its own 1 % and CARRIED_SIGMA, independent of each other."""
    carried = carried_depth(reference, motion, STRIDE)
    expected = (0.01**2 + CARRIED_SIGMA**2) ** 0.5
    assert carried.relative_sigma[carried.known].tolist() == pytest.approx(
        [expected] * int(carried.known.sum()), rel=1e-4
    )


def test_measured_depth_comes_first_but_only_in_a_metric_map(world, reference, motion):
    depth = np.zeros((120, 160), np.float32)
    depth[:, 80:] = 3.0
    view = replace(world.view(motion), sensor_depth=depth)
    metric = promote(view, estimate(reference, motion), replace(reference, metric=True), STRIDE)
    torch.testing.assert_close(metric.coarse.value[:, 21:], torch.full((30, 19), 1 / 3))
    torch.testing.assert_close(metric.dense.value[:, 80:], torch.full((120, 80), 1 / 3))
    assert metric.view.sensor_depth is not None and metric.coarse.confidence[:, 22:].min() > 0.9
    other = promote(view, estimate(reference, motion), reference, STRIDE)
    assert other.view.sensor_depth is None and float((other.coarse.value[:, 21:] - 1 / 3).abs().median()) > 0.05


def test_a_reference_that_sees_nothing_of_it_leaves_everything_unmeasured(world, wall_and_box, reference):
    away = wall_and_box.moved(ry=2.5)  # turned around
    keyframe = promote(world.view(away), estimate(reference, away), reference, STRIDE)
    assert torch.isfinite(keyframe.coarse.value).all()
    assert not (keyframe.coarse.confidence > 0.02).any()


def guess(world, T_cw, factor: float = 5.0) -> InvDepth:
    """The true shape in a unit of its own, as sure as a prior may be at most."""
    truth = world.cell_inv_depth(T_cw)
    return InvDepth(factor * truth, PriorConfig().min_deviation * factor * truth)


def test_what_comes_into_view_has_the_depth_of_the_prior_in_the_unit_of_the_map(world, reference, motion):
    """Inpainting would continue the slanted wall as if it stood square to the view."""
    prior = guess(world, motion)
    keyframe = promote(world.view(motion), estimate(reference, motion), reference, STRIDE, prior)
    plain = promote(world.view(motion), estimate(reference, motion), reference, STRIDE)
    carried, truth = carried_depth(reference, motion, STRIDE), world.cell_inv_depth(motion)
    seen = carried.known
    assert torch.equal(keyframe.coarse.value[seen], carried.value[seen])
    assert torch.equal(keyframe.coarse.sigma[seen], carried.sigma[seen])
    filled, inpainted = ((k.coarse.value / truth - 1).abs()[~seen].median() for k in (keyframe, plain))
    assert filled < 0.02 and filled < 0.5 * inpainted
    assert keyframe.prior is prior and keyframe.coarse.known.all()
    torch.testing.assert_close(keyframe.dense.value, keyframe.coarse.upsampled((120, 160)).value)


def test_what_the_prior_filled_in_is_never_sure_enough_for_the_map(world, reference, motion):
    keyframe = promote(world.view(motion), estimate(reference, motion), reference, STRIDE, guess(world, motion))
    filled = ~carried_depth(reference, motion, STRIDE).known
    assert keyframe.coarse.relative_sigma[filled].tolist() == pytest.approx([UNMEASURED_SIGMA] * int(filled.sum()))
    assert keyframe.coarse.confidence[filled].max() < 0.5 * FusionConfig().min_confidence
    assert keyframe.coarse.confidence[~filled].min() > FusionConfig().min_confidence  # carried ones pass
    assert not keyframe.coarse.decided[filled].any()


def test_a_view_turned_away_has_the_prior_itself(world, wall_and_box, reference):
    """Of a keyframe that shows nothing of it: no unit is known but that of the prior."""
    away = wall_and_box.moved(ry=2.5)
    prior = InvDepth(torch.full((30, 40), 0.7), torch.full((30, 40), 0.35))
    keyframe = promote(world.view(away), estimate(reference, away), reference, STRIDE, prior)
    assert torch.equal(keyframe.coarse.value, prior.value) and torch.equal(keyframe.coarse.sigma, prior.sigma)
    assert keyframe.is_guessed and not keyframe.awaits_parallax  # its pose was no guess


def test_a_keyframe_awaits_parallax_while_it_was_tracked_against_a_guess_and_is_one(world, wall_and_box, reference):
    away, prior = wall_and_box.moved(ry=2.5), InvDepth(torch.ones(30, 40), torch.full((30, 40), 0.5))
    guessed = replace(estimate(reference, away), parallax_px=0.2)
    keyframe = promote(world.view(away), guessed, reference, STRIDE, prior)
    assert keyframe.on_guess and keyframe.awaits_parallax
    assert not replace(keyframe, coarse=reference.coarse).awaits_parallax  # once views decided its depth
    assert not replace(keyframe, prior=None).awaits_parallax  # without a prior nothing is a guess
    kept = promote(world.view(away), estimate(reference, away), reference, STRIDE, prior)
    assert not kept.on_guess

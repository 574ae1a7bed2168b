"""What a tracked view becomes as a keyframe: depth carried over from the reference, measured, or inpainted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.frames import UNNUMBERED, Estimate, Status
from slam.geometry import se3
from slam.inv_depth import UNMEASURED_SIGMA
from slam.mapping.promotion import CARRIED_SIGMA, carried_depth, promote

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

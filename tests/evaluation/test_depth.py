"""Depth errors, by hand."""

import numpy as np
import pytest

from slam.errors import EvaluationError
from slam.evaluation.depth import (
    compare_depth,
    keyframe_depths,
    mean_depth,
    resized_nearest,
    stamped_images,
    without_strays,
)
from slam.io.images import write_depth

TRUTH = np.array([[1.0, 2.0, 4.0], [4.0, 0.0, 10.0]])


def test_depth_errors_by_hand():
    """One of four pixels is 50 % too far, the rest exact; the fifth has no estimate, the sixth no truth."""
    depth = np.array([[1.0, 3.0, 4.0], [4.0, 7.0, 0.0]])
    result = compare_depth(depth, TRUTH)
    assert (result.pixels, result.scale, result.confident_share) == (4, 1.0, 0.8)
    assert result.abs_rel == pytest.approx(0.5 / 4)
    assert result.rmse == pytest.approx(0.5)
    assert result.delta_125 == 0.75


def test_median_scaling_undoes_the_unit():
    depth = 0.2 * TRUTH
    result = compare_depth(depth, TRUTH)
    assert result.scale == pytest.approx(5.0)
    assert (result.abs_rel, result.delta_125) == (pytest.approx(0.0, abs=1e-15), 1.0)
    assert compare_depth(depth, TRUTH, scale=1.0).abs_rel == pytest.approx(0.8)
    assert compare_depth(depth, TRUTH, scale=1.0).delta_125 == 0.0


def test_delta_counts_too_near_and_too_far_alike():
    truth = np.full((1, 4), 2.0)
    depth = 2.0 * np.array([[1.24, 1 / 1.24, 1.26, 1 / 1.26]])
    assert compare_depth(depth, truth, scale=1.0).delta_125 == 0.5


def test_pixels_below_the_confidence_are_left_out():
    depth = TRUTH.copy()
    depth[0, 0] = 50.0
    confidence = np.array([[0.49, 0.5, 1.0], [1.0, 1.0, 1.0]])
    result = compare_depth(depth, TRUTH, confidence, min_confidence=0.5)
    assert (result.abs_rel, result.pixels, result.confident_share) == (0.0, 4, 0.8)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(EvaluationError, match="5 of 6 have ground truth"):
        compare_depth(TRUTH, TRUTH, np.zeros_like(TRUTH))
    with pytest.raises(EvaluationError, match="no depth map"):
        mean_depth([])
    with pytest.raises(ValueError, match="one shape"):
        compare_depth(TRUTH, TRUTH[:1])


def test_mean_weighs_each_map_the_same():
    small, large = np.full((1, 1), 2.0), np.full((9, 9), 2.0)
    mean = mean_depth([compare_depth(small, 1.5 * small, scale=1.0), compare_depth(large, large)])
    assert mean.abs_rel == pytest.approx((1 / 3 + 0) / 2)
    assert mean.pixels == 82


def test_nearest_resize_follows_the_pixel_centres():
    """Centres of 2 pixels lie at 1.5 and 4.5 of 6: pixels 1 and 4; never a blend."""
    image = np.arange(36.0).reshape(6, 6)
    np.testing.assert_array_equal(resized_nearest(image, 2, 2), image[[1, 4]][:, [1, 4]])
    np.testing.assert_array_equal(resized_nearest(image, 6, 6), image)
    np.testing.assert_array_equal(resized_nearest(image[:1, :2], 1, 4), [[0, 0, 1, 1]])


def test_stray_pixels_are_no_surface_and_edges_stay():
    depth = np.ones((9, 12), np.float32)
    depth[:, 6:] = 3.0
    depth[4, 3], depth[7, 9], depth[0, 0] = 2.0, 0.1, 0.0
    kept = without_strays(depth)
    assert kept[4, 3] == kept[7, 9] == kept[0, 0] == 0 and kept.dtype == np.float32
    others = np.ones_like(depth, bool)
    others[4, 3] = others[7, 9] = False
    assert (kept[others] == depth[others]).all()


def test_keyframes_without_common_pixels_are_counted_in_one_line(tmp_path, caplog):
    """Three keyframes: one is compared, one has no confident pixel, one no truth near in time."""
    truth = np.full((4, 6), 2.0, np.float32)
    for stamp in ("1.000000", "2.000000"):
        write_depth(tmp_path / f"{stamp}.png", truth)
    sure, unsure = np.ones_like(truth), np.zeros_like(truth)
    estimates = [(10**9, truth, sure), (2 * 10**9, truth, unsure), (5 * 10**9, truth, sure)]
    (result,) = keyframe_depths(estimates, stamped_images(tmp_path), 10**7)
    assert result.abs_rel == pytest.approx(0, abs=1e-6)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("1 keyframes of 2 are left out: at 2.000000000 s no pixel to compare")
    with pytest.raises(EvaluationError, match="no keyframe has true depth within"):
        keyframe_depths(estimates[2:], stamped_images(tmp_path), 10**7)

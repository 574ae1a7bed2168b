"""Errors between frames: zero on exact depth, as computed by hand on wrong depth, large on mistakes of convention."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from slam.errors import EvaluationError
from slam.evaluation.consistency import (
    MAX_PAIRS,
    frame_pairs,
    known_sample,
    log_ratio,
    photometric_error,
    reprojection_px,
    temporal_alignment_error,
    temporal_alignment_errors,
)
from slam.geometry import se3
from slam.geometry.camera import pixel_grid, sample

F64 = torch.float64
STILL = torch.eye(4, dtype=F64)


def edge(video, i=2, j=4):
    """Inverse depth of i and j (1, h, w), true positions of i in j (1, h, w, 2) by plain algebra, and T_ji."""
    d_i = video.inv_depth[i, None]
    uv1 = torch.cat([pixel_grid(*d_i.shape[1:], like=video.K), torch.ones(*d_i.shape[1:], 1, dtype=F64)], -1)
    p_i = uv1 @ torch.linalg.inv(video.K).mT / d_i[0, ..., None]
    T_ji = torch.linalg.inv(video.T_wc[j]) @ video.T_wc[i]
    p_j = (p_i @ T_ji[:3, :3].mT + T_ji[:3, 3]) @ video.K.mT
    return d_i, video.inv_depth[j, None], (p_j[..., :2] / p_j[..., 2:])[None].float(), T_ji[None]


def test_inverse_depth_of_a_slanted_wall_is_exact_between_pixels(wall):
    """To float32; depth itself, sampled, is off: 1 / z is linear in the image, z is not."""
    d = wall.inv_depth[:1]
    uv = pixel_grid(47, 63, like=d)[None] + 0.5
    between = d[:, :-1, :-1] + (d[:, 1:, 1:] - d[:, :-1, :-1]) / 2
    value, known = known_sample(d, uv)
    assert known.all()
    torch.testing.assert_close(value, between, rtol=2e-6, atol=0)
    assert (sample(1 / d[:, None], uv)[:, 0] * between - 1).abs().max() > 1e-5


def test_a_sample_is_known_where_all_pixels_that_contribute_are():
    d = torch.ones(1, 4, 5)
    d[0, 1, 2] = 0
    uv = torch.tensor([[[0.0, 0.0], [4.0, 3.0], [3.0, 1.0], [2.0, 1.0], [2.5, 1.0], [4.1, 1.0], [0.0, -0.1]]])
    value, known = known_sample(d, uv[:, None])
    assert known[0, 0].tolist() == [True, True, True, False, False, False, False]
    assert value[0, 0, :3].tolist() == pytest.approx([1, 1, 1])
    without = torch.ones(1, 4, 5, dtype=torch.bool)
    without[0, 0, 0] = False
    assert known_sample(d, uv[:, None], without)[1][0, 0, :3].tolist() == [False, True, True]


def test_exact_depth_is_consistent(video):
    """Off edges; measured 0.003 % of depth at most, from float32. With edges and what they hide 1.9 % at gap 10."""
    errors = temporal_alignment_errors(video.inv_depth, video.T_wc, video.K, video.off_edges)
    assert list(errors) == [1, 2, 5, 10] and max(errors.values()) < 0.01
    assert 0 <= temporal_alignment_error(video.inv_depth, video.T_wc, video.K, 10) < 2.5


def test_mistakes_of_convention_show(video, mutant):
    """Measured 1.3 % and more at gap 1, where the truth has 0.003."""
    for gap in (1, 5):
        right, wrong = (
            temporal_alignment_error(video.inv_depth, T_wc, video.K, gap, video.off_edges)
            for T_wc in (video.T_wc, mutant(video.T_wc))
        )
        assert wrong > max(10 * right, 0.5)


def test_the_unit_of_length_does_not_matter(video):
    T_wc = video.T_wc.clone()
    T_wc[:, :3, 3] *= 2.7
    d = 0.9 * video.inv_depth + 0.02  # inconsistent
    for f in (temporal_alignment_error, lambda *rest: photometric_error(video.images, *rest)):
        assert f(d / 2.7, T_wc, video.K, 2) == pytest.approx(f(d, video.T_wc, video.K, 2), rel=1e-4)
        assert f(d, T_wc, video.K, 2) != pytest.approx(f(d, video.T_wc, video.K, 2), rel=0.1)


def test_alignment_error_by_hand():
    """A still camera; depth 1 and 1.25: 0.25 / 1.25 one way, 0.25 / 1 the other. Depth 1 and 4: the cap both ways."""
    K = torch.tensor([[10.0, 0, 3], [0, 10, 2], [0, 0, 1]], dtype=F64)
    d, T_wc = torch.ones(2, 5, 7), STILL.expand(2, 4, 4)
    d[1] = 1 / 1.25
    assert temporal_alignment_error(d, T_wc, K, 1) == pytest.approx(100 * (0.2 + 0.25) / 2)
    d[1] = 1 / 4
    assert temporal_alignment_error(d, T_wc, K, 1) == pytest.approx(50)
    d[1, :, 3:] = 0  # 15 of 35 pixels are left
    d[1, :, 1:3] = 1
    assert temporal_alignment_error(d, T_wc, K, 1) == pytest.approx(50 / 3)


def test_alignment_error_of_a_camera_that_moves_forward_by_hand():
    """By 1, to a wall at depth 2 that frame 1 sees at 1.6. From 0 to 1 depth 1 meets 1.6, in the 3 x 3 pixels that stay
    inside when all moves twice as far from the centre; from 1 to 0 depth 2.6 meets 2, in all 35."""
    K = torch.tensor([[10.0, 0, 3], [0, 10, 2], [0, 0, 1]], dtype=F64)
    T_wc = STILL.repeat(2, 1, 1)
    T_wc[1, 2, 3] = 1.0
    d = 1 / torch.tensor([2.0, 1.6])[:, None, None].expand(2, 5, 7)
    expected = 100 * (9 * 0.6 / 1.6 + 35 * 0.6 / 2) / 44
    assert temporal_alignment_error(d, T_wc, K, 1) == pytest.approx(expected)


def test_both_ways_count(wall):
    d = wall.inv_depth * torch.linspace(1, 1.3, 12)[:, None, None]
    backwards = temporal_alignment_error(d.flip(0), wall.T_wc.flip(0), wall.K, 5)
    assert backwards == pytest.approx(temporal_alignment_error(d, wall.T_wc, wall.K, 5), rel=1e-6)


def test_pixels_outside_the_mask_count_in_neither_frame(wall):
    d, mask = wall.inv_depth.clone(), torch.ones_like(wall.inv_depth, dtype=torch.bool)
    d[3, 10:30, 20:40] *= 2
    mask[3, 10:30, 20:40] = False
    assert temporal_alignment_error(d, wall.T_wc, wall.K, 1) > 1
    assert temporal_alignment_error(d, wall.T_wc, wall.K, 1, mask) < 1e-3
    d[3, 10:30, 20:40] = 0
    assert temporal_alignment_error(d, wall.T_wc, wall.K, 1, torch.ones_like(mask)) < 1e-3
    images = wall.images.clone()
    images[3, :, 10:30, 20:40] = 1
    clean = photometric_error(wall.images, wall.inv_depth, wall.T_wc, wall.K, 1)
    assert photometric_error(images, wall.inv_depth, wall.T_wc, wall.K, 1) > 3 * clean
    assert photometric_error(images, wall.inv_depth, wall.T_wc, wall.K, 1, mask) < 1.1 * clean


def test_frames_without_common_depth_are_left_out(wall):
    d = wall.inv_depth.clone()
    d[1::2] = 0
    assert list(temporal_alignment_errors(d, wall.T_wc, wall.K, gaps=(1, 2, 11, 12))) == [2]
    with pytest.raises(EvaluationError, match="frames 1 apart"):
        temporal_alignment_error(d, wall.T_wc, wall.K, 1)
    with pytest.raises(EvaluationError, match="frames 1 apart"):
        photometric_error(torch.ones_like(wall.images), wall.inv_depth, wall.T_wc, wall.K, 1)


def test_pairs_are_spread_over_the_video_and_bounded():
    def pairs(count, gap):
        return [pair for i, j in frame_pairs(count, gap) for pair in zip(i.tolist(), j.tolist())]

    assert sorted(pairs(4, 2)) == [(0, 2), (1, 3), (2, 0), (3, 1)]
    many = pairs(5001, 10)
    first = sorted(i for i, j in many if j == i + 10)
    assert len(many) == 2 * MAX_PAIRS and sorted(j for i, j in many if j == i - 10) == first
    assert (first[0], first[-1]) == (0, 4990) and {b - a for a, b in pairwise(first)} == {25, 26}
    for gap in (0, 4):
        with pytest.raises(ValueError, match="gap must be in"):
            next(frame_pairs(4, gap))


def test_warping_by_exact_depth_explains_the_images(wall, mutant):
    """Measured 0.0035, from bilinear samples of the image; mistakes 0.75 and more."""
    exact = photometric_error(wall.images, wall.inv_depth, wall.T_wc, wall.K, 2)
    wrong = photometric_error(wall.images, wall.inv_depth, mutant(wall.T_wc), wall.K, 2)
    assert exact < 0.02 and wrong > 10 * exact


def test_exact_depth_explains_rendered_images_better_than_a_wall(room):
    """Measured 0.27 at 96x72, where textures are as fine as pixels; 0.52 with a wall instead."""
    flat = torch.full_like(room.inv_depth, float(room.inv_depth.median()))
    right, wrong = (photometric_error(room.images, d, room.T_wc, room.K, 5) for d in (room.inv_depth, flat))
    assert right < 0.35 and wrong > 1.5 * right


def test_without_motion_the_warp_changes_nothing(wall):
    """The ratio is 1 whatever the depth."""
    still = STILL.expand(12, 4, 4)
    assert photometric_error(wall.images, wall.inv_depth, still, wall.K, 1) == pytest.approx(1, abs=1e-4)


def test_exact_measurements_fit_exact_depth(room, wall):
    for video in (room, wall):
        d_i, d_j, uv, T_ji = edge(video)
        weight = video.off_edges[2, None].float()
        distance, cells = reprojection_px(d_i, uv, weight, T_ji, video.K, stride=4)
        assert distance.item() < 1e-3 and cells.item() == weight.sum()  # float32 pixels
    # of the wall alone, as nothing there is hidden
    ratio, cells = log_ratio(d_i, d_j, uv, weight, T_ji, video.K)
    assert ratio.item() < 1e-5 and 1000 < cells.item() < weight.sum()


def test_held_out_errors_see_mistakes_of_convention(wall, mutant):
    T_wc = mutant(wall.T_wc)
    d_i, d_j, uv, _ = edge(wall)
    T_ji = (se3.inverse(T_wc[4]) @ T_wc[2])[None]
    weight = torch.ones_like(d_i)
    assert reprojection_px(d_i, uv, weight, T_ji, wall.K)[0] > 1  # measured 4.4 and more
    assert log_ratio(d_i, d_j, uv, weight, T_ji, wall.K)[0] > 0.01


def test_held_out_errors_see_swapped_frames(wall):
    d_i, d_j, uv, T_ji = edge(wall)
    T_ij, weight = se3.inverse(T_ji), torch.ones_like(d_i)
    assert reprojection_px(d_i, uv, weight, T_ij, wall.K)[0] > 1
    assert reprojection_px(d_j, uv, weight, T_ij, wall.K)[0] > 1
    assert log_ratio(d_i, d_j, uv, weight, T_ij, wall.K)[0] > 0.02
    assert log_ratio(d_j, d_i, uv, weight, T_ji, wall.K)[0] > 0.02


def test_reprojection_by_hand(wall):
    """Of three edges, one is measured (3, 4) cells off in most cells, one has no cell, one is behind the camera."""
    d_i, _, uv, T_ji = edge(wall)
    d_i, uv, T_ji = d_i.repeat(3, 1, 1), uv.repeat(3, 1, 1, 1), T_ji.repeat(3, 1, 1)
    uv[0] += torch.tensor([3.0, 4.0])
    uv[0, :10] += 100.0
    weight = torch.full_like(d_i, 0.1)
    weight[0, 40:] = 0
    d_i[0, :, 60:] = 0
    weight[1] = 0
    T_ji[2, 2, 3] = -9.0
    error, cells = reprojection_px(d_i, uv, weight, T_ji, wall.K, stride=4)
    assert error.tolist() == pytest.approx([20, 0, torch.inf], abs=1e-3)
    assert cells.tolist() == [40 * 60, 0, 48 * 64]


def test_log_ratio_by_hand(wall):
    """j is 10 % nearer than i says; and it is read where the cell was measured, not where i says it is."""
    d_i, d_j, uv, T_ji = edge(wall)
    weight = torch.ones_like(d_i)
    weight[:, :5] = 0
    error, cells = log_ratio(d_i, 1.1 * d_j, uv, weight, T_ji, wall.K)
    assert error.item() == pytest.approx(torch.tensor(1.1).log().item(), rel=1e-4)
    assert cells < weight.sum()
    slope = d_j[0, 20, 21] - d_j[0, 20, 20]  # inverse depth per column, constant on a plane
    right, known = known_sample(d_j, uv + torch.tensor([1.5, 0]))
    known &= weight > 0
    expected = (right / (right - 1.5 * slope)).log().abs()[known].mean()
    error, cells = log_ratio(d_i, d_j, uv + torch.tensor([1.5, 0]), weight, T_ji, wall.K)
    assert error.item() == pytest.approx(expected.item(), rel=1e-3) and cells == known.sum()
    assert expected > 1e-3


def test_held_out_errors_do_not_depend_on_the_unit_of_length(wall):
    d_i, d_j, uv, T_ji = edge(replace(wall, inv_depth=wall.inv_depth + 0.1))
    scaled = T_ji.clone()
    scaled[:, :3, 3] *= 2.7
    weight, uv = torch.ones_like(d_i), uv + 0.3
    for k, T in ((1.0, T_ji), (2.7, scaled)):
        distance, _ = reprojection_px(d_i / k, uv, weight, T, wall.K)
        ratio, _ = log_ratio(d_i / k, d_j / k, uv, weight, T, wall.K)
        assert (distance.item(), ratio.item()) == pytest.approx((0.3 * 2**0.5, ratio.item()), rel=1e-3)
        if k == 1.0:
            first = ratio.item()
    assert ratio.item() == pytest.approx(first, rel=1e-4)

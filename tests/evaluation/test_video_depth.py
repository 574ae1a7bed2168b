"""Accuracy with one scale for a video, and the maps that are consistent without being right."""

import numpy as np
import pytest
import torch

from slam.errors import EvaluationError
from slam.evaluation.consistency import temporal_alignment_errors
from slam.evaluation.depth import DepthPair
from slam.evaluation.track_consistency import exact_tracks, track_drift, track_instability
from slam.evaluation.video_depth import (
    SAMPLED,
    constant_like,
    streamed_depth_errors,
    temporally_blurred,
    video_depth_errors,
)


def test_one_scale_for_all_frames():
    """Truth 2 m. Frame 0 says 1, frame 1 says 1.5 in 2 of its 6 pixels, frame 2 nothing: the scale is 2, and frame 1
    is 50 % too far, which a scale of its own would hide."""
    truth = torch.full((3, 2, 3), 1 / 2.0)
    inv_depth = torch.zeros(3, 2, 3)
    inv_depth[0] = 1.0
    inv_depth[1, 0, :2] = 1 / 1.5
    result = video_depth_errors(inv_depth, truth)
    assert result.scale == pytest.approx(2.0)
    assert result.abs_rel == pytest.approx((0 + 0.5) / 2)
    assert result.rmse == pytest.approx((0 + 1.0) / 2)
    assert result.delta_125 == pytest.approx(0.5)
    assert (result.pixels, result.confident_share) == (8, pytest.approx(8 / 18))
    assert video_depth_errors(inv_depth / 7, truth).abs_rel == pytest.approx(result.abs_rel)


def test_nothing_to_compare_is_an_error():
    d = torch.ones(2, 2, 3)
    with pytest.raises(EvaluationError, match="no pixel of the video"):
        video_depth_errors(d, 0 * d)
    with pytest.raises(ValueError, match="one shape"):
        video_depth_errors(d, d[:1])


def test_a_video_read_frame_by_frame_scores_as_one_in_memory():
    """Depth 5 % off at random, a fifth unknown, the last frame wholly; 2000 of each frame's 4800 pixels tell the scale,
    whose error is then 0.05 / sqrt(4 * 1600) = 0.06 % times 1.25 for a median."""
    generator = torch.Generator().manual_seed(0)
    truth = 1 + 3 * torch.rand(5, 60, 80, generator=generator)
    d = truth / 3 * (1 + 0.05 * torch.randn(truth.shape, generator=generator))
    d[torch.rand(truth.shape, generator=generator) < 0.2] = 0
    d[4] = 0
    expected = video_depth_errors(torch.where(d > 0, 1 / d, 0.0), 1 / truth)
    result = streamed_depth_errors(lambda: (DepthPair(n, d[n].numpy(), truth[n].numpy()) for n in range(5)))
    assert (result.frames, result.frames_with_truth) == (4, 5)
    assert result.mean.scale == pytest.approx(expected.scale, rel=3e-3)
    assert result.mean.pixels == expected.pixels and result.mean.confident_share == expected.confident_share
    assert result.mean.abs_rel == pytest.approx(expected.abs_rel, rel=0.01)
    assert result.mean.rmse == pytest.approx(expected.rmse, rel=0.01)


def test_a_pixel_tells_the_scale_as_much_in_every_frame():
    """10,000 pixels say 1, twice 4,000 say 3: the median is 1, though two frames of three say 3."""
    truth, known = np.full((100, 100), 3.0), np.arange(10_000).reshape(100, 100) < 4000
    frames = [DepthPair(0, truth, truth), *(DepthPair(n, np.where(known, 1.0, 0.0), truth) for n in (1, 2))]
    assert truth.size > SAMPLED
    result = streamed_depth_errors(lambda: frames).mean
    assert result.scale == 1.0
    assert result.abs_rel == pytest.approx((0 + 2 * 2 / 3) / 3)


def test_only_sure_pixels_of_a_video_count():
    truth = np.full((2, 4), 2.0)
    frame = DepthPair(0, np.array([[1.0] * 4, [9.0] * 4]), truth, np.array([[0.5] * 4, [0.4] * 4]))
    result = streamed_depth_errors(lambda: [frame], min_confidence=0.5).mean
    assert (result.scale, result.abs_rel, result.confident_share) == (2.0, 0.0, 0.5)
    with pytest.raises(EvaluationError, match="no pixel of the video"):
        streamed_depth_errors(lambda: [frame], min_confidence=0.6)


def test_temporal_blur_by_hand():
    d = torch.tensor([[1.0, 1.0], [2.0, 0.0], [4.0, 3.0]])[:, None]
    expected = torch.tensor([[1.5, 1.0], [7 / 3, 2.0], [3.0, 3.0]])[:, None]
    torch.testing.assert_close(temporally_blurred(d, 1), expected)
    torch.testing.assert_close(temporally_blurred(d, 0), d)
    torch.testing.assert_close(temporally_blurred(d, 5), torch.tensor([7 / 3, 2.0]).expand(3, 1, 2))


def test_constant_is_the_median_of_what_is_known():
    d = torch.tensor([0.0, 0, 0, 1, 2, 5]).view(2, 1, 3)
    assert constant_like(d).tolist() == [[[2.0] * 3]] * 2


@pytest.mark.parametrize("cheat", [constant_like, lambda d: temporally_blurred(d, 2)], ids=["constant", "blurred"])
def test_cheats_lose(room, cheat):
    """Measured, exact depth, constant, blurred over 5 frames: alignment error 0.44, 1.5, 0.90 % at gap 1 and 1.9, 11,
    3.0 at gap 10; instability 0.0004, 0.017, 0.008; drift 0.0004, 0.049, 0.014; AbsRel 0, 0.13, 0.013."""
    d, T_wc, K = room.inv_depth, room.T_wc, room.K
    exact, cheated = (temporal_alignment_errors(x, T_wc, K) for x in (d, cheat(d)))
    assert all(cheated[gap] > 1.4 * exact[gap] for gap in (1, 2, 5, 10))
    tracks = exact_tracks(d, T_wc, K, starts=range(0, 12, 4))
    for error in (track_instability, track_drift):
        assert error(tracks, cheat(d), T_wc, K) > 10 * error(tracks, d, T_wc, K)
    assert video_depth_errors(d, d).abs_rel < 1e-6 and video_depth_errors(cheat(d), d).abs_rel > 0.01

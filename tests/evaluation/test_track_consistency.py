"""Tracks in the world: still on exact depth, moving by a known length on depth that jitters."""

import pytest
import torch

from slam.errors import EvaluationError
from slam.evaluation.track_consistency import exact_tracks, track_drift, track_instability
from slam.matching.tracks import Tracks

F64 = torch.float64
K = torch.tensor([[20.0, 0, 8], [0, 25.0, 6], [0, 0, 1]], dtype=F64)
H, W = 12, 16


def still_video(depths):
    """Walls at these depths before a camera that stands still."""
    d = 1 / torch.tensor(depths)
    return d[:, None, None].expand(-1, H, W).contiguous(), torch.eye(4, dtype=F64).expand(len(d), 4, 4)


def straight_ahead(frames):
    """One track at the principal point."""
    return Tracks(torch.tensor([8.0, 6.0]).expand(1, frames, 2).clone(), torch.ones(1, frames, dtype=torch.bool))


def test_jitter_along_the_axis_by_hand():
    """Depth 1, 1.1, 1, 1.1, 1: steps of 0.1; variance (3 * 0.04^2 + 2 * 0.06^2) / 5 about the mean 1.04; median 1."""
    inv_depth, T_wc = still_video([1.0, 1.1, 1.0, 1.1, 1.0])
    tracks = straight_ahead(5)
    assert track_instability(tracks, inv_depth, T_wc, K) == pytest.approx(0.1, abs=1e-6)
    assert track_drift(tracks, inv_depth, T_wc, K) == pytest.approx(0.0024**0.5, abs=1e-6)


def test_a_point_off_the_axis_moves_along_its_ray():
    """At (12, 8.5) the ray is (0.2, 0.1, 1): as long as sqrt(1.05). All depth is twice as large: nothing changes."""
    inv_depth, T_wc = still_video([2.0, 2.2, 2.0, 2.2, 2.0])
    tracks = straight_ahead(5)
    tracks.uv[:] = torch.tensor([12.0, 8.5])
    assert track_instability(tracks, inv_depth, T_wc, K) == pytest.approx(0.1 * 1.05**0.5, abs=1e-6)
    assert track_drift(tracks, inv_depth, T_wc, K) == pytest.approx((0.0024 * 1.05) ** 0.5, abs=1e-6)


def test_slow_growth_is_drift_more_than_instability():
    depths = [1 + 0.01 * n for n in range(21)]
    inv_depth, T_wc = still_video(depths)
    tracks = straight_ahead(21)
    assert track_instability(tracks, inv_depth, T_wc, K) == pytest.approx(0.01 / 1.1, rel=1e-4)
    spread = torch.tensor(depths, dtype=F64).std(correction=0).item()
    assert track_drift(tracks, inv_depth, T_wc, K) == pytest.approx(spread / 1.1, rel=1e-4)


def test_only_consecutive_frames_with_known_depth_are_steps():
    """The track is hidden in frame 1, and frame 4 has no depth beside it: the step from 2 to 3 alone is left."""
    inv_depth, T_wc = still_video([1.0, 5.0, 1.0, 1.3, 7.0])
    tracks = straight_ahead(5)
    tracks.visible[0, 1] = False
    tracks.uv[..., 0] += 0.2  # the ray is (0.01, 0, 1)
    inv_depth[4, 6, 9] = 0
    assert track_instability(tracks, inv_depth, T_wc, K) == pytest.approx(0.3, abs=1e-4)
    with pytest.raises(EvaluationError, match="known depth in 5 frames"):
        track_drift(tracks, inv_depth, T_wc, K)
    tracks.visible[0, 3] = False
    with pytest.raises(EvaluationError, match="consecutive"):
        track_instability(tracks, inv_depth, T_wc, K)
    with pytest.raises(ValueError, match="do not fit"):
        track_instability(tracks, inv_depth[:4], T_wc[:4], K)


def test_there_is_no_step_from_one_track_to_the_next():
    """The first ends in frame 1, the second begins in frame 2."""
    inv_depth, T_wc = still_video([1.0] * 4)
    visible = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    tracks = Tracks(torch.tensor([[8.0, 6.0], [2.0, 3.0]])[:, None].repeat(1, 4, 1), visible)
    assert track_instability(tracks, inv_depth, T_wc, K) == 0


def test_every_track_has_the_same_weight_in_drift_and_short_ones_none():
    """A track of 5 frames with drift, one of 7 without, and one of 4 that would have much."""
    inv_depth, T_wc = still_video([1.0] * 7)
    jitter = 1 / torch.tensor([1.0, 1.1, 1.0, 1.1, 1.0, 1.0, 1.0])
    inv_depth[:, 6, 8] = jitter
    inv_depth[:, 2, 2] = 1 / torch.tensor([1.0, 2, 1, 2, 1, 1, 1])
    uv = torch.tensor([[8.0, 6.0], [4.0, 9.0], [2.0, 2.0]])[:, None].repeat(1, 7, 1)
    visible = torch.ones(3, 7, dtype=torch.bool)
    visible[0, 5:] = visible[2, 4:] = False
    assert track_drift(Tracks(uv, visible), inv_depth, T_wc, K) == pytest.approx(0.0024**0.5 / 2, abs=1e-6)


def test_exact_tracks_stay_on_exact_depth(video, mutant):
    """Room: measured 0.0004 of depth, below SAME_DEPTH as a sample on an edge is; mistakes 0.03 and more."""
    tracks = exact_tracks(video.inv_depth, video.T_wc, video.K, starts=(0, 5, 11))
    for error, bound in ((track_instability, 0.001), (track_drift, 0.001)):
        right, wrong = (error(tracks, video.inv_depth, T, video.K) for T in (video.T_wc, mutant(video.T_wc)))
        assert right < bound and wrong > 10 * bound


def test_the_unit_of_length_does_not_matter(room):
    tracks = exact_tracks(room.inv_depth, room.T_wc, room.K, starts=(0,))
    d, T_wc = 0.9 * room.inv_depth + 0.02, room.T_wc.clone()
    T_wc[:, :3, 3] *= 2.7
    for error in (track_instability, track_drift):
        value = error(tracks, d, room.T_wc, room.K)
        assert value > 0.001
        assert error(tracks, d / 2.7, T_wc, room.K) == pytest.approx(value, rel=1e-4)


def test_exact_tracks_follow_the_points_of_the_wall(wall):
    """By plain algebra on the wall's formula; the pixel of the start is a grid point."""
    tracks = exact_tracks(wall.inv_depth, wall.T_wc, wall.K, starts=(3,), spacing_px=8)
    assert tracks.uv.shape == (48, 12, 2)
    torch.testing.assert_close(tracks.uv[9, 3], torch.tensor([12.0, 12.0]))  # the second of the second row
    p_c = torch.linalg.inv(wall.K) @ torch.tensor([12.0, 12.0, 1.0], dtype=F64) / wall.inv_depth[3, 12, 12]
    p_w = wall.T_wc[3, :3, :3] @ p_c + wall.T_wc[3, :3, 3]
    for n in (0, 2, 5):
        pixel = wall.K @ torch.linalg.inv(wall.T_wc[n])[:3] @ torch.cat([p_w, torch.ones(1, dtype=F64)])
        assert tracks.visible[9, n]
        torch.testing.assert_close(tracks.uv[9, n], (pixel[:2] / pixel[2]).float(), rtol=0, atol=1e-4)


def test_hidden_points_and_those_outside_are_not_visible():
    """A box stands before part of the wall in frame 1; in frame 2 the camera has moved by half the image."""
    inv_depth, T_wc = still_video([2.0, 2.0, 2.0])
    inv_depth[1, :, 4:9] = 1.0
    inv_depth[0, 2, 2] = 0
    T_wc = T_wc.clone()
    T_wc[2, 0, 3] = 0.8  # 8 pixels
    tracks = exact_tracks(inv_depth, T_wc, K, starts=(0,), spacing_px=4)
    assert tracks.uv.shape == (11, 3, 2)  # 3 x 4, one without depth
    column = tracks.uv[:, 0, 0]
    assert tracks.visible[:, 0].all()
    assert tracks.visible[:, 1].tolist() == [c not in (6.0,) for c in column.tolist()]
    assert tracks.visible[:, 2].tolist() == [c >= 8 for c in column.tolist()]
    moved = tracks.uv[:, 2][tracks.visible[:, 2]]
    torch.testing.assert_close(moved[:, 0], column[column >= 8] - 8)
    assert (tracks.uv[~tracks.visible] == 0).all()

"""Tracks through a video: along a known motion, bounded in number and length, ended where the scene ends."""

import cv2
import numpy as np
import pytest
import torch

from slam.geometry.flow import reproject
from slam.matching.tracks import START_EVERY, Tracks, flow_tracks
from slam.sources.demo import DemoConfig, DemoSource

H, W = 96, 128
SHIFT = np.array([1.3, -0.7])


def texture(seed: int, height: int = 160, width: int = 200) -> np.ndarray:
    """(height, width) float32 gray levels, detail of 1.5 to 6 pixels."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    layers = (cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (1.5, 3, 6))
    return np.clip(128 + 26 * sum(layer / layer.std() for layer in layers), 0, 255)


def shifted(frames: int) -> list[np.ndarray]:
    """A texture that moves by SHIFT from frame to frame."""
    big = texture(0)
    motions = [np.array([[1, 0, n * SHIFT[0] - 40], [0, 1, n * SHIFT[1] - 30]]) for n in range(frames)]
    return [cv2.warpAffine(big, M, (W, H), flags=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8) for M in motions]


def lengths(tracks: Tracks) -> list[int]:
    return tracks.visible.sum(1).tolist()


def test_tracks_follow_a_known_motion():
    """Measured after up to 9 frames: 0.07 px at the median, 0.9 for a patch next to the border."""
    tracks = flow_tracks(shifted(10))
    assert len(tracks.uv) > 50 and tracks.uv.dtype == torch.float32
    errors = []
    for uv, visible in zip(tracks.uv.numpy(), tracks.visible.numpy()):
        (frames,) = visible.nonzero()
        assert frames[-1] - frames[0] + 1 == len(frames) >= 2 and frames[0] % START_EVERY == 0
        errors.append(np.abs(uv[frames] - uv[frames[0]] - np.outer(frames - frames[0], SHIFT)).max())
        assert (uv[frames] >= 0).all() and (uv[frames] <= [W - 1, H - 1]).all() and (uv[~visible] == 0).all()
    assert np.median(errors) < 0.15 and max(errors) < 1.5
    assert tracks.visible[:, 0].any() and (tracks.visible[:, 5] & ~tracks.visible[:, 4]).any()


def test_number_and_length_are_bounded():
    tracks = flow_tracks(shifted(12), max_alive=20, max_length=4)
    assert max(lengths(tracks)) == 4 and int(tracks.visible.sum(0).max()) <= 20
    assert flow_tracks(shifted(7), max_alive=20).visible.sum(0).max() <= 20
    assert tracks.visible[:, 0].sum() >= 15 and tracks.visible[:, 10].sum() >= 15


def test_tracks_end_where_the_scene_changes():
    """From frame 3 on the right half shows something else: what was there is not followed into it. Measured 2 %, and
    12 % by the way back alone."""
    images = shifted(5)
    for image in images[3:]:
        image[:, W // 2 :] = texture(1)[:H, W // 2 : W].astype(np.uint8)
    tracks = flow_tracks(images)
    is_right = tracks.visible[:, 2] & (tracks.uv[:, 2, 0] > W // 2 + 12)
    is_left = tracks.visible[:, 2] & (tracks.uv[:, 2, 0] < W // 2 - 12)
    assert is_right.sum() > 20 and is_left.sum() > 20
    assert tracks.visible[is_right, 3].float().mean() < 0.06 and tracks.visible[is_left, 3].float().mean() > 0.9


def test_exposure_may_change():
    """By 20 % from frame to frame: as good as without."""
    images = shifted(6)
    tracks = flow_tracks([(image * (0.8 if n % 2 else 1.0)).astype(np.uint8) for n, image in enumerate(images)])
    through = tracks.visible.all(1)
    moved = tracks.uv[through, 5] - tracks.uv[through, 0]
    assert through.sum() > 0.8 * flow_tracks(images).visible.all(1).sum() > 30
    assert (moved - torch.from_numpy(5 * SHIFT)).norm(dim=-1).median() < 0.15


def test_without_texture_or_images_there_are_no_tracks():
    assert flow_tracks([np.full((H, W), 90, np.uint8)] * 3).visible.shape == (0, 3)
    assert flow_tracks([]).uv.shape == (0, 0, 2)


def test_tracks_of_a_rendered_room_follow_its_points():
    """The point of the first frame, by true depth and poses, two frames on: measured 0.3 px at the median, of 4 px.
    Textures are as fine as pixels here, and there is noise."""
    source = DemoSource(DemoConfig("office", "orbit", frames=3, width=160, height=120, fps=10.0), with_depth=True)
    frames, T_wc = list(source), torch.from_numpy(source.groundtruth().T_wc)
    tracks = flow_tracks([cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in frames])
    inv_depth = 1 / torch.from_numpy(frames[0].depth)
    true, _, _ = reproject(inv_depth[None], (torch.linalg.inv(T_wc[2]) @ T_wc[0])[None], source.camera.matrix()[None])
    uv = tracks.uv[tracks.visible[:, 2]]
    u, v = uv[:, 0].round().long().unbind(-1)
    moved = true[0, v, u] - torch.stack([u, v], -1)
    error = (uv[:, 2] - uv[:, 0] - moved).norm(dim=-1)
    assert len(uv) > 60 and error.median() < 0.4 and moved.norm(dim=-1).median() > 3


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="tracks need"):
        Tracks(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))

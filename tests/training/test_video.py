"""Videos for the self-supervised stage: what is taken over from a finished run, and what is not believed."""

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.errors import SourceError
from slam.frames import Frame, Keyframe, Trajectory
from slam.geometry import se3
from slam.geometry.camera import Camera, scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.training.video import Video, agreed_depth, read_video, tracked_video

PIXELS = 160 * 120


class Filmed:
    """Frames from memory, as a recorded source."""

    live = False
    skipped = 0

    def __init__(self, world: ModuleType, poses: list[Tensor]) -> None:
        K = world.K
        self.camera = Camera(160, 120, *(float(K[r, c]) for r, c in ((0, 0), (1, 1), (0, 2), (1, 2))))
        made = world.World()
        self.frames = [Frame(n, 10**8 * n, made.image(T), self.camera) for n, T in enumerate(poses)]
        self.count = len(self.frames)

    def __iter__(self):
        return iter(self.frames)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def poses(wall_and_box) -> list[Tensor]:
    """T_cw of eleven frames."""
    return [wall_and_box.moved(x=0.02 * n) for n in range(11)]


@pytest.fixture
def run(wall_and_box, poses) -> tuple[Filmed, Trajectory, list[Keyframe]]:
    """A finished run, every fifth frame a keyframe."""
    world = wall_and_box.World()
    stamps = 10**8 * np.arange(len(poses), dtype=np.int64)
    trajectory = Trajectory(stamps, torch.stack([se3.inverse(T) for T in poses]).numpy())
    return Filmed(wall_and_box, poses), trajectory, [world.keyframe(poses[n], n, n) for n in (0, 5, 10)]


def truth(video: Video, wall_and_box: ModuleType) -> Tensor:
    world = wall_and_box.World()
    return torch.stack([world.cell_inv_depth(se3.inverse(T)) for T in video.T_wc])


def test_frames_get_their_poses_by_time_and_their_depth_from_the_nearest_keyframe(run, wall_and_box):
    source, trajectory, keyframes = run
    lost = Trajectory(np.delete(trajectory.time_ns, [3, 7]), np.delete(trajectory.T_wc, [3, 7], 0))
    video = tracked_video("wall", source, PIXELS, lost, keyframes)
    assert video.time_ns.tolist() == lost.time_ns.tolist() and len(video.images) == 9
    assert torch.equal(video.T_wc, torch.from_numpy(lost.T_wc))
    torch.testing.assert_close(video.K, wall_and_box.K)
    assert np.array_equal(video.images[4].permute(1, 2, 0).numpy(), source.frames[5].image)  # the fifth that was placed
    known = video.inv_depth > 0
    assert known.float().mean((1, 2)).min() > 0.7
    error = (video.inv_depth / truth(video, wall_and_box)).log().abs()[known]
    assert error.median() < 0.005 and error.quantile(0.9) < 0.03  # a cell's depth moves to the next cell's centre
    assert float((error > 0.2).float().mean()) < 0.03  # along the edge of the box


def test_only_what_is_confident_and_measured_twice_is_kept(run, wall_and_box):
    """A keyframe's patch that no other confirms, or that it does not believe itself, is unknown in it and around it."""
    source, trajectory, keyframes = run
    value, sigma = keyframes[1].dense.value.clone(), keyframes[1].dense.sigma.clone()
    value[80:112, 8:40] *= 1.5
    sigma[80:112, 100:132] = value[80:112, 100:132]
    keyframes[1] = replace(keyframes[1], dense=InvDepth(value, sigma))
    video = tracked_video("wall", source, PIXELS, trajectory, keyframes)
    own = video.inv_depth[5] > 0
    assert not own[21:27, 3:9].any() and not own[21:27, 26:32].any()
    assert own[21:27, 12:24].float().mean() > 0.9
    assert (video.inv_depth[6][21:27, 3:9] > 0).float().mean() < 0.1
    assert (video.inv_depth[0][21:27, 5:9] > 0).float().mean() > 0.9  # the third keyframe agrees with the first


def test_the_agreement_needs_the_pose(wall_and_box, poses):
    world, K = wall_and_box.World(), scaled_intrinsics(wall_and_box.K, 1 / 4)
    inv_depth = torch.stack([world.cell_inv_depth(poses[n]) for n in (0, 10)])
    T_wc = torch.stack([se3.inverse(poses[n]) for n in (0, 10)])
    forward = wall_and_box.moved(z=0.4)
    wrong = torch.stack([T_wc[0], T_wc[1] @ forward])
    shares = [agreed_depth(inv_depth, T, K).float().mean() for T in (T_wc, wrong)]
    assert shares[0] > 0.8 > 0.3 > shares[1]
    assert not agreed_depth(inv_depth[:1], T_wc[:1], K).any()  # nobody to ask


def test_a_run_that_lost_most_frames_is_refused_with_a_remedy(run):
    source, trajectory, keyframes = run
    few = Trajectory(trajectory.time_ns[:4], trajectory.T_wc[:4])
    with pytest.raises(SourceError, match=r"wall: only 4 of 11 frames .* --poses network"):
        tracked_video("wall", source, PIXELS, few, keyframes[:1])
    with pytest.raises(SourceError, match="none of its 11 frames is a keyframe"):
        tracked_video("wall", source, PIXELS, trajectory, [])


def test_without_a_run_there_are_frames_alone(run):
    video = read_video("wall", run[0], PIXELS)
    assert len(video.images) == 11 and not video.has_poses and not video.inv_depth.any()


def test_a_long_recording_is_thinned_but_keeps_its_keyframes(run, monkeypatch):
    monkeypatch.setattr("slam.training.video.MAX_FRAMES", 4)
    source, trajectory, keyframes = run
    video = tracked_video("wall", source, PIXELS, trajectory, keyframes)
    assert {0, 5, 10} <= {t // 10**8 for t in video.time_ns.tolist()} and len(video.images) < 8
    assert len(read_video("wall", source, PIXELS).images) == 4


def test_a_prepared_video_is_found_again_by_what_it_was_made_of(run, tmp_path):
    video, path = tracked_video("wall", *run[:1], PIXELS, *run[1:]), tmp_path / "0.safetensors"
    assert Video.load(path, "this") is None
    video.save(path, "this")
    again = Video.load(path, "this")
    assert again.name == "wall" and torch.equal(again.inv_depth, video.inv_depth)
    assert torch.equal(again.images, video.images) and torch.equal(again.T_wc, video.T_wc)
    assert Video.load(path, "other") is None
    path.write_bytes(b"damaged")
    with pytest.raises(SourceError, match="delete it"):
        Video.load(path, "this")

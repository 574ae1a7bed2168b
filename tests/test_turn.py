"""A camera that only turns, which shows no depth: by the prior it has a map at once, and none is made up."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.build import build_slam
from slam.config import SlamConfig, build_config
from slam.evaluation.trajectory import ate, path_length
from slam.frames import Frame, Trajectory
from slam.geometry import se3
from slam.mapping.fusion import FusionConfig, fused_cloud, keyframe_cloud
from slam.sources.demo import DemoConfig, DemoSource
from slam.system import Slam

TURN = DemoConfig(kind="living", variant="turn", frames=90, width=160, height=120, fps=7.5)
MAX_ERROR_DEG = 1.0  # of a frame of the turn against the first; 0.1 is usual
STILL_M = 1e-6


class Turning:
    """A quarter turn and most of the way back on a tripod, then a step to the side; all frames in memory."""

    live = False

    def __init__(self, frames: list[Frame], truth: Trajectory) -> None:
        self.frames, self.truth = frames, truth
        self.camera, self.count, self.skipped = frames[0].camera, len(frames), 0
        t_wc = truth.T_wc[:, :3, 3]
        self.turn = int((np.linalg.norm(t_wc - t_wc[0], axis=1) < STILL_M).sum())  # frames before the step

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def turning() -> Turning:
    source = DemoSource(TURN)
    return Turning(list(source), source.groundtruth())


def followed(source: Turning, enabled: bool) -> Slam:
    settings = {"pixels": TURN.width * TURN.height, "prior": {"enabled": enabled}}
    slam = build_slam(build_config(SlamConfig, settings), source.camera, threads=False)
    slam.run(source)
    return slam


@pytest.fixture(scope="module")
def by_prior(turning) -> Slam:
    return followed(turning, enabled=True)


def posed(slam: Slam, source: Turning) -> tuple[Tensor, Tensor]:
    """Poses of the frames of the turn that have one, and the true ones."""
    trajectory = slam.store.trajectory()
    found = dict(zip(trajectory.time_ns.tolist(), trajectory.T_wc, strict=True))
    times = source.truth.time_ns[: source.turn].tolist()
    rows = [n for n, time_ns in enumerate(times) if time_ns in found]
    T_wc = np.array([found[times[n]] for n in rows]).reshape(-1, 4, 4)
    return torch.from_numpy(T_wc), torch.from_numpy(source.truth.T_wc[rows])


def test_every_frame_of_a_turn_has_its_direction_and_none_a_translation(by_prior, turning):
    T_wc, true = posed(by_prior, turning)
    angle = torch.rad2deg(se3.angle_rad(se3.inverse(true[:1]) @ true))
    assert 85 < float(angle.max()) < 95 and float(angle[-1]) < 30  # there and most of the way back
    assert len(T_wc) >= 0.95 * turning.turn and turning.turn > 40
    error = se3.angle_rad(se3.inverse(se3.inverse(T_wc[:1]) @ T_wc) @ se3.inverse(true[:1]) @ true)
    assert float(torch.rad2deg(error).max()) < MAX_ERROR_DEG
    assert float((T_wc[:, :3, 3] - T_wc[0, :3, 3]).norm(dim=1).max()) < 0.01  # of the depth; views after the step tell


def test_without_a_prior_the_turn_has_no_pose(turning):
    """The first map waits for parallax, and the gathered frames leave each other's sight."""
    slam = followed(Turning(turning.frames[: turning.turn], turning.truth), enabled=False)
    assert slam.counts.seen == turning.turn and len(posed(slam, turning)[0]) < 0.5 * turning.turn


def test_what_showed_no_parallax_puts_no_point_into_the_map(by_prior, turning):
    """Its depth is the prior's; from the step on views decide it."""
    keyframes = by_prior.store.everything()
    guessed = [k for k in keyframes if k.is_guessed]
    assert len(guessed) > 10 and {k.view.frame_id for k in guessed} <= set(range(turning.turn + 5))
    for k in guessed:
        assert k.dense_version == 0 and float(k.dense.confidence.max()) < FusionConfig().min_confidence
        assert len(keyframe_cloud(k, [other for other in keyframes if other is not k]).points) == 0
    assert any(k.dense_version > 0 and not k.is_guessed for k in keyframes)
    assert len(fused_cloud(keyframes, FusionConfig()).points) > 1000


def test_the_step_after_the_turn_goes_on_in_the_same_map(by_prior, turning):
    """All frames have a pose, also those of the step before its parallax could be seen, and one alignment fits all."""
    trajectory = by_prior.store.trajectory()
    assert len(trajectory) == turning.count
    assert ate(trajectory, turning.truth, "sim3").rmse < 0.035 * path_length(turning.truth)

"""Places seen again, on a walk there and back: the kidnapped camera is found, or begins another map that is joined to
the first, and a drifted map is closed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.build import build_slam
from slam.config import SlamConfig, build_config
from slam.evaluation.trajectory import ate
from slam.frames import Estimate, Frame, Keyframe, Progress, Status, Trajectory
from slam.geometry import se3
from slam.io.map_file import load_map, save_map
from slam.mapping.promotion import promote
from slam.sources.demo import DemoConfig, DemoSource
from slam.system import Slam

GONE = range(50, 110)  # frames of the walk there and back that the kidnapped camera does not see
AWAY_NS = 10_000_000_000
NOISE = 2.5  # standard deviation of fresh sensor noise on the way back, gray levels


class Walk:
    """Frames of a recording there and back, without depth."""

    live = False

    def __init__(self, frames: list[Frame], truth: np.ndarray) -> None:
        self.frames = frames
        self.camera = frames[0].camera
        self.count = len(frames)
        self.skipped = 0
        self.truth = Trajectory(np.array([frame.time_ns for frame in frames]), truth)

    def __iter__(self):
        return iter(self.frames)

    def close(self) -> None:
        """Nothing is open."""

    def without(self, gone: range, away_ns: int) -> "Walk":
        """Those frames cut out; what follows comes `away_ns` after the last one before."""
        shift_ns = away_ns - (self.frames[gone.stop].time_ns - self.frames[gone.start - 1].time_ns)
        after = [replace(frame, time_ns=frame.time_ns + shift_ns) for frame in self.frames[gone.stop :]]
        kept = [n for n in range(self.count) if n not in gone]
        return Walk([*self.frames[: gone.start], *after], self.truth.T_wc[kept])


@pytest.fixture(scope="module")
def walk(rendered) -> Walk:
    generator = np.random.default_rng(0)
    order = [*range(rendered.count), *reversed(range(rendered.count - 1))]
    step_ns = rendered.frames[1].time_ns - rendered.frames[0].time_ns
    frames = []
    for n, k in enumerate(order):
        noise = NOISE * generator.standard_normal(rendered.frames[k].image.shape) if n >= rendered.count else 0
        image = np.rint(rendered.frames[k].image + noise).clip(0, 255).astype(np.uint8)
        frames.append(Frame(n, (n + 1) * step_ns, image, rendered.camera))
    return Walk(frames, rendered.truth.T_wc[order])


def followed(walk: Walk, **sections) -> tuple[Slam, list[Estimate]]:
    """The system after the walk, and what it said of each frame from the first map on."""
    slam = build_slam(build_config(SlamConfig, {"pixels": 160 * 120} | sections), walk.camera, threads=False)
    said: list[Estimate] = []

    def hear(progress: Progress) -> None:
        if progress.snapshot.estimate is not None:
            said.append(progress.snapshot.estimate)

    slam.run(walk, hear)
    return slam, said


def error(slam: Slam, truth: Trajectory) -> float:
    """ATE, metres, over the frames of a truth."""
    return ate(slam.store.trajectory(), truth, "sim3").rmse


def error_without(slam: Slam, walk: Walk, gone: range) -> float:
    """ATE of a whole walk, metres, over the frames that one with some cut out has too."""
    kept = [n for n in range(walk.count) if n not in gone]
    return error(slam, Trajectory(walk.truth.time_ns[kept], walk.truth.T_wc[kept]))


@pytest.fixture(scope="module")
def uncut(walk) -> Slam:
    return followed(walk)[0]


@pytest.mark.parametrize("away_ns", [AWAY_NS, 66_666_667], ids=["the clock tells", "nothing tells"])
def test_a_kidnapped_camera_is_found_within_a_second_in_one_trajectory(walk, uncut, away_ns):
    cut = walk.without(GONE, away_ns)
    slam, said = followed(cut)
    back = [e for e in said if e.time_ns >= cut.frames[GONE.start].time_ns]
    assert len(back) == walk.count - GONE.stop
    found = next(n for n, e in enumerate(back) if e.status is Status.TRACKING)
    assert found <= 15  # a second
    assert all(e.status is Status.TRACKING for e in back[found:])
    assert len(slam.store.trajectory()) >= cut.count - found
    assert error(slam, cut.truth) < 1.5 * error_without(uncut, walk, GONE)


NEVER = {"min_visible_ratio": 1.0, "min_inlier_ratio": 1.0}  # is a lost camera found


def test_a_camera_that_stays_lost_begins_another_map_which_joins_the_first(walk, uncut):
    """The relocaliser is kept from finding it; loops between the two maps bring them together."""
    gone = range(20, 40)
    cut = walk.without(gone, AWAY_NS)
    slam, said = followed(cut, relocaliser=NEVER, keyframing={"flow_px": 8.0})
    assert any(e.status is Status.LOST for e in said)
    assert sum(k.parent_id < 0 for k in slam.store.keyframes) == 2  # each began a map
    assert slam.store.map_ids() == [0] and {k.map_id for k in slam.store.keyframes} == {0}
    assert slam.counts.tracked + slam.counts.lost == cut.count  # those lost before the map began have poses in it
    assert len(slam.store.trajectory()) == slam.counts.tracked >= 0.97 * cut.count
    assert error(slam, cut.truth) < 1.5 * error_without(uncut, walk, gone)


def test_maps_without_a_common_place_stay_apart(walk, tmp_path):
    """Half of a walk, then another room: both have a trajectory, nothing joins them, and both are saved and loaded."""
    other = list(DemoSource(DemoConfig("living", "orbit", 3, 45, 160, 120, 15.0)))
    step_ns = walk.frames[1].time_ns - walk.frames[0].time_ns
    there = [
        replace(f, id=50 + n, time_ns=walk.frames[49].time_ns + AWAY_NS + n * step_ns) for n, f in enumerate(other)
    ]
    slam, _ = followed(Walk([*walk.frames[:50], *there], walk.truth.T_wc[:95]))
    first, second = slam.store.map_ids()
    trajectories = slam.store.trajectory(first), slam.store.trajectory(second)
    assert [len(t) for t in trajectories] == [50, 45]
    assert trajectories[0].time_ns[-1] < trajectories[1].time_ns[0]
    assert np.array_equal(slam.store.trajectory().time_ns, trajectories[0].time_ns)
    assert len(slam.store.keyframe_trajectory(second)) == sum(k.map_id == second for k in slam.store.keyframes)
    save_map(tmp_path / "both.map", slam.store.everything())
    ids = {k.id: k.map_id for k in load_map(tmp_path / "both.map")}
    assert ids == {k.id: k.map_id for k in slam.store.keyframes} and set(ids.values()) == {first, second}


def test_a_loop_takes_out_the_drift_of_a_run(walk, monkeypatch):
    """Every keyframe is placed a centimetre off, and no window mends it: only the place seen again tells.

    The walk ends where it began: the gap between its first and last pose is drift.
    """
    off = se3.exp(torch.tensor([0.01, -0.01, 0.01, 0, 0.005, 0], dtype=torch.float64))

    def misplaced(*given) -> Keyframe:
        keyframe = promote(*given)
        return replace(keyframe, T_wc=keyframe.T_wc @ off)

    monkeypatch.setattr("slam.system.promote", misplaced)
    gaps = {}
    for enabled in (False, True):
        loops = {"enabled": enabled} | ({"min_gap": 5} if enabled else {})
        slam, _ = followed(walk, backend={"adjust": "off"}, keyframing={"flow_px": 6.0}, loops=loops, placed_again=0)
        assert (len(slam.parts.backend.loops) > 0) == enabled
        T_wc = slam.store.trajectory().T_wc
        gaps[enabled] = float(np.linalg.norm(T_wc[0, :3, 3] - T_wc[-1, :3, 3]))
    assert gaps[True] < 0.6 * gaps[False]

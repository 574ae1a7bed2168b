"""Frames placed again at the end of a run: what was wrong with them is mended, those in between go with them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from slam.build import build_slam
from slam.config import SlamConfig, build_config
from slam.evaluation.trajectory import ate
from slam.frames import Image, Trajectory, View
from slam.frontend.kept_views import KeptViews, estimate_at, place_archived
from slam.geometry import se3
from slam.mapping.frame_log import FramePoses
from slam.mapping.store import KeyframeStore
from slam.system import Slam
from slam.threads import Helpers

DISTURBED = range(20, 60)  # frames
PUSH = 0.03  # map units, at most


@dataclass(frozen=True, eq=False)
class Finished:
    """A run, its views, and its poses."""

    slam: Slam
    views: list[View]
    poses: FramePoses
    truth: Trajectory

    def store(self, push: float = PUSH, without: frozenset[int] = frozenset()) -> KeyframeStore:
        """The map with its frames, those between keyframes moved smoothly off their places."""
        store = KeyframeStore()
        store.restore(list(self.slam.store.keyframes))
        first = store.keyframes[0]
        for frame_id, time_ns, T in zip(self.poses.frame_id.tolist(), self.poses.time_ns.tolist(), self.poses.T_wc):
            off = push * np.sin(np.pi * (frame_id - DISTURBED.start) / len(DISTURBED))
            twist = torch.tensor([off, off, 0, 0, 0, 0], dtype=torch.float64)
            T_wc = torch.from_numpy(T)
            if frame_id in DISTURBED:
                T_wc = T_wc @ se3.exp(twist)
            if frame_id not in without:
                store.record(estimate_at(frame_id, time_ns, first, T_wc))
        return store

    def placed_again(self, store: KeyframeStore, limit: int, helpers: int = 0) -> set[int]:
        """Record what the views that a limit keeps say; the frames."""
        kept = KeptViews(limit)
        for one in self.views:
            kept.keep(one)
        matchers = self.slam.localiser.matcher, self.slam.parts.aligning
        estimates = list(kept.placed_again(matchers[::-1], store, Helpers(helpers)))
        for estimate in estimates:
            store.record(estimate)
        return {estimate.frame_id for estimate in estimates}

    def error(self, store: KeyframeStore) -> float:
        """ATE, metres."""
        return ate(store.trajectory(), self.truth, "sim3").rmse


@pytest.fixture(scope="module")
def finished(rendered) -> Iterator[Finished]:
    config = build_config(SlamConfig, {"pixels": 160 * 120, "placed_again": 0})
    slam = build_slam(config, rendered.camera, threads=False)
    frames = [replace(frame, depth=None) for frame in rendered.frames]
    for frame in frames:
        slam.step(frame)
    slam.finish()
    views = [slam.preparation.prepare(frame) for frame in frames]
    yield Finished(slam, views, slam.store.frame_poses(), rendered.truth)
    slam.store.close()


@pytest.mark.parametrize("limit", [1000, 20])
def test_frames_off_their_places_come_back(finished, limit):
    """With 20 views every fourth frame is kept."""
    keyframes = {k.view.frame_id for k in finished.slam.store.keyframes}
    store = finished.store()
    before = finished.error(store)
    placed = finished.placed_again(store, limit)
    assert not placed & keyframes and placed >= set(DISTURBED) - keyframes
    undisturbed = finished.error(finished.store(push=0.0))
    assert before > 2 * undisturbed and finished.error(store) < 1.1 * undisturbed


def test_views_far_off_their_places_are_found_as_when_tracked(finished):
    """Pixels away, as of a camera that turned out to be another: no alignment finds them."""
    store = finished.store(push=4 * PUSH)
    before = finished.error(store)
    finished.placed_again(store, 1000)
    undisturbed = finished.error(finished.store(push=0.0))
    assert before > 5 * undisturbed and finished.error(store) < 1.1 * undisturbed


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_keyframe_that_left_comes_back_to_its_place_with_its_frames(finished, is_ended):
    store = finished.store(push=0.0)
    gone = store.keyframes[len(store) // 2]
    store.evict(gone.id)
    off = se3.exp(torch.tensor([PUSH, PUSH, 0, 0, 0, 0], dtype=torch.float64))
    store.move_archived({gone.id: gone.T_wc @ off})
    matchers = finished.slam.parts.aligning, finished.slam.localiser.matcher
    place_archived(matchers, store, Helpers(0), lambda: is_ended)
    (found,) = [k.T_wc for k in store.archived()]
    distance = float((found - gone.T_wc)[:3, 3].norm())
    assert distance > PUSH if is_ended else distance < 0.2 * PUSH
    store.close()


def test_two_threads_say_what_one_does(finished):
    alone, together = finished.store(), finished.store()
    assert finished.placed_again(alone, 20) == finished.placed_again(together, 20, helpers=2)
    np.testing.assert_allclose(together.trajectory().T_wc, alone.trajectory().T_wc, atol=1e-9)


def test_frames_that_were_lost_stay_so(finished):
    lost = frozenset(range(30, 36))
    store = finished.store(without=lost)
    assert not finished.placed_again(store, 40) & lost


def view(frame_id: int) -> View:
    """A view of nothing."""
    return View(frame_id, frame_id, Image(np.zeros((4, 4, 3), np.uint8)), torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(("frames", "limit", "every"), [(100, 100, 1), (101, 100, 2), (1000, 30, 64), (50, 1, 64)])
def test_views_are_thinned_evenly(frames, limit, every):
    views = KeptViews(limit)
    for n in range(frames):
        views.keep(view(n))
    assert views.every == every and len(views) == len(range(0, frames, every)) <= limit


def test_all_are_kept_while_the_camera_is_uncertain():
    views = KeptViews(10)
    for n in range(400):
        views.keep(view(n), is_certain=n >= 30)
    assert views.every == 64 and len(views) == 30 + len(range(64, 400, 64))


def test_none_are_kept_where_none_are_wanted():
    views = KeptViews(0)
    views.keep(view(0))
    assert len(views) == 0

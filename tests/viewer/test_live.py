"""What a run under way hands to its window, without a window."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.frames import (
    UNNUMBERED,
    Counts,
    Estimate,
    Frame,
    Image,
    Keyframe,
    Progress,
    Snapshot,
    Status,
    Update,
    View,
)
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.inv_depth import InvDepth
from slam.mapping.store import KeyframeStore
from slam.viewer.live import Gate, LiveRun
from slam.viewer.run import FinishedRun

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)


def estimate(number: int, keyframe: Keyframe, T_wc: torch.Tensor, scale: float = 1.0) -> Estimate:
    T_ck = se3.inverse(T_wc) @ keyframe.T_wc
    return Estimate(number, number, Status.TRACKING, keyframe.id, T_ck, scale, T_wc)


def progress(keyframes: tuple[Keyframe, ...], last: Estimate, seen: int = 7) -> Progress:
    image = np.full((48, 64, 3), seen, np.uint8)
    counts = Counts(seen=seen, tracked=5, lost=2)
    return Progress(Snapshot(keyframes, last), last.status, counts, Frame(seen, seen, image, CAMERA))


def test_the_window_gets_the_newest_state_and_each_only_once(run_path, tmp_path):
    keyframes = FinishedRun(run_path).keyframes
    live = LiveRun(tmp_path, total=20)
    assert live.shown() is live.shown() and live.shown().count == 0
    last = estimate(3, keyframes[1], keyframes[2].T_wc)
    live.publish(progress(keyframes, last, seen=6))
    live.publish(progress(keyframes, last, seen=7))
    shown = live.shown()
    assert shown.image is not None and shown.T_wc is not None
    assert shown.image[0, 0, 0] == 7 and shown.T_wc[0, 3] == pytest.approx(0.2)
    assert "frame 7 of 20" in shown.words and "TRACKING" in shown.words and "lost 2" in shown.words
    assert live.shown() is shown
    live.play()
    assert "paused" in live.shown().words and live.shown() is not shown


def test_only_keyframes_with_believed_depth_are_drawn_and_a_lost_camera_has_no_place(run_path, tmp_path):
    *old, newest = FinishedRun(run_path).keyframes
    live = LiveRun(tmp_path)
    lost = replace(estimate(3, old[0], newest.T_wc), status=Status.LOST)
    live.publish(progress((*old, replace(newest, refined=False)), lost))
    shown = live.shown()
    assert [keyframe.id for keyframe in shown.drawn] == [0, 1, 2] and shown.T_wc is None and "LOST" in shown.words


def test_the_path_follows_its_keyframes_as_they_move_and_grow(run_path, tmp_path):
    first, second, *_ = FinishedRun(run_path).keyframes
    T_wc = torch.eye(4, dtype=torch.float64)
    T_wc[:3, 3] = torch.tensor([0.3, 0.4, 0.5])
    turn = se3.exp(torch.tensor([1.0, 2.0, 3.0, 0.3, -0.2, 0.9], dtype=torch.float64))
    live = LiveRun(tmp_path)
    estimates = [estimate(1, first, T_wc), estimate(2, second, T_wc, scale=2.0)]
    live.add([estimates[0], replace(estimates[0], status=Status.LOST), estimates[1]])
    live.publish(progress((first, replace(second, scale=2.0)), estimates[1]))
    np.testing.assert_allclose(live.shown().path, [[0.3, 0.4, 0.5]] * 2, atol=1e-12)
    moved = replace(first, T_wc=turn @ first.T_wc)
    rescaled = replace(second, scale=6.0)  # three times as large as when the frame was measured
    live.publish(progress((moved, rescaled), estimates[1]))
    p_w, offset = T_wc[:3, 3], T_wc[:3, 3] - second.T_wc[:3, 3]
    expected = [turn[:3, :3] @ p_w + turn[:3, 3], second.T_wc[:3, 3] + 3 * offset]
    np.testing.assert_allclose(live.shown().path, np.stack(expected), atol=1e-12)


def test_the_path_keeps_the_frames_of_keyframes_that_left_the_map(tmp_path):
    """Twelve keyframes in a row, each with a frame beside it; eight leave, then the rest moves."""
    store, live = KeyframeStore(), LiveRun(tmp_path)
    for n in range(12):
        T_wc = se3.exp(torch.tensor([0.1 * n, 0, 0, 0, 0.02 * n, 0], dtype=torch.float64))
        view = View(2 * n, 2 * n, Image(np.zeros((8, 8, 3), np.uint8)), torch.eye(3, dtype=torch.float64))
        unknown = InvDepth.unknown((8, 8))
        k = store.add(Keyframe(UNNUMBERED, view, T_wc, unknown, unknown, parent_id=n - 1))
        beside = estimate(2 * n + 1, k, T_wc @ se3.exp(torch.tensor([0.05, 0, 0, 0, 0, 0], dtype=torch.float64)))
        store.record(beside)
        live.add([beside])
    for n in range(1, 9):
        store.evict(n)
    turn = se3.exp(torch.tensor([1.0, 2.0, 3.0, 0.3, -0.2, 0.9], dtype=torch.float64))
    store.apply(Update(tuple(replace(k, T_wc=turn @ k.T_wc, refined=True) for k in store.keyframes), {}))
    live.publish(Progress(store.snapshot(), Status.TRACKING, Counts(seen=24), None))
    assert len(store) == 4 and len(live.shown().path) == 12
    np.testing.assert_allclose(live.shown().path, store.trajectory().T_wc[:, :3, 3], atol=1e-9)


def test_a_frame_of_a_keyframe_that_is_not_known_yet_waits(run_path, tmp_path):
    """The tracking thread may be a frame ahead of the state that the window shows."""
    first, second, *_ = FinishedRun(run_path).keyframes
    live, eye = LiveRun(tmp_path), torch.eye(4, dtype=torch.float64)
    live.add([estimate(1, first, eye), estimate(2, second, eye)])
    live.publish(progress((first,), estimate(1, first, eye)))
    assert len(live.shown().path) == 1
    live.publish(progress((first, second), estimate(2, second, eye)))
    assert len(live.shown().path) == 2


class Walker:
    """A thread that goes through a gate again and again."""

    def __init__(self, gate: Gate) -> None:
        self.passed = 0
        self.stop = threading.Event()
        self._gate = gate
        self.thread = threading.Thread(target=self._walk, daemon=True)
        self.thread.start()

    def _walk(self) -> None:
        while not self.stop.is_set():
            self._gate.wait(self.stop.is_set)
            self.passed += 1
            time.sleep(0.001)

    def rests_at(self) -> int:
        """How often it has passed when it stands still."""
        while True:
            before = self.passed
            time.sleep(0.1)
            if self.passed == before:
                return before


def test_a_gate_holds_lets_single_ones_pass_and_opens():
    gate = Gate()
    walker = Walker(gate)
    gate.toggle()
    before = walker.rests_at()
    for step in (1, 2):
        gate.step()
        assert walker.rests_at() == before + step
    gate.toggle()
    end_s = time.monotonic() + 10
    while walker.passed < before + 10:
        assert time.monotonic() < end_s
        time.sleep(0.001)
    gate.step()  # an open gate closes
    walker.rests_at()
    walker.stop.set()  # and who waits there can be stopped
    walker.thread.join(5)
    assert not walker.thread.is_alive()

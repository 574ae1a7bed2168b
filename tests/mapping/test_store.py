"""The store: frames follow their keyframes, updates may be stale, a change of scale moves everything alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.frames import UNNUMBERED, Estimate, Image, Keyframe, Status, Update, View
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.store import KeyframeStore

F64 = torch.float64
SIZES = ((8, 8), (2, 2))  # of dense and coarse depth


def pose(seed: int, size: float = 0.4) -> Tensor:
    return se3.exp(size * torch.randn(6, dtype=F64, generator=torch.Generator().manual_seed(seed)))


def view(frame_id: int) -> View:
    return View(frame_id, 1000 * frame_id, Image(np.zeros((8, 8, 3), np.uint8)), torch.eye(3, dtype=F64))


def added(store: KeyframeStore, frame_id: int, T_wc: Tensor, parent_id: int = -1, inv_depth: float = 0.5) -> Keyframe:
    dense, coarse = (InvDepth(torch.full(size, inv_depth), torch.full(size, 0.1 * inv_depth)) for size in SIZES)
    return store.add(Keyframe(UNNUMBERED, view(frame_id), T_wc, dense, coarse, parent_id=parent_id))


def seen(frame_id: int, keyframe: Keyframe, T_ck: Tensor, status: Status = Status.TRACKING) -> Estimate:
    return Estimate(
        frame_id, 1000 * frame_id, status, keyframe.id, T_ck, keyframe.scale, keyframe.T_wc @ se3.inverse(T_ck)
    )


def refined(keyframe: Keyframe, T_wc: Tensor, scale_change: float = 1.0) -> Keyframe:
    """What the backend makes of a keyframe whose depth was `scale_change` times too small."""
    return replace(
        keyframe,
        T_wc=T_wc,
        dense=keyframe.dense.rescaled(scale_change),
        coarse=keyframe.coarse.rescaled(scale_change),
        scale=keyframe.scale * scale_change,
        refined=True,
    )


def test_keyframes_are_numbered_and_found():
    store = KeyframeStore()
    a, b = added(store, 3, pose(0)), added(store, 7, pose(1), 0)
    assert (a.id, b.id, a.parent_id, b.parent_id) == (0, 1, -1, 0)
    assert len(store) == 2 and 1 in store and 2 not in store and store[1] is b
    assert [k.id for k in store.keyframes] == [0, 1] == [k.id for k in store.snapshot().keyframes]
    assert store.last_estimate() is None
    assert store.keyframe_trajectory().time_ns.tolist() == [3000, 7000]
    torch.testing.assert_close(torch.from_numpy(store.keyframe_trajectory().T_wc), torch.stack([pose(0), pose(1)]))


def test_an_empty_store_has_an_empty_trajectory():
    trajectory = KeyframeStore().trajectory()
    assert trajectory.time_ns.shape == (0,) and trajectory.T_wc.shape == (0, 4, 4)


def test_window_follows_the_parents_not_the_numbers():
    """Found again at keyframe 0 after 2: keyframe 3 was tracked from there."""
    store = KeyframeStore()
    for n, parent in enumerate([-1, 0, 1, 0, 3]):
        added(store, n, pose(n), parent)
    assert [k.id for k in store.window(2, 7).keyframes] == [0, 1, 2]
    assert [k.id for k in store.window(4, 7).keyframes] == [0, 3, 4]
    assert [k.id for k in store.window(4, 2).keyframes] == [3, 4]


def test_a_map_that_is_young_is_a_window_as_a_whole():
    store = KeyframeStore()
    for n in range(4):
        added(store, n, pose(n), n - 1)
    windows = [store.window(3, 2, at_first) for at_first in (3, 4)]
    assert [len(w.keyframes) for w in windows] == [2, 4] and [w.is_whole for w in windows] == [False, True]
    assert store.window(3, 4).is_whole
    added(store, 4, pose(4), 0)
    assert [k.id for k in store.window(4, 2, 5).keyframes] == [0, 4] and not store.window(4, 2, 5).is_whole


def test_frames_move_with_their_keyframe():
    store = KeyframeStore()
    k = added(store, 0, pose(0))
    T_ck = pose(1)
    store.record(seen(1, k, T_ck))
    store.apply(Update((refined(k, pose(2)),), {}))
    expected = pose(2) @ se3.inverse(T_ck)
    torch.testing.assert_close(torch.from_numpy(store.trajectory().T_wc[0]), expected, rtol=0, atol=1e-12)


def test_an_estimate_as_of_another_keyframe_is_the_same_place():
    """Also after the keyframe that it was made against has grown."""
    store = KeyframeStore()
    a, b = added(store, 0, pose(0)), added(store, 1, pose(1), 0)
    estimate = seen(2, a, pose(2))
    store.apply(Update((refined(a, pose(0), 1.5), refined(b, pose(3), 0.5)), {}))
    other = store.as_of(estimate, b.id)
    assert (other.keyframe_id, other.scale) == (b.id, 0.5)
    torch.testing.assert_close(store.pose_of(other), store.pose_of(estimate), rtol=0, atol=1e-12)
    torch.testing.assert_close(other.T_wc, store.pose_of(estimate), rtol=0, atol=1e-12)


def test_trajectory_is_of_believed_frames_in_order_of_time():
    store = KeyframeStore()
    k = added(store, 0, se3.identity())
    for frame_id, status in [(2, Status.TRACKING), (3, Status.LOST), (1, Status.TRACKING), (4, Status.TRACKING)]:
        store.record(seen(frame_id, k, pose(frame_id), status))
    trajectory = store.trajectory()
    assert trajectory.time_ns.tolist() == [1000, 2000, 4000]
    torch.testing.assert_close(torch.from_numpy(trajectory.T_wc[1]), se3.inverse(pose(2)), rtol=0, atol=1e-12)


def test_of_a_frame_that_was_placed_again_the_last_word_counts():
    """Frames of a guessed depth are placed anew once views decide it; each stays one frame, whatever came between."""
    store = KeyframeStore()
    k = added(store, 0, se3.identity())
    for frame_id in (1, 2, 3):
        store.record(seen(frame_id, k, pose(frame_id)))
    for frame_id in (2, 1):
        store.record(seen(frame_id, k, pose(10 + frame_id)))
    trajectory = store.trajectory()
    assert trajectory.time_ns.tolist() == [1000, 2000, 3000]
    for found, seed in zip(trajectory.T_wc, (11, 12, 3), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), se3.inverse(pose(seed)), rtol=0, atol=1e-12)


def test_a_frame_that_became_a_keyframe_has_its_pose():
    """Its first estimate, against the parent, is worth less than what the backend made of it."""
    store = KeyframeStore()
    a = added(store, 0, se3.identity())
    estimate = seen(5, a, pose(1))
    store.record(estimate)
    b = added(store, 5, estimate.T_wc, a.id)
    store.record(seen(6, b, pose(2)))
    store.apply(Update((a, refined(b, pose(3))), {}))
    T_wc = torch.from_numpy(store.trajectory().T_wc)
    torch.testing.assert_close(T_wc[0], pose(3), rtol=0, atol=1e-12)
    torch.testing.assert_close(T_wc[1], pose(3) @ se3.inverse(pose(2)), rtol=0, atol=1e-12)


def test_growth_of_a_keyframe_moves_its_frames_by_the_same_factor():
    """A camera that sees the world twice as large has moved twice as far; before and after the update alike."""
    store = KeyframeStore()
    k = added(store, 0, se3.identity())
    T_ck = pose(1)
    store.record(seen(1, k, T_ck))
    store.apply(Update((refined(k, se3.identity(), 2.0),), {}))
    doubled = se3.scaled_translation(T_ck, 2.0)
    store.record(seen(2, store[0], doubled))  # measured against the depth as it is now
    store.apply(Update((refined(store[0], se3.identity(), 1.5),), {}))
    tripled = se3.inverse(se3.scaled_translation(T_ck, 3.0))
    for T_wc in store.trajectory().T_wc:
        torch.testing.assert_close(torch.from_numpy(T_wc), tripled, rtol=0, atol=1e-12)
    torch.testing.assert_close(doubled[:3, 3], 2 * T_ck[:3, 3])
    assert torch.equal(doubled[:3, :3], T_ck[:3, :3])


def test_younger_keyframes_are_carried_along():
    """The backend moved and doubled keyframe 1 while 2 was added: the image of the world from 2 must not change."""
    store = KeyframeStore()
    for n in range(3):
        added(store, n, pose(n), n - 1)
    before = store.keyframes
    point_2 = torch.tensor([0.3, -0.2, 2.0, 1.0], dtype=F64)  # a point as keyframe 2 sees it
    point_1 = se3.inverse(before[1].T_wc) @ before[2].T_wc @ point_2
    store.apply(Update((before[0], refined(before[1], pose(9), 2.0)), {}))
    after = store.keyframes
    assert after[0].T_wc is before[0].T_wc and after[1].refined and not after[2].refined
    assert after[2].scale == 2.0
    torch.testing.assert_close(after[2].dense.value, before[2].dense.value / 2)
    torch.testing.assert_close(after[2].coarse.value, before[2].coarse.value / 2)
    torch.testing.assert_close(after[2].coarse.sigma, before[2].coarse.sigma / 2)
    rescaled = torch.cat([2 * point_2[:3], point_2[3:]])
    seen_from_1 = se3.inverse(after[1].T_wc) @ after[2].T_wc @ rescaled
    torch.testing.assert_close(seen_from_1[:3], 2 * point_1[:3], rtol=0, atol=1e-12)


def test_a_younger_keyframe_of_another_place_stays():
    """Tracking was lost at 1 and found again at 0 while the backend worked on 1: keyframe 2 hangs on 0, 3 on 2."""
    store = KeyframeStore()
    for n, parent in enumerate([-1, 0, 0, 2]):
        added(store, n, pose(n), parent)
    before = store.keyframes
    store.apply(Update((before[0], refined(before[1], pose(9), 2.0)), {}))
    for n in (2, 3):
        torch.testing.assert_close(store[n].T_wc, before[n].T_wc, rtol=0, atol=1e-12)
        assert store[n].scale == 1.0
    store.apply(Update((refined(before[0], pose(8), 2.0), before[1]), {}))
    for n in (2, 3):
        expected = se3.scaled_translation(se3.inverse(before[0].T_wc) @ before[n].T_wc, 2.0)
        torch.testing.assert_close(se3.inverse(pose(8)) @ store[n].T_wc, expected, rtol=0, atol=1e-12)
        assert store[n].scale == 2.0
    assert [k.id for k in store.keyframes] == [0, 1, 2, 3]


def test_older_keyframes_outside_of_the_window_stay():
    store = KeyframeStore()
    for n in range(3):
        added(store, n, pose(n), n - 1)
    first = store[0].T_wc
    store.apply(Update((refined(store[1], pose(9), 2.0),), {}))
    assert torch.equal(store[0].T_wc, first) and store[0].scale == 1.0
    assert store[2].scale == 2.0


def test_a_keyframe_that_the_backend_never_saw_moves_with_its_parent_for_ever():
    """A busy backend skipped keyframe 1 of a camera; a loop closed after keyframe 2 bends the map, and 1 with it."""
    store = KeyframeStore()
    for n, parent in enumerate([-1, 0, 0]):
        added(store, n, pose(n), parent)
    store.apply(Update((refined(store[0], pose(0)), refined(store[2], pose(2))), {}))
    T_01 = se3.inverse(store[0].T_wc) @ store[1].T_wc
    store.apply(Update((refined(store[0], pose(7), 2.0), refined(store[2], pose(8), 2.0)), {}))
    torch.testing.assert_close(
        se3.inverse(pose(7)) @ store[1].T_wc, se3.scaled_translation(T_01, 2.0), rtol=0, atol=1e-12
    )
    assert store[1].scale == 2.0 and torch.equal(store[2].T_wc, pose(8))


def test_a_frame_of_a_carried_keyframe_grows_too():
    store = KeyframeStore()
    a, b = added(store, 0, se3.identity()), added(store, 1, pose(1), 0)
    store.record(seen(2, b, pose(2)))
    before = store.trajectory().T_wc[0]
    store.apply(Update((refined(a, se3.identity(), 2.0),), {}))
    after = store.trajectory().T_wc[0]
    np.testing.assert_allclose(after[:3, 3], 2 * before[:3, 3], atol=1e-12)
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], atol=1e-12)
    assert store[b.id].scale == 2.0


def test_updates_of_unknown_keyframes_are_ignored():
    store = KeyframeStore()
    k = added(store, 0, pose(0))
    store.apply(Update((replace(k, id=17, T_wc=pose(5)),), {}))
    store.apply(Update((), {}))
    assert store.keyframes == (k,)
    store.apply(Update((refined(k, pose(1)), replace(k, id=17, T_wc=pose(5))), {}))
    assert len(store) == 1 and torch.equal(store[0].T_wc, pose(1))


def test_a_snapshot_is_not_changed_by_what_follows():
    store = KeyframeStore()
    k = added(store, 0, pose(0))
    snapshot = store.snapshot()
    added(store, 1, pose(1), 0)
    store.apply(Update((refined(k, pose(2)),), {}))
    assert snapshot.keyframes == (k,) and snapshot.keyframes[0].T_wc is k.T_wc
    torch.testing.assert_close(k.T_wc, pose(0))
    assert store[0].T_wc is not k.T_wc


def test_a_missing_keyframe_is_a_mistake_of_the_caller():
    with pytest.raises(KeyError):
        KeyframeStore()[0]


def test_rotations_stay_rotations_along_many_keyframes_that_nobody_refines():
    """Each is placed by the one before, and moves along with the first: rounding must not grow from one to the next."""
    store = KeyframeStore()
    last, T_ck = added(store, 0, se3.identity()), se3.identity()
    for n in range(1, 81):
        T_ck = pose(n, 0.02) @ T_ck
        T_wc = last.T_wc @ se3.inverse(T_ck)
        new = added(store, n, T_wc, parent_id=last.id)
        T_ck, last = se3.inverse(T_wc) @ new.T_wc, new
    for n in range(80):
        store.apply(Update((refined(store[0], pose(n)),), {}))
    R = torch.stack([keyframe.T_wc[:3, :3] for keyframe in store.keyframes])
    assert float((R @ R.mT - torch.eye(3, dtype=F64)).abs().max()) < 1e-12


# keyframes that leave


def test_what_follows_an_evicted_keyframe_stays_and_moves_on_with_another(tmp_path):
    """Frames, children and earlier evicted ones, through a later change of place and scale."""
    store = KeyframeStore(tmp_path / "old")
    keyframes = [added(store, 10 * n, pose(n), n - 1) for n in range(5)]
    for n, k in enumerate(keyframes):
        store.record(seen(10 * n + 1, k, pose(20 + n)))
    before = store.trajectory().T_wc
    store.evict(2)
    store.evict(1)  # the anchor of 2
    assert [k.id for k in store.keyframes] == [0, 3, 4] and store[3].parent_id == 0
    np.testing.assert_allclose(store.trajectory().T_wc, before, atol=1e-9)
    assert [k.id for k in store.everything()] == [0, 1, 2, 3, 4]
    for k, old in zip(store.everything(), keyframes, strict=True):
        torch.testing.assert_close(k.T_wc, old.T_wc, atol=1e-9, rtol=0)
        torch.testing.assert_close(k.dense.value, old.dense.value)
    moved, factor = pose(50), 2.0
    store.apply(Update((refined(store[0], moved, factor),), {}))
    T_01 = se3.scaled_translation(se3.inverse(keyframes[0].T_wc) @ keyframes[2].T_wc, factor)
    found = store.everything()[2]
    torch.testing.assert_close(found.T_wc, moved @ T_01, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.dense.value, keyframes[2].dense.value / factor)
    store.close()
    assert not (tmp_path / "old").exists()


def test_what_leaves_follows_the_nearest_view_whoever_its_parent_is():
    """A second walk past the place of the first, keyframe 3 beside keyframe 1."""
    store = KeyframeStore()
    places = [se3.identity(), pose(1), pose(2), pose(1) @ pose(3, 0.01)]
    for n, T_wc in enumerate(places):
        added(store, 10 * n, T_wc, n - 1)
    store.evict(1)
    moved = pose(4)
    store.apply(Update((refined(store[0], moved), refined(store[2], moved), refined(store[3], places[3], 2.0)), {}))
    T_13 = se3.inverse(places[3]) @ places[1]
    found = store.everything()[1]
    torch.testing.assert_close(found.T_wc, places[3] @ se3.scaled_translation(T_13, 2.0), atol=1e-9, rtol=0)
    store.close()


def test_frames_go_where_their_evicted_keyframe_is_placed():
    store = KeyframeStore()
    for n in range(4):
        store.record(seen(10 * n + 1, added(store, 10 * n, pose(n), n - 1), pose(20 + n)))
    store.evict(1)
    store.evict(2)
    assert [k.id for k in store.archived()] == [1, 2]
    store.move_archived({2: pose(9)})
    poses = store.frame_poses()
    at = dict(zip(poses.frame_id.tolist(), torch.from_numpy(poses.T_wc).unbind(), strict=True))
    torch.testing.assert_close(at[21], pose(9) @ se3.inverse(pose(22)), atol=1e-9, rtol=0)
    torch.testing.assert_close(at[11], pose(1) @ se3.inverse(pose(21)), atol=1e-9, rtol=0)
    torch.testing.assert_close([k.T_wc for k in store.archived()], [pose(1), pose(9)], atol=1e-9, rtol=0)
    store.close()


def test_a_frame_that_was_an_evicted_keyframe_keeps_its_pose():
    store = KeyframeStore()
    a = added(store, 0, se3.identity())
    estimate = seen(5, a, pose(1))
    store.record(estimate)
    b = added(store, 5, estimate.T_wc, a.id)
    added(store, 9, pose(4), b.id)
    store.apply(Update((a, refined(b, pose(3))), {}))
    store.evict(b.id)
    np.testing.assert_allclose(store.trajectory().T_wc[0], pose(3).numpy(), atol=1e-9)
    store.close()


def test_the_log_grows_past_its_first_size():
    store = KeyframeStore()
    k = added(store, 0, se3.identity())
    for n in range(3000):
        store.record(seen(n + 1, k, se3.identity()))
    assert len(store.trajectory()) == 3000


def test_each_map_has_a_trajectory_of_its_own_and_what_leaves_stays_in_it():
    """Two keyframes of a map, then three of another, of which the second leaves; then the maps are joined."""
    store = KeyframeStore()
    a = added(store, 0, pose(0))
    added(store, 1, pose(1), a.id)
    c = added(store, 2, pose(2))
    d = added(store, 3, pose(3), c.id)
    e = added(store, 4, pose(4), d.id)
    for k in store.keyframes:
        store.record(seen(k.view.frame_id, k, se3.identity()))
    assert [k.map_id for k in store.keyframes] == [a.id, a.id, c.id, c.id, c.id]
    assert store.map_ids() == [c.id, a.id]  # most frames first
    store.evict(d.id)
    assert store[e.id].parent_id == c.id
    assert store.trajectory().time_ns.tolist() == [view(n).time_ns for n in (2, 3, 4)]
    assert len(store.trajectory(a.id)) == 2 and len(store.keyframe_trajectory(a.id)) == 2
    store.apply(Update(tuple(replace(k, map_id=a.id) for k in store.keyframes), {}))
    assert store.map_ids() == [a.id] and len(store.trajectory()) == 5
    assert {k.map_id for k in store.everything()} == {a.id} and len(store.everything()) == 5

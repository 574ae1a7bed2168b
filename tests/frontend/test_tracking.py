"""One frame to one pose: motion model, tracker, keyframing, finding the place again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.frames import UNNUMBERED, Estimate, Image, Keyframe, Status, Update, View
from slam.frontend.keyframing import DEPTH_WAIT, Keyframing, KeyframingConfig
from slam.frontend.motion_model import MotionModel, MotionModelConfig
from slam.frontend.relocaliser import Relocaliser, RelocaliserConfig, thumbnail
from slam.frontend.tracker import MIN_PARALLAX_PX, track
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher
from slam.recognition.keypoints import detect_keypoints

F64 = torch.float64


def twist(*xi: float) -> Tensor:
    return se3.exp(torch.tensor(xi, dtype=F64))


def blank(frame_id: int = 0) -> View:
    return View(frame_id, frame_id, Image(np.zeros((8, 8, 3), np.uint8)), torch.eye(3, dtype=F64))


def estimate(frame_id: int, keyframe_id: int, T_ck: Tensor, scale: float = 1.0, **values: object) -> Estimate:
    made = Estimate(frame_id, frame_id, Status.TRACKING, keyframe_id, T_ck, scale, se3.inverse(T_ck))
    return replace(made, **values)


def store_of(*poses: Tensor) -> KeyframeStore:
    store = KeyframeStore()
    for n, T_wc in enumerate(poses):
        dense, coarse = (InvDepth(torch.full(size, 0.5), torch.full(size, 0.05)) for size in ((8, 8), (2, 2)))
        store.add(Keyframe(UNNUMBERED, blank(n), T_wc, dense, coarse, parent_id=n - 1))
    return store


# motion model


def test_without_history_the_guess_is_the_keyframe_itself():
    store = store_of(twist(1, 2, 3, 0.1, 0.2, 0.3))
    assert [g.tolist() for g in MotionModel().guesses(store[0], store)] == [se3.identity().tolist()]


@pytest.mark.parametrize("damping", [0.0, 0.5, 1.0])
def test_guess_repeats_the_last_step_damped_then_stands_still(damping):
    store, model = store_of(se3.identity()), MotionModel(MotionModelConfig(damping))
    xi = torch.tensor([0.1, 0.0, 0.05, 0.0, 0.02, 0.03], dtype=F64)
    first, second = twist(0.3, 0, 0, 0, 0.1, 0), se3.exp(xi) @ twist(0.3, 0, 0, 0, 0.1, 0)
    model.observe(estimate(1, 0, first), store)
    model.observe(estimate(2, 0, second), store)
    moving, still = model.guesses(store[0], store)
    torch.testing.assert_close(moving, se3.exp(damping * xi) @ second, rtol=0, atol=1e-12)
    torch.testing.assert_close(still, second, rtol=0, atol=1e-12)


def test_guess_against_a_new_keyframe_is_the_same_place_in_the_world():
    T_wk = twist(0.2, -0.1, 0.4, 0.1, 0, 0.2)
    store, model = store_of(se3.identity(), T_wk), MotionModel(MotionModelConfig(1.0))
    steps = [twist(0.1 * n, 0, 0, 0, 0.02 * n, 0) for n in (1, 2)]
    for n, T_c0 in enumerate(steps):
        model.observe(estimate(n, 0, T_c0), store)
    for a, b in zip(model.guesses(store[1], store), model.guesses(store[0], store), strict=True):
        torch.testing.assert_close(a, b @ T_wk, rtol=0, atol=1e-12)


def test_guess_follows_the_scale_of_the_keyframe():
    """The backend doubled the depth between two frames: positions and steps are twice as long from then on."""
    store, model = store_of(se3.identity()), MotionModel(MotionModelConfig(1.0))
    model.observe(estimate(1, 0, twist(0.1, 0, 0, 0, 0, 0)), store)
    model.observe(estimate(2, 0, twist(0.2, 0, 0, 0, 0, 0)), store)
    k = store[0]
    store.apply(Update((replace(k, scale=2.0, dense=k.dense.rescaled(2.0)),), {}))
    assert model.guesses(store[0], store)[1][0, 3] == pytest.approx(0.4)
    model.observe(estimate(3, 0, twist(0.6, 0, 0, 0, 0, 0), scale=2.0), store)
    assert [float(g[0, 3]) for g in model.guesses(store[0], store)] == pytest.approx([0.8, 0.6])


def test_no_velocity_is_taken_from_the_gap_after_a_loss():
    store, model = store_of(se3.identity()), MotionModel(MotionModelConfig(1.0))
    model.observe(estimate(1, 0, twist(0.1, 0, 0, 0, 0, 0)), store)
    model.observe(estimate(2, 0, twist(0.2, 0, 0, 0, 0, 0)), store)
    model.forget()
    found = twist(3.0, 0, 0, 0, 0.5, 0)
    model.observe(estimate(50, 0, found), store)
    for guess in model.guesses(store[0], store):
        torch.testing.assert_close(guess, found, rtol=0, atol=1e-12)
    model.observe(estimate(51, 0, twist(0.1, 0, 0, 0, 0, 0) @ found), store)
    expected = twist(0.2, 0, 0, 0, 0, 0) @ found
    torch.testing.assert_close(model.guesses(store[0], store)[0], expected, rtol=0, atol=1e-12)


# tracker


def test_track_places_a_view_in_the_world(world, wall_and_box):
    T_kw, T_cw = wall_and_box.moved(0.3, 0.1, 0, 0, 0.1, 0), wall_and_box.moved(0.36, 0.12, -0.03, 0.01, 0.08, 0.02)
    keyframe = replace(world.keyframe(T_kw, 4), scale=1.7)
    found = track(Matcher(world.flow), world.view(T_cw, 9), keyframe, [se3.identity()])
    assert found.status is Status.TRACKING and (found.frame_id, found.keyframe_id, found.scale) == (9, 4, 1.7)
    assert found.time_ns == world.view(T_cw, 9).time_ns
    error = se3.log(se3.inverse(T_cw @ found.T_wc))
    assert float(error[:3].norm()) < 0.006 and float(error[3:].norm()) < 0.003
    torch.testing.assert_close(found.T_wc, keyframe.T_wc @ se3.inverse(found.T_ck), rtol=0, atol=1e-12)
    assert found.inlier_ratio > 0.8 and found.visible_ratio > 0.8 and found.mean_flow_px > 2


def test_a_bad_first_guess_is_followed_by_the_next(world, wall_and_box):
    keyframe, T_cw = world.keyframe(se3.identity()), wall_and_box.moved(0.05)
    nonsense = wall_and_box.moved(rx=2.0)  # looks away
    alone = track(Matcher(world.flow), world.view(T_cw, 1), keyframe, [nonsense])
    assert alone.status is Status.LOST
    both = track(Matcher(world.flow), world.view(T_cw, 1), keyframe, [nonsense, se3.identity()])
    assert both.status is Status.TRACKING and float(se3.log(both.T_ck @ se3.inverse(T_cw)).norm()) < 0.008


def test_a_foreign_image_is_lost(world, wall_and_box):
    foreign = wall_and_box.World(seed=5).view(se3.identity(), 1)
    assert track(Matcher(world.flow), foreign, world.keyframe(se3.identity()), [se3.identity()]).status is Status.LOST


def guessed(keyframe: Keyframe, factor: Tensor) -> Keyframe:
    """The same with a depth wrong by a factor (hc, wc), that a prior suggests."""
    value = factor * keyframe.coarse.value
    coarse = InvDepth(value, 0.4 * value)
    return replace(keyframe, coarse=coarse, prior=coarse)


@pytest.fixture(scope="module")
def wrong(world) -> Keyframe:
    """Nearer by a half at the left than at the right."""
    return guessed(world.keyframe(se3.identity()), torch.linspace(1.5, 1.0, 40).expand(30, 40))


def test_a_turn_before_a_guessed_depth_is_a_turn_and_nothing_else(world, wall_and_box, wrong):
    """What errors of the flow would make a translation of, without parallax; exactly zero, and not nearly."""
    T_cw = wall_and_box.moved(rx=0.03, ry=-0.09, rz=0.02)
    found = track(Matcher(world.flow), world.view(T_cw, 3), wrong, [se3.identity()])
    assert found.status is Status.TRACKING and found.mean_flow_px > 8
    assert found.T_ck[:3, 3].tolist() == [0, 0, 0] and found.T_wc[:3, 3].tolist() == [0, 0, 0]
    assert 0 <= found.parallax_px < 0.7 * MIN_PARALLAX_PX
    assert float(se3.angle_rad(found.T_ck @ se3.inverse(T_cw))) < 0.001
    torch.testing.assert_close(found.T_ck[:3, :3] @ found.T_ck[:3, :3].mT, torch.eye(3, dtype=F64))


def test_parallax_before_a_guessed_depth_is_a_translation(world, wall_and_box, wrong):
    T_cw = wall_and_box.moved(0.12, ry=-0.03)
    found = track(Matcher(world.flow), world.view(T_cw, 3), wrong, [se3.identity()])
    assert found.status is Status.TRACKING and found.parallax_px > MIN_PARALLAX_PX
    assert 0.04 < float(found.T_ck[0, 3]) < 0.14  # of a wrong depth, about as far


def test_against_a_decided_depth_nothing_is_asked_of_the_parallax(world, wall_and_box, wrong):
    """With a prior beside it or without: a quarter of the cells is enough."""
    T_cw = wall_and_box.moved(ry=-0.03)
    known = world.keyframe(se3.identity())
    left = torch.arange(40).expand(30, 40) < 13
    partly = InvDepth(*(torch.where(left, a, b) for a, b in ((known.coarse.value, wrong.coarse.value),
                                                             (known.coarse.sigma, wrong.coarse.sigma))))  # fmt: skip
    for keyframe in (known, replace(known, prior=wrong.prior), replace(wrong, coarse=partly)):
        found = track(Matcher(world.flow), world.view(T_cw, 3), keyframe, [se3.identity()])
        assert found.parallax_px is None and found.T_ck[:3, 3].any()
    without_prior = track(Matcher(world.flow), world.view(T_cw, 3), known, [se3.identity()])
    with_prior = track(Matcher(world.flow), world.view(T_cw, 3), replace(known, prior=wrong.prior), [se3.identity()])
    assert torch.equal(without_prior.T_ck, with_prior.T_ck)


def test_a_foreign_image_is_lost_before_a_guess_too(world, wall_and_box, wrong):
    foreign = wall_and_box.World(seed=5).view(se3.identity(), 1)
    found = track(Matcher(world.flow), foreign, wrong, [se3.identity()])
    assert found.status is Status.LOST and found.parallax_px is None


# keyframing


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"mean_flow_px": 10.0, "visible_ratio": 0.9}, False),
        ({"mean_flow_px": 10.1, "visible_ratio": 0.9}, True),
        ({"mean_flow_px": 1.0, "visible_ratio": 0.59}, True),
        ({"mean_flow_px": 99.0, "visible_ratio": 0.1, "status": Status.LOST}, False),
    ],
)
def test_keyframes_are_wanted_by_flow_and_overlap_of_tracked_frames(values, wanted):
    keyframing = Keyframing(KeyframingConfig(flow_px=10.0, min_visible_ratio=0.6))
    assert keyframing.wants(estimate(1, 0, se3.identity(), **values)) is wanted


def test_translation_whose_unit_is_unknown_makes_no_keyframe():
    far = twist(1e6, 0, 0, 0, 0, 0)
    assert not Keyframing().wants(estimate(1, 0, far, mean_flow_px=1.0, visible_ratio=1.0))


def test_a_fading_match_makes_a_keyframe_measured_against_the_same_reference():
    keyframing = Keyframing(KeyframingConfig(min_confidence_ratio=0.5))

    def wants(keyframe_id: int, confidence: float) -> bool:
        seen = estimate(1, keyframe_id, se3.identity(), visible_ratio=1.0, mean_confidence=confidence)
        return keyframing.wants(seen)

    assert [wants(0, c) for c in (0.6, 0.8, 0.5, 0.39)] == [False, False, False, True]
    assert [wants(1, c) for c in (0.3, 0.2, 0.14)] == [False, False, True]  # a new reference begins anew


@pytest.mark.parametrize(
    ("values", "exhausted"),
    [
        ({"mean_flow_px": 24.0, "visible_ratio": 0.5}, False),
        ({"mean_flow_px": 24.1, "visible_ratio": 0.5}, True),
        ({"mean_flow_px": 1.0, "visible_ratio": 0.49}, True),
    ],
)
def test_a_reference_is_exhausted_by_flow_or_overlap(values, exhausted):
    """Later than a new keyframe is wanted: until then frames wait for the one that the backend works on."""
    seen = estimate(1, 0, se3.identity(), **values)
    assert Keyframing().exhausted(seen) is exhausted and Keyframing().wants(seen)


def test_a_metric_map_waits_a_few_frames_for_one_with_depth():
    def wants(frame_id: int, depth_frame_id: int, **values: object) -> bool:
        seen = estimate(frame_id, 0, se3.identity(), mean_flow_px=17.0, visible_ratio=0.9, metric=True)
        return Keyframing().wants(replace(seen, **values), depth_frame_id)

    assert wants(9, 9) and not wants(10, 9) and not wants(8 + DEPTH_WAIT, 9) and wants(9 + DEPTH_WAIT, 9)
    assert wants(10, 9, metric=False)  # depth is not used there
    assert wants(10, 9, mean_flow_px=25.0)  # exhausted


def test_the_last_frame_becomes_a_keyframe_a_fraction_of_the_way_to_the_next():
    def wants(mean_flow_px: float, **values: object) -> bool:
        seen = estimate(9, 0, se3.identity(), mean_flow_px=mean_flow_px, visible_ratio=1.0)
        return Keyframing(KeyframingConfig(flow_px=16.0)).wants_last(replace(seen, **values), depth_frame_id=8)

    assert wants(5.0) and not wants(3.0) and not wants(5.0, status=Status.LOST)
    assert not wants(5.0, metric=True)  # it has no depth, and the one before has


# finding the place again


@pytest.fixture(scope="module")
def places(world, wall_and_box):
    """Five keyframes along the wall, 0.8 apart: images with no more than a third in common."""
    store = KeyframeStore()
    for n in range(5):
        k = world.keyframe(wall_and_box.moved(-0.8 * n), n, n)
        store.add(replace(k, parent_id=n - 1))
    return store


@pytest.mark.parametrize("n", range(5))
def test_the_right_keyframe_is_found(places, world, wall_and_box, n):
    T_cw = wall_and_box.moved(-0.8 * n + 0.06, 0.02, -0.04, 0.01, 0.02, 0.02)
    finder = Relocaliser(Matcher(world.flow), RelocaliserConfig(candidates=2))
    found = finder.find(world.view(T_cw, 77), places)
    assert found.status is Status.TRACKING and found.keyframe_id == n and found.frame_id == 77
    assert float(se3.log(T_cw @ found.T_wc).norm()) < 0.01


def test_a_foreign_image_and_a_dark_one_are_found_nowhere(places, world, wall_and_box):
    finder = Relocaliser(Matcher(world.flow))
    foreign = wall_and_box.World(seed=5).view(se3.identity(), 7)
    assert finder.find(foreign, places).status is Status.LOST
    dark = Image(np.zeros((wall_and_box.H, wall_and_box.W, 3), np.uint8))
    view = View(8, 8, dark, wall_and_box.K)
    found = finder.find(view, places)
    assert found.status is Status.LOST and found.frame_id == 8


@pytest.mark.parametrize("limit", [{"min_visible_ratio": 0.97}, {"min_confidence": 1.0}])
def test_relocalisation_is_stricter_than_tracking(places, world, wall_and_box, limit):
    T_cw = wall_and_box.moved(0.15)  # a tenth of the keyframe has left the image
    view = world.view(T_cw, 7)
    assert track(Matcher(world.flow), view, places[0], [T_cw]).status is Status.TRACKING
    assert Relocaliser(Matcher(world.flow)).find(view, places).status is Status.TRACKING
    assert Relocaliser(Matcher(world.flow), RelocaliserConfig(**limit)).find(view, places).status is Status.LOST


@pytest.mark.parametrize("limit", [{"max_cycle_deg": 1e-4}, {"max_cycle_shift": 1e-4}])
def test_a_match_that_does_not_lead_back_is_not_believed(places, world, wall_and_box, limit):
    """The way back from the view must end where it began; here no measured way is as exact as asked."""
    view = world.view(wall_and_box.moved(0.06, 0.02, -0.04, 0.01, 0.02, 0.02), 7)
    assert Relocaliser(Matcher(world.flow)).find(view, places).status is Status.TRACKING
    lost = Relocaliser(Matcher(world.flow), RelocaliserConfig(**limit)).find(view, places)
    assert lost.status is Status.LOST and lost.inlier_ratio > 0.5  # the match itself was good


def test_keypoints_find_a_place_half_an_image_away(places, world, wall_and_box):
    """Thumbnails of images so far apart have nothing in common, and flow from a standing start is lost."""
    known = KeyframeStore()
    for k in (places[0], places[3]):
        known.add(replace(k, parent_id=-1))
    T_cw = wall_and_box.moved(1.0, 0.05, 0, 0, 0.02, 0.15)
    view = world.view(T_cw, 7)
    finder = Relocaliser(Matcher(world.flow))
    assert finder.find(view, known).status is Status.LOST
    known.apply(Update(tuple(replace(k, keypoints=detect_keypoints(k.view.image)) for k in known.keyframes), {}))
    found = finder.find(view, known)
    assert found.status is Status.TRACKING and found.keyframe_id == 0 and found.mean_flow_px > 65  # of 160
    assert float(se3.log(T_cw @ found.T_wc).norm()) < 0.02  # 1 % of the depth


def test_a_keyframe_that_left_the_map_is_not_found(places, world, wall_and_box):
    known = KeyframeStore()
    for k in places.keyframes:
        known.add(k)
    finder, view = Relocaliser(Matcher(world.flow)), world.view(wall_and_box.moved(-1.66), 7)
    assert finder.find(view, known).keyframe_id == 2
    known.evict(2)
    assert finder.find(view, known).keyframe_id != 2


def test_among_equals_the_newest_keyframe_is_tried_first(world):
    store = KeyframeStore()
    k = world.keyframe(se3.identity())
    for n in range(6):
        store.add(replace(k, parent_id=n - 1))
    finder = Relocaliser(Matcher(world.flow), RelocaliserConfig(candidates=2))
    assert finder.similar_keyframes(k.view, store) == [5, 4]


def test_thumbnail_does_not_mind_exposure(world):
    view = world.view(se3.identity())
    darker = replace(view, image=Image((0.6 * view.image.rgb + 20).round().astype(np.uint8)))
    assert float(thumbnail(view) @ thumbnail(darker)) > 0.999
    assert float(thumbnail(view).norm()) == pytest.approx(1)
    assert not thumbnail(replace(view, image=Image(np.full_like(view.image.rgb, 7)))).any()


def test_rescaled_leaves_the_rotation():
    T = twist(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert torch.equal(se3.scaled_translation(T, 3.0)[:3, :3], T[:3, :3])
    assert torch.equal(se3.scaled_translation(T, 3.0)[:3, 3], 3 * T[:3, 3])

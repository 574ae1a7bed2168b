"""The start in a depth that is a guess: replaced by one that views decide, in the unit of the guess."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.frames import Image, Keyframe, Status, View
from slam.frontend.initialiser import InitialiserConfig, InitialMap
from slam.frontend.start import Start, first_keyframe
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.mapping.promotion import placed_anew, promote
from slam.matching.matcher import Matcher

GUESSED_UNIT = 3.0  # the guess has all inverse depths so many times too large, besides its wrong shape


def wrong_depth(world) -> InvDepth:
    """Without the box, and slanted the other way than the true wall."""
    slant = torch.linspace(0.75, 1.25, 40).expand(30, 40)
    value = GUESSED_UNIT * world.cell_inv_depth(se3.identity()).median() * slant
    return InvDepth(value, 0.4 * value)


@pytest.fixture(scope="module")
def turned(world, wall_and_box):
    """A start whose camera turned away from its first view, and the keyframe that it began with."""
    start = Start(Matcher(world.flow), Matcher(world.flow), prior=lambda view: wrong_depth(world))
    for n in range(20):
        first = start.add(world.view(wall_and_box.moved(ry=0.03 * n), n))
        if first is not None:
            break
    return start, first


@pytest.fixture
def start(world) -> Start:
    return Start(Matcher(world.flow), Matcher(world.flow), prior=lambda view: wrong_depth(world))


@pytest.fixture
def keyframe(world) -> Keyframe:
    """The first view with a depth that is a guess."""
    guess = wrong_depth(world)
    return replace(world.keyframe(se3.identity(), 4), coarse=guess, prior=guess, on_guess=True)


def taken(start: Start, view: View, keyframe: Keyframe, T_cw: Tensor) -> tuple[InitialMap, Keyframe] | None:
    """What the start makes of a view from T_cw once it was tracked; a motion model knows about where it is."""
    estimate = track(start.tracking, view, keyframe, [se3.scaled_translation(T_cw, 1 / GUESSED_UNIT)])
    assert estimate.status is Status.TRACKING
    return start.again(view, estimate, {keyframe.id: keyframe})


def moving(wall_and_box, count: int = 12) -> list[Tensor]:
    """T_cw of a camera that goes to the side."""
    return [wall_and_box.moved(0.03 * n, 0.006 * n, 0, 0, 0.004 * n, 0.002 * n) for n in range(1, count)]


def test_a_turn_begins_a_map_in_which_all_its_frames_have_a_place(turned, wall_and_box):
    start, first = turned
    keyframe = replace(first_keyframe(first), id=0)
    assert keyframe.is_guessed and not keyframe.awaits_parallax and not keyframe.metric
    estimates = start.place(first, keyframe)
    assert [e.frame_id for e in estimates] == list(range(len(first.views) + 1)) and len(estimates) > 8
    for n, e in enumerate(estimates):
        assert e.status is Status.TRACKING and not e.T_wc[:3, 3].any() and e.parallax_px is not None
        assert float(se3.angle_rad(e.T_ck @ se3.inverse(wall_and_box.moved(ry=0.03 * n)))) < 0.004


def test_views_with_parallax_decide_a_depth_that_was_a_guess(start, keyframe, world, wall_and_box):
    """Shape and poses are the true ones, in the unit of the guess: no frame that was placed before must move."""
    found, poses = None, moving(wall_and_box)
    for count, T_cw in enumerate(poses, 1):
        found = taken(start, world.view(T_cw, count), keyframe, T_cw)
        if found is not None:
            break
    assert found is not None and count >= InitialiserConfig().min_views - 1
    first, decided = found
    assert first.view is keyframe.view and [v.frame_id for v in first.views] == list(range(1, count + 1))
    truth = world.cell_inv_depth(se3.identity())
    sure = decided.coarse.decided
    assert sure.float().mean() > 0.4 and not decided.is_guessed and not decided.awaits_parallax
    ratio = (decided.coarse.value / truth)[sure]
    wrong = (keyframe.coarse.value / truth)[sure]
    assert float((ratio / ratio.median() - 1).abs().median()) < 0.05
    assert float((wrong / wrong.median() - 1).abs().median()) > 0.08
    assert float(ratio.median()) == pytest.approx(float(wrong.median()), rel=0.05)
    assert (decided.id, decided.view, decided.prior) == (keyframe.id, keyframe.view, keyframe.prior)
    assert torch.equal(decided.T_wc, keyframe.T_wc) and decided.coarse.known.all()
    torch.testing.assert_close(decided.dense.value, decided.coarse.upsampled((120, 160)).value)
    unit = 1 / float(ratio.median())
    for e, T_cw in zip(start.place(first, decided)[1:], poses, strict=False):
        assert e.status is Status.TRACKING and e.parallax_px is None
        assert float((e.T_ck[:3, 3] - unit * T_cw[:3, 3]).norm()) < 0.02 * unit
    for T_ck, T_cw in zip(first.T_cks, poses, strict=False):
        assert float((T_ck[:3, 3] - unit * T_cw[:3, 3]).norm()) < 0.07 * unit


def test_parallax_is_gathered_over_several_keyframes(start, keyframe, world, wall_and_box):
    """The camera turns away so soon that each keyframe alone sees too little: the first is decided, and one after it
    is placed anew by it."""
    poses = [wall_and_box.moved(0.02 * n, 0.004 * n, 0, 0, 0.004 * n, 0) for n in range(1, 25)]
    keyframes, found, count = {keyframe.id: keyframe}, None, 0
    while found is None:
        T_cw, count = poses[count], count + 1
        view, reference = world.view(T_cw, count), keyframes[max(keyframes)]
        T_guess = se3.scaled_translation(T_cw, 1 / GUESSED_UNIT) @ se3.inverse(reference.T_wc)
        estimate = track(start.tracking, view, reference, [T_guess])
        assert estimate.status is Status.TRACKING and estimate.parallax_px is not None
        assert estimate.parallax_px < InitialiserConfig().parallax_px
        found = start.again(view, estimate, keyframes)
        if count % 3 == 0:
            later = replace(promote(view, estimate, reference, 4, wrong_depth(world)), id=keyframe.id + count)
            keyframes[later.id] = replace(later, coarse=wrong_depth(world), on_guess=True)
    first, decided = found
    assert len(keyframes) > 2 and first.view is keyframe.view and not decided.is_guessed
    later = keyframes[keyframe.id + 3]
    [estimate] = [e for e in start.place(first, decided) if e.frame_id == later.view.frame_id]
    anew = placed_anew(later, estimate, decided, 4)
    assert (anew.id, anew.view, anew.parent_id) == (later.id, later.view, later.parent_id) and not anew.awaits_parallax
    unit = float((world.cell_inv_depth(se3.identity()) / decided.coarse.value)[decided.coarse.decided].median())
    expected = unit * poses[2][:3, 3]
    assert float((se3.inverse(anew.T_wc)[:3, 3] - expected).norm()) < 0.1 * float(expected.norm())


def test_what_no_view_decides_takes_the_shape_of_the_prior(start, keyframe, world, wall_and_box):
    """A part of every image is plain; the guess says that something stands out there, twice as near."""

    def with_plain_part(view: View) -> View:
        rgb = view.image.rgb.copy()
        rgb[:60, :80] = 128
        return replace(view, image=Image(rgb))

    before, thing = (slice(2, 12), slice(2, 16)), (slice(4, 9), slice(5, 12))
    value = GUESSED_UNIT * world.cell_inv_depth(se3.identity())
    value[thing] *= 2
    guess = InvDepth(value, 0.4 * value)
    blank = replace(keyframe, view=with_plain_part(keyframe.view), coarse=guess, prior=guess)
    found = None
    for n, T_cw in enumerate(moving(wall_and_box), 1):
        found = found or taken(start, with_plain_part(world.view(T_cw, n)), blank, T_cw)
    assert found is not None
    coarse = found[1].coarse
    assert not coarse.decided[before].any() and coarse.confidence[before].max() < 0.1
    torch.testing.assert_close(coarse.relative_sigma[before], torch.full((10, 14), UNMEASURED_SIGMA))
    around = (coarse.value[3, 5:12] + coarse.value[9, 5:12]) / 2
    assert 1.6 < float((coarse.value[thing].mean(0) / around).median()) < 2.4


def test_a_turn_decides_nothing(start, keyframe, world, wall_and_box):
    for n in range(1, 10):
        T_cw = wall_and_box.moved(ry=0.012 * n)
        assert taken(start, world.view(T_cw, n), keyframe, T_cw) is None


def test_frames_before_the_parallax_are_placed_again_with_those_that_decided(start, keyframe, world, wall_and_box):
    """A slow camera: against the guess its first frames had no translation, and would keep none."""
    poses = [wall_and_box.moved(0.003 * n) for n in range(1, 5)] + moving(wall_and_box)[1:]
    found = None
    for n, T_cw in enumerate(poses, 1):
        view = world.view(T_cw, n)
        if n <= 3:
            assert not track(start.tracking, view, keyframe, [se3.identity()]).T_ck[:3, 3].any()
        found = taken(start, view, keyframe, T_cw)
        if found is not None:
            break
    assert found is not None
    first, decided = found
    assert [v.frame_id for v in first.views] == list(range(1, n + 1)) and len(first.T_cks) == n
    unit = float((world.cell_inv_depth(se3.identity()) / decided.coarse.value)[decided.coarse.decided].median())
    for e, T_cw in zip(start.place(first, decided)[1:], poses, strict=False):
        assert float((e.T_ck[:3, 3] - unit * T_cw[:3, 3]).norm()) < 0.004 * unit + 0.05 * float(e.T_ck[:3, 3].norm())


def test_another_keyframe_gathers_anew(start, keyframe, world, wall_and_box):
    """Views of the keyframe before belong to that one."""
    poses = moving(wall_and_box)
    for n, T_cw in enumerate(poses[:3], 1):
        assert taken(start, world.view(T_cw, n), keyframe, T_cw) is None
    other = replace(keyframe, id=5, view=world.view(poses[2], 3))
    for n, T_cw in enumerate(poses[3:], 4):
        found = taken(start, world.view(T_cw, n), other, T_cw)
        if found is not None:
            break
    assert found is not None and found[0].view is other.view
    assert [v.frame_id for v in found[0].views] == list(range(4, n + 1)) and found[1].id == 5


def test_the_ratio_in_sight_is_a_share():
    with pytest.raises(ConfigError, match="turned_visible_ratio must be from 0 to 1, got 2"):
        InitialiserConfig(turned_visible_ratio=2.0)

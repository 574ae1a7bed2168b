"""Bundle adjustment of a window: from disturbed poses and depths of real pixels to better ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.backend.adjustment import Adjustment
from slam.backend.config import BackendConfig
from slam.backend.graph import KeyframeGraph
from slam.frames import Image, Keyframe, Window
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.matching.dis import DisFlow
from slam.matching.matcher import Matcher
from slam.threads import Helpers
from slam.timing import StageTimes

F64 = torch.float64


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def truth(world, wall_and_box) -> tuple[Keyframe, ...]:
    """Four keyframes along a curve, 0.1 apart."""
    return tuple(
        world.keyframe(wall_and_box.moved(0.1 * n, 0.02 * n, -0.01 * n, 0.0, 0.03 * n, 0.01 * n), n, 5 * n)
        for n in range(4)
    )


def disturbed(truth: tuple[Keyframe, ...], held: int = 2) -> tuple[Keyframe, ...]:
    """Poses wrong by about 0.02 units and 0.6 degrees, depth by 10 %; the first `held` are true."""
    out = list(truth[:held])
    for k in truth[held:]:
        xi = 0.02 * torch.ones(6, dtype=F64) * torch.tensor([1, -1, 1, 0.5, -0.5, 0.5]) * (-1) ** k.id
        noise = torch.exp(0.1 * randn(*k.coarse.value.shape, seed=k.id))
        T_wc = k.T_wc @ se3.exp(xi)
        out.append(replace(k, T_wc=T_wc, coarse=InvDepth(k.coarse.value * noise, 0.1 * k.coarse.value)))
    return tuple(out)


def adjusted(world, keyframes: tuple[Keyframe, ...]) -> tuple[Keyframe, ...]:
    """The window after a first adjustment."""
    return Adjustment(Matcher(world.flow)).adjust_window(KeyframeGraph(), Window(keyframes), StageTimes())


def pose_errors(keyframes: tuple[Keyframe, ...], truth: tuple[Keyframe, ...]) -> list[float]:
    return [float(se3.log(se3.inverse(a.T_wc) @ b.T_wc).norm()) for a, b in zip(keyframes, truth, strict=True)]


def depth_errors(keyframes: tuple[Keyframe, ...], truth: tuple[Keyframe, ...]) -> list[float]:
    return [float((a.coarse.value / b.coarse.value - 1).abs().median()) for a, b in zip(keyframes, truth, strict=True)]


def test_poses_and_depths_get_better(world, truth):
    start = disturbed(truth)
    graph, clock = KeyframeGraph(), StageTimes()
    keyframes = Adjustment(Matcher(world.flow)).adjust_window(graph, Window(start), clock)
    assert [k.id for k in keyframes] == [0, 1, 2, 3] and all(k.refined for k in keyframes)
    assert graph.keyframes == list(keyframes)
    before, after = pose_errors(start, truth), pose_errors(keyframes, truth)
    assert after[:2] == pytest.approx([0, 0], abs=1e-9)  # held: they carry place and scale
    assert all(a < 0.5 * b for a, b in zip(after[2:], before[2:]))
    before, after = depth_errors(start, truth), depth_errors(keyframes, truth)
    assert all(a < 0.5 * b for a, b in zip(after[2:], before[2:]))
    assert set(clock.totals()) == {"match", "adjust"}


def test_of_a_whole_map_only_the_first_keyframe_is_held(world, truth):
    """The second was placed by the depth that a map begins with, and none before it says that it is in its place."""
    start = disturbed(truth, held=1)
    errors = {}
    for is_whole in (False, True):
        graph, keyframes = KeyframeGraph(), start
        for _ in range(3):
            window = Window(keyframes, is_whole=is_whole)
            keyframes = Adjustment(Matcher(world.flow)).adjust_window(graph, window, StageTimes())
        errors[is_whole] = pose_errors(keyframes, truth)
    assert errors[True][0] == pytest.approx(0, abs=1e-9)
    assert errors[False][1] == pytest.approx(pose_errors(start, truth)[1])
    assert all(whole < 0.5 * part for whole, part in zip(errors[True][1:], errors[False][1:], strict=True)), errors


def with_a_mover(keyframes: tuple[Keyframe, ...]) -> tuple[Keyframe, ...]:
    """A square of another texture goes over the images, upwards and aside, by 5 pixels from one to the next."""
    texture = np.random.default_rng(5).integers(0, 255, (14, 14, 3)).astype(np.uint8)
    texture = np.kron(texture, np.ones((4, 4, 1), np.uint8))
    out = []
    for n, k in enumerate(keyframes):
        rgb = k.view.image.rgb.copy()
        rgb[40 - 4 * n : 96 - 4 * n, 40 + 3 * n : 96 + 3 * n] = texture
        out.append(replace(k, view=replace(k.view, image=Image(rgb))))
    return tuple(out)


def test_what_moves_by_itself_is_known_and_does_not_pull(world, truth):
    start = with_a_mover(disturbed(truth))
    found = {}
    for consensus in (0.0, 5.0):
        graph, keyframes = KeyframeGraph(), start
        adjustment = Adjustment(Matcher(world.flow), BackendConfig(consensus=consensus))
        for _ in range(3):  # a keyframe stays in the window for a while
            keyframes = adjustment.adjust_window(graph, Window(keyframes), StageTimes())
        found[consensus] = keyframes
    errors = {consensus: sum(pose_errors(keyframes, truth)) for consensus, keyframes in found.items()}
    assert errors[5.0] < 0.5 * errors[0.0]
    assert all(k.static is None for k in found[0.0])
    for n, k in enumerate(found[5.0]):
        assert k.static is not None
        moving = torch.zeros(k.coarse.size, dtype=torch.bool)
        moving[11 - n : 23 - n, 11 + n : 23 + n] = True  # without its edge
        assert k.static[moving].median() < 0.5 and k.static[~moving].median() > 0.9


def test_what_was_given_is_not_written(world, truth):
    start = disturbed(truth)
    copies = [(k.T_wc.clone(), k.coarse.value.clone(), k.dense.value.clone()) for k in start]
    adjusted(world, start)
    for k, (T_wc, cells, dense) in zip(start, copies, strict=True):
        assert torch.equal(k.T_wc, T_wc) and torch.equal(k.coarse.value, cells) and torch.equal(k.dense.value, dense)


def test_a_keyframe_of_wrong_scale_is_corrected_and_says_so(world, truth):
    """The newest keyframe's depth is 10 % too small: `scale` tells its frames how much they must move."""
    last = truth[3]
    wrong = replace(
        last,
        coarse=InvDepth(last.coarse.value * 1.1, last.coarse.sigma),
        dense=InvDepth(last.dense.value * 1.1, last.dense.sigma),
        dense_version=1,
        scale=3.0,
    )
    out = adjusted(world, (*truth[:3], wrong))[3]
    assert 1.05 < out.scale / 3.0 < 1.12
    torch.testing.assert_close(out.dense.value, wrong.dense.value * 3.0 / out.scale)
    sure = out.coarse.confidence > 0.5
    assert float((out.coarse.value / last.coarse.value)[sure].median()) == pytest.approx(1, abs=0.04)


def test_until_there_was_stereo_dense_depth_is_the_adjusted_coarse_one(world, truth):
    """A lost camera may need it before; where a sensor knows the depth, it stays that."""
    sensor_depth = np.zeros(truth[0].view.image.size, np.float32)
    sensor_depth[:10] = 2.0
    seen = replace(truth[2], view=replace(truth[2].view, sensor_depth=sensor_depth), metric=True)
    out = adjusted(world, (*disturbed(truth)[:2], seen, disturbed(truth)[3]))
    size = truth[0].view.image.size
    torch.testing.assert_close(out[3].dense.value, out[3].coarse.upsampled(size).value)
    torch.testing.assert_close(out[2].dense.value[10:], out[2].coarse.upsampled(size).value[10:])
    assert (out[2].dense.value[:10] == 0.5).all()


def test_flows_are_measured_once(world, truth, monkeypatch):
    matcher = Matcher(world.flow)
    count = 0
    original = matcher.match

    def counted(*args: object) -> object:
        nonlocal count
        count += 1
        return original(*args)

    monkeypatch.setattr(matcher, "match", counted)
    adjustment, graph = Adjustment(matcher, BackendConfig(reach=2)), KeyframeGraph()
    adjustment.adjust_window(graph, Window(truth[:3]), StageTimes())
    assert count == 6  # three pairs, both ways
    adjustment.adjust_window(graph, Window(truth[1:]), StageTimes())
    assert count == 6 + 4  # keyframe 3 with its two predecessors; keyframe 0 is out of the window


def test_a_foreign_keyframe_moves_nobody(world, truth, wall_and_box):
    """Nothing true links it to the others: they do not suffer."""
    foreign = wall_and_box.World(seed=5).keyframe(wall_and_box.moved(0.3), 3, 15)
    keyframes = adjusted(world, (*truth[:3], foreign))
    assert max(pose_errors(keyframes[:3], truth[:3])) < 0.01
    assert torch.isfinite(keyframes[3].coarse.value).all()


def test_a_single_keyframe_is_returned_as_it_is(world, truth):
    (k,) = adjusted(world, truth[:1])
    assert torch.equal(k.T_wc, truth[0].T_wc) and torch.equal(k.coarse.value, truth[0].coarse.value)


def test_helpers_change_nothing(truth):
    """Keyframes matched at the same time, by three threads, against one after the other."""
    found = []
    for helpers in (Helpers(), Helpers(3), Helpers(3), Helpers(3)):
        adjustment = Adjustment(Matcher(DisFlow()), helpers=helpers)
        found.append(adjustment.adjust_window(KeyframeGraph(), Window(disturbed(truth)), StageTimes()))
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            assert torch.equal(a.T_wc, b.T_wc) and torch.equal(a.coarse.value, b.coarse.value)


# keyframes whose depth is a guess


def guessed(k: Keyframe, on_guess: bool = True) -> Keyframe:
    """With the depth that a prior suggests, in the unit of the map: flat, and a fifth too far."""
    value = (0.8 * k.coarse.value.median()).expand_as(k.coarse.value)
    coarse = InvDepth(value, 0.4 * value)
    return replace(k, coarse=coarse, prior=coarse, on_guess=on_guess)


def test_a_window_whose_newest_keyframe_awaits_parallax_is_matched_and_not_adjusted(world, truth):
    """Else the errors of its flow would become motion and depth."""
    start = (*disturbed(truth)[:3], guessed(disturbed(truth)[3]))
    graph = KeyframeGraph()
    keyframes = Adjustment(Matcher(world.flow)).adjust_window(graph, Window(start), StageTimes())
    assert all(k.refined for k in keyframes) and graph.keyframes == list(keyframes)
    for k, given in zip(keyframes, start, strict=True):
        torch.testing.assert_close(k.T_wc, given.T_wc, rtol=0, atol=1e-12)  # rounding, on the way into the graph
        assert torch.equal(k.coarse.value, given.coarse.value) and torch.equal(k.coarse.sigma, given.coarse.sigma)
    assert graph.edge((2, 3)) is not None and graph.edge((3, 2)) is not None  # for later adjustments
    seen = (*start[:3], replace(start[3], on_guess=False))
    for k, given in zip(adjusted(world, seen)[2:], seen[2:], strict=True):
        assert float((k.T_wc - given.T_wc).abs().max()) > 1e-3


def test_keyframes_that_await_parallax_keep_their_pose_when_later_ones_are_adjusted(world, truth):
    start = disturbed(truth, held=1)
    waiting = guessed(start[1])

    def moved(second: Keyframe) -> list[float]:
        window = (start[0], second, *start[2:])
        adjustment = Adjustment(Matcher(world.flow), BackendConfig(held=1))
        found = adjustment.adjust_window(KeyframeGraph(), Window(window), StageTimes())
        assert not torch.equal(found[1].coarse.value, second.coarse.value)  # views decide its depth now
        return [float((a.T_wc - b.T_wc).abs().max()) for a, b in zip(found, window, strict=True)]

    held, free = moved(waiting), moved(replace(waiting, on_guess=False))
    assert max(held[:2]) < 1e-12 and min(held[2:]) > 1e-3
    assert free[0] < 1e-12 and min(free[1:]) > 1e-3


def test_depth_that_no_flow_decides_keeps_the_shape_of_the_prior(world, truth):
    """A part of every image is plain; there the prior has a thing twice as near, which smoothing would wash out."""
    part, thing = (slice(2, 12), slice(2, 16)), (slice(4, 9), slice(5, 12))
    keyframes = []
    for k in truth:
        rgb = k.view.image.rgb.copy()
        rgb[:60, :80] = 128
        value, shape = k.coarse.value.clone(), 5 * k.coarse.value
        shape[thing] *= 2
        sigma = value.clone()  # unknown as yet
        prior = InvDepth(shape, 0.4 * shape)
        view = replace(k.view, image=Image(rgb))
        keyframes.append(replace(k, view=view, coarse=InvDepth(value, sigma), prior=prior))
    plain = tuple(replace(k, prior=None) for k in keyframes)
    for k, bare, given in zip(adjusted(world, tuple(keyframes)), adjusted(world, plain), keyframes, strict=True):
        ratios = []
        for coarse in (k.coarse, bare.coarse):
            around = (coarse.value[3, 5:12] + coarse.value[9, 5:12]) / 2
            ratios.append(float((coarse.value[thing].mean(0) / around).median()))
        assert 1.7 < ratios[0] < 2.3 and ratios[1] < 1.2
        assert not k.coarse.decided[part].any()
        right = float((k.coarse.value / given.coarse.value)[:, 25:].median())
        assert right == pytest.approx(1, abs=0.03)  # what views decide stays as they say

"""The backend: from disturbed poses and depths of real pixels to better ones."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slam.backend.optimizer import BackendConfig, Optimizer
from slam.frames import Keyframe, Window
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.matching.matcher import Matcher

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


def pose_errors(keyframes: tuple[Keyframe, ...], truth: tuple[Keyframe, ...]) -> list[float]:
    return [float(se3.log(se3.inverse(a.T_wc) @ b.T_wc).norm()) for a, b in zip(keyframes, truth, strict=True)]


def depth_errors(keyframes: tuple[Keyframe, ...], truth: tuple[Keyframe, ...]) -> list[float]:
    return [float((a.coarse.value / b.coarse.value - 1).abs().median()) for a, b in zip(keyframes, truth, strict=True)]


def test_poses_and_depths_get_better(world, truth):
    start = disturbed(truth)
    update = Optimizer(Matcher(world.flow), None).process(Window(start))
    assert [k.id for k in update.keyframes] == [0, 1, 2, 3] and all(k.refined for k in update.keyframes)
    before, after = pose_errors(start, truth), pose_errors(update.keyframes, truth)
    assert after[:2] == pytest.approx([0, 0], abs=1e-9)  # held: they carry place and scale
    assert all(a < 0.5 * b for a, b in zip(after[2:], before[2:]))
    before, after = depth_errors(start, truth), depth_errors(update.keyframes, truth)
    assert all(a < 0.5 * b for a, b in zip(after[2:], before[2:]))
    assert set(update.seconds) == {"match", "adjust"} and all(s >= 0 for s in update.seconds.values())


def test_what_was_given_is_not_written(world, truth):
    start = disturbed(truth)
    copies = [(k.T_wc.clone(), k.coarse.value.clone(), k.dense.value.clone()) for k in start]
    Optimizer(Matcher(world.flow), None).process(Window(start))
    for k, (T_wc, cells, dense) in zip(start, copies, strict=True):
        assert torch.equal(k.T_wc, T_wc) and torch.equal(k.coarse.value, cells) and torch.equal(k.dense.value, dense)


def test_a_keyframe_of_wrong_scale_is_corrected_and_says_so(world, truth):
    """The newest keyframe's depth is 10 % too small: `scale` tells its frames how much they must move."""
    last = truth[3]
    wrong = replace(
        last,
        coarse=InvDepth(last.coarse.value * 1.1, last.coarse.sigma),
        dense=InvDepth(last.dense.value * 1.1, last.dense.sigma),
        scale=3.0,
    )
    update = Optimizer(Matcher(world.flow), None).process(Window((*truth[:3], wrong)))
    out = update.keyframes[3]
    assert 1.05 < out.scale / 3.0 < 1.12
    torch.testing.assert_close(out.dense.value, wrong.dense.value * 3.0 / out.scale)
    sure = out.coarse.confidence > 0.5
    assert float((out.coarse.value / last.coarse.value)[sure].median()) == pytest.approx(1, abs=0.04)


def test_dense_depth_comes_from_the_stereo_with_the_new_poses(world, truth):
    asked: dict[int, list[Tensor]] = {}

    def stereo(k: Keyframe, neighbours: list, T_jk: list[Tensor]) -> InvDepth:
        assert len(neighbours) == len(T_jk) == 2
        asked[k.id] = T_jk
        return InvDepth.from_confidence(torch.full_like(k.dense.value, 0.25), torch.full_like(k.dense.value, 0.75))

    optimizer = Optimizer(Matcher(world.flow), stereo, BackendConfig(neighbours=2))
    k = optimizer.process(Window(disturbed(truth))).keyframes
    assert not asked  # tracking goes on meanwhile
    dense = optimizer.densified(3)
    assert {d.id for d in dense} == set(asked) and 3 in asked
    for d in dense:
        assert (d.dense.value == 0.25).all() and d.dense_version == 1
        torch.testing.assert_close(d.dense.confidence, torch.full_like(d.dense.value, 0.75))
        assert d.T_wc is k[d.id].T_wc and optimizer.keyframes[d.id] is d
    torch.testing.assert_close(asked[3][0], se3.inverse(k[2].T_wc) @ k[3].T_wc, rtol=0, atol=1e-12)


@pytest.mark.parametrize("adjust", ["off", "poses"])
def test_without_joint_adjustment_cells_take_their_depth_from_the_stereo_at_once(adjust, world, truth):
    def stereo(k: Keyframe, neighbours: list, T_jk: list[Tensor]) -> InvDepth:
        return InvDepth.from_confidence(torch.full_like(k.dense.value, 0.25), torch.full_like(k.dense.value, 0.75))

    optimizer = Optimizer(Matcher(world.flow), stereo, BackendConfig(adjust=adjust))
    newest = optimizer.process(Window(disturbed(truth))).keyframes[3]
    torch.testing.assert_close(newest.coarse.value, torch.full_like(newest.coarse.value, 0.25))
    assert optimizer.densified(3) == ()


def test_flows_are_measured_once(world, truth, monkeypatch):
    matcher = Matcher(world.flow)
    count = 0
    original = matcher.match

    def counted(*args: object) -> object:
        nonlocal count
        count += 1
        return original(*args)

    monkeypatch.setattr(matcher, "match", counted)
    optimizer = Optimizer(matcher, None, BackendConfig(reach=2))
    optimizer.process(Window(truth[:3]))
    assert count == 6  # three pairs, both ways
    optimizer.process(Window(truth[1:]))
    assert count == 6 + 4  # keyframe 3 with its two predecessors; keyframe 0 is out of the window


def test_a_foreign_keyframe_moves_nobody(world, truth, wall_and_box):
    """Nothing true links it to the others: they do not suffer."""
    foreign = wall_and_box.World(seed=5).keyframe(wall_and_box.moved(0.3), 3, 15)
    update = Optimizer(Matcher(world.flow), None).process(Window((*truth[:3], foreign)))
    assert max(pose_errors(update.keyframes[:3], truth[:3])) < 0.01
    assert torch.isfinite(update.keyframes[3].coarse.value).all()


def test_a_single_keyframe_is_returned_as_it_is(world, truth):
    update = Optimizer(Matcher(world.flow), None).process(Window(truth[:1]))
    (k,) = update.keyframes
    assert torch.equal(k.T_wc, truth[0].T_wc) and torch.equal(k.coarse.value, truth[0].coarse.value)

"""Loop closure on a small world: found, proved, closed; and what must not be."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from slam.backend.graph import KeyframeGraph
from slam.backend.loops import BESIDE, Loop, LoopCloser, LoopConfig, odometry_edges
from slam.frames import Keyframe
from slam.geometry import se3, sim3
from slam.inv_depth import InvDepth
from slam.mapping.transforms import rescaled
from slam.matching.matcher import Matcher
from slam.recognition.keypoints import detect_keypoints

F64 = torch.float64
COUNT = 12
STEP = torch.tensor([0.008, -0.006, 0.007, 0.003, -0.003, 0.004, 0.016], dtype=F64)  # drift of each keyframe


def twisted(zeta: Sequence[float]) -> Tensor:
    return sim3.exp(torch.tensor(zeta, dtype=F64))


@pytest.fixture(scope="module")
def circle(world, wall_and_box) -> list[Keyframe]:
    """True keyframes around a circle, the last beside the first."""
    keyframes = []
    for n in range(COUNT):
        angle = 2 * math.pi * n / (COUNT - 0.9)
        T_cw = wall_and_box.moved(
            0.5 - 0.5 * math.cos(angle), 0.5 * math.sin(angle), 0.05 * math.sin(angle), 0, 0.01, 0
        )
        k = world.keyframe(T_cw, n, 5 * n)
        keyframes.append(replace(k, keypoints=detect_keypoints(k.view.image)))
    return keyframes


def drifted(keyframes: list[Keyframe], step: Tensor = STEP) -> list[Keyframe]:
    """The same after a journey on which each was placed, and measured, a little wrong against the one before."""
    out, S_wk = [keyframes[0]], keyframes[0].T_wc
    for before, k in itertools.pairwise(keyframes):
        S_wk = S_wk @ se3.inverse(before.T_wc) @ k.T_wc @ sim3.exp(step)
        scale_change = float(sim3.scale(S_wk))
        T_wk = S_wk.clone()
        T_wk[:3, :3] /= scale_change
        out.append(replace(rescaled(k, T_wk, scale_change), scale=1.0))
    return out


def drift(keyframes: list[Keyframe], truth: list[Keyframe]) -> tuple[float, float]:
    """How far the last is from where it should be as seen from the first, and how much its depth has grown."""
    first, last = keyframes[0], keyframes[-1]
    T_error = se3.inverse(truth[0].T_wc) @ truth[-1].T_wc @ se3.inverse(se3.inverse(first.T_wc) @ last.T_wc)
    scale_change = float((truth[-1].coarse.value / last.coarse.value).median())
    return float(se3.log(T_error).norm()), abs(math.log(scale_change))


@pytest.fixture(scope="module")
def found(world, circle) -> tuple[list[Keyframe], Loop]:
    """The drifted keyframes and the loop from the last to the first."""
    keyframes = drifted(circle)
    closer = LoopCloser(Matcher(world.flow))
    loops = closer.find(graph_of(keyframes), keyframes[-1].id)
    assert loops and loops == closer.loops
    return keyframes, loops[0]


def graph_of(keyframes: Sequence[Keyframe]) -> KeyframeGraph:
    graph = KeyframeGraph()
    graph.put(keyframes)
    return graph


def closed_by(closer: LoopCloser, keyframes: Sequence[Keyframe]) -> list[Keyframe] | None:
    """The keyframes bent to fit all loops; None if they fit as they are."""
    graph = graph_of(keyframes)
    return graph.keyframes if closer.close(graph) else None


def closer_with(world, *loops: Loop) -> LoopCloser:
    closer = LoopCloser(Matcher(world.flow))
    closer.loops = list(loops)
    return closer


def test_a_loop_is_measured_with_its_scale(found, circle):
    keyframes, loop = found
    old, new = keyframes[loop.old_id], keyframes[loop.new_id]
    assert loop.new_id == COUNT - 1 and loop.old_id <= COUNT - 1 - LoopConfig().min_gap
    scale_change = [float((circle[k.id].coarse.value / k.coarse.value).median()) for k in (old, new)]
    assert float(sim3.scale(loop.S_on)) == pytest.approx(scale_change[0] / scale_change[1], rel=0.01)
    T_on = se3.inverse(circle[old.id].T_wc) @ circle[new.id].T_wc
    assert float((loop.S_on[:3, 3] - scale_change[0] * T_on[:3, 3]).norm()) < 0.01


def split(circle: Sequence[Keyframe], S: Tensor, at: int = 6) -> list[Keyframe]:
    """Keyframes from one on as a map of its own, in a world and a unit that S (4, 4) leads to from the first."""
    scale = float(sim3.scale(S))
    out = [replace(k, map_id=0) for k in circle[:at]]
    for k in circle[at:]:
        S_wk = S @ k.T_wc
        S_wk[:3, :3] /= scale
        parent_id = -1 if k.id == circle[at].id else k.parent_id
        out.append(replace(rescaled(k, S_wk, scale, circle[at].id), parent_id=parent_id, scale=1.0))
    return out


def test_two_maps_are_joined_by_two_loops_that_agree(world, circle):
    S = twisted([0.5, -1.0, 0.3, 0.2, 0.7, -0.4, 0.6])
    graph = graph_of(split(circle, S))
    closer = LoopCloser(Matcher(world.flow), LoopConfig(min_gap=2))
    assert closer.find(graph, circle[-1].id) and not closer.join(graph)  # one alone may be wrong
    assert closer.find(graph, circle[-2].id) and closer.join(graph)
    assert {k.map_id for k in graph.keyframes} == {0}
    for k, true in zip(graph.keyframes, circle, strict=True):
        assert float(se3.log(se3.inverse(true.T_wc) @ k.T_wc).norm()) < 0.03
        assert float((k.coarse.value / true.coarse.value).median()) == pytest.approx(1, abs=0.02)
    assert len(closer.loops) == 2 and not closer.join(graph)


def test_loops_that_disagree_join_nothing(world, circle):
    graph = graph_of(split(circle, twisted([0.5, -1.0, 0.3, 0.2, 0.7, -0.4, 0.6])))
    closer = LoopCloser(Matcher(world.flow), LoopConfig(min_gap=2))
    first, second = (closer.find(graph, circle[n].id)[0] for n in (-1, -2))
    closer.loops = [first, replace(second, S_on=second.S_on @ twisted([0.3, 0, 0, 0, 0, 0, 0]))]
    before = graph.keyframes
    assert not closer.join(graph) and not closer.close(graph) and graph.keyframes == before


def test_what_is_metric_stays_and_the_other_map_comes_to_it(world, circle):
    S = twisted([0.5, -1.0, 0.3, 0.2, 0.7, -0.4, 0.6])
    graph = graph_of([replace(k, metric=k.map_id > 0) for k in split(circle, S)])
    closer = LoopCloser(Matcher(world.flow), LoopConfig(min_gap=2))
    closer.find(graph, circle[-1].id), closer.find(graph, circle[-2].id)
    assert closer.join(graph) and {(k.map_id, k.metric) for k in graph.keyframes} == {(circle[6].id, True)}
    scale_change = [
        float((k.coarse.value / true.coarse.value).median()) for k, true in zip(graph.keyframes, circle, strict=True)
    ]
    np.testing.assert_allclose(scale_change, float(1 / sim3.scale(S)), rtol=0.03)


def test_closing_takes_the_drift_out(world, found, circle):
    keyframes, loop = found
    closed = closed_by(closer_with(world, loop), keyframes)
    assert closed is not None and torch.allclose(closed[0].T_wc, keyframes[0].T_wc, atol=1e-12)
    before, after = drift(keyframes, circle), drift(closed, circle)
    assert before[0] > 0.2 and before[1] > 0.15
    assert after[0] < before[0] / 20 and after[1] < before[1] / 15
    for a, b, true in zip(closed, keyframes, circle, strict=True):
        assert [a.id, a.parent_id] == [b.id, b.parent_id] and a.view is b.view
        assert float(a.coarse.value.median() / b.coarse.value.median()) == pytest.approx(1 / a.scale, rel=1e-4)
        torch.testing.assert_close(a.dense.value * a.scale, b.dense.value)
        assert float((a.T_wc - true.T_wc)[:3, 3].norm()) < before[0] / 10


def test_a_map_that_fits_is_left_alone(world, found, circle):
    keyframes, loop = found
    closer = closer_with(world, loop)
    closed = closed_by(closer, keyframes)
    assert closed is not None and closed_by(closer, closed) is None
    assert closed_by(closer_with(world), keyframes) is None
    true_loops = LoopCloser(Matcher(world.flow))
    assert true_loops.find(graph_of(circle), circle[-1].id) and closed_by(true_loops, circle) is None


def test_a_loop_that_contradicts_is_left_out_and_the_others_close(world, found, circle):
    keyframes, loop = found
    false = replace(loop, old_id=2, new_id=10, S_on=twisted([5, 0, 0, 0, 0, 0, 0]))
    closer = closer_with(world, false, loop)
    closed = closed_by(closer, keyframes)
    assert closer.loops == [loop] and closed is not None
    assert drift(closed, circle)[0] < drift(keyframes, circle)[0] / 5
    alone = closer_with(world, false)
    assert closed_by(alone, keyframes) is None and alone.loops == []


def test_metric_maps_keep_their_unit(world, circle):
    """Their depth is measured: neither drift, nor 2 % of noise in a depth, bends the metre."""
    still = STEP * torch.tensor([1, 1, 1, 1, 1, 1, 0])
    keyframes = [replace(k, metric=True) for k in drifted(circle, still)]
    last = keyframes[-1]
    keyframes[-1] = replace(last, coarse=InvDepth(1.02 * last.coarse.value, last.coarse.sigma))
    closer = LoopCloser(Matcher(world.flow))
    assert closer.find(graph_of(keyframes), keyframes[-1].id)
    closed = closed_by(closer, keyframes)
    assert closed is not None and closer.loops
    assert drift(closed, circle)[0] < drift(keyframes, circle)[0] / 5
    assert all(k.scale == pytest.approx(1, abs=0.002) for k in closed)


@pytest.mark.parametrize("scale_change", [(1.0, 1.0), (2.0, 1.0), (1.0, 3.0), (0.5, 1.5)])
def test_a_loop_follows_the_scale_change_of_both_ends(found, scale_change):
    """What is one point of the world for both stays so in their new units."""
    keyframes, loop = found
    old, new = keyframes[loop.old_id], keyframes[loop.new_id]
    S = loop.present(*(rescaled(k, k.T_wc, g) for k, g in zip((old, new), scale_change, strict=True)))
    p_n = torch.tensor([0.3, -0.2, 2.0, 1.0], dtype=F64)
    p_o = loop.S_on @ p_n
    seen = S @ torch.cat([scale_change[1] * p_n[:3], p_n[3:]])
    torch.testing.assert_close(seen[:3], scale_change[0] * p_o[:3], rtol=0, atol=1e-9)


def test_another_room_is_no_loop(world, wall_and_box, circle):
    foreign = wall_and_box.World(seed=5).keyframe(se3.inverse(circle[-1].T_wc), COUNT, 999)
    foreign = replace(foreign, keypoints=detect_keypoints(foreign.view.image))
    blind = LoopConfig(min_votes=1)  # even if every candidate is looked at
    assert LoopCloser(Matcher(world.flow), blind).find(graph_of([*circle, foreign]), foreign.id) == []


def test_a_repeated_pattern_is_no_loop(world, wall_and_box):
    """Wallpaper looks the same one period further on, where the camera now stands: there is no telling which it is."""
    papered = wall_and_box.World(seed=3, box=False)
    papered.textures = tuple(np.tile(cv2.resize(t[:128, :128], (32, 32)), (16, 16, 1)) for t in papered.textures)
    period = 32 / wall_and_box.TEXELS
    ends = [papered.keyframe(wall_and_box.moved(x), n, n) for n, x in ((0, 0.0), (20, -2 * period))]
    old, new = (replace(k, keypoints=detect_keypoints(k.view.image)) for k in ends)
    assert len(old.keypoints.uv) > 50  # there is much to see
    between = [replace(old, id=n, keypoints=None) for n in range(1, 20)]
    closer = LoopCloser(Matcher(world.flow))
    assert closer.find(graph_of([old, *between, new]), new.id) == []


def test_what_does_not_come_back_to_where_it_began_is_not_proved(world, circle, monkeypatch):
    """A true place and a good flow to it, but the depth it was measured with is wrong in one half of the image."""
    bent = circle[0].coarse.value.clone()
    bent[:, :20] *= 1.15
    keyframes = [replace(circle[0], coarse=InvDepth(bent, circle[0].coarse.sigma)), *circle[1:]]
    monkeypatch.setattr("slam.backend.loops.PlaceIndex.rank", lambda *given, **more: [(0, 99)])
    blind = LoopConfig(max_cycle_deg=90, max_cycle_shift=90)
    (loop,) = LoopCloser(Matcher(world.flow), blind).find(graph_of(keyframes), keyframes[-1].id)
    strict = LoopConfig(max_cycle_deg=90, max_cycle_shift=loop.shift / 2)
    assert LoopCloser(Matcher(world.flow), strict).find(graph_of(keyframes), keyframes[-1].id) == []
    strict = LoopConfig(max_cycle_deg=math.degrees(loop.turn_rad) / 2, max_cycle_shift=90)
    assert LoopCloser(Matcher(world.flow), strict).find(graph_of(keyframes), keyframes[-1].id) == []


def test_a_loop_beside_a_known_one_is_remembered_only_if_the_map_disagrees(world, circle):
    """Round after round the same places would make more and more of them."""
    two = LoopConfig(candidates=2)
    closer = LoopCloser(Matcher(world.flow), two)
    assert len(closer.find(graph_of(circle), circle[-1].id)) == 1
    assert closer.find(graph_of(circle), circle[-1].id) == [] and len(closer.loops) == 1
    keyframes = drifted(circle)
    closer = LoopCloser(Matcher(world.flow), two)
    both = closer.find(graph_of(keyframes), keyframes[-1].id)
    assert len(both) == 2 and abs(both[0].old_id - both[1].old_id) <= BESIDE


def test_recent_keyframes_are_not_candidates(world, circle):
    assert LoopCloser(Matcher(world.flow), LoopConfig(min_gap=COUNT)).find(graph_of(circle), circle[-1].id) == []
    unknown = [replace(k, keypoints=None) for k in circle[:-1]]  # the backend has not looked at them
    assert LoopCloser(Matcher(world.flow)).find(graph_of([*unknown, circle[-1]]), circle[-1].id) == []


def test_loops_of_keyframes_that_left_the_map_are_forgotten(world, found):
    keyframes, loop = found
    closer = closer_with(world, loop)
    rest = [k for k in keyframes if k.id != loop.old_id]
    assert closed_by(closer, rest) is None
    closer.find(graph_of(rest), rest[5].id)
    assert closer.loops == []


def test_the_chain_follows_parents_and_bridges_those_that_left(circle):
    lineage = [replace(k, parent_id=p) for k, p in zip(circle, [-1, 0, 1, 0, 3], strict=False)]
    assert odometry_edges(lineage) == [(0, 1), (1, 2), (0, 3), (3, 4)]
    assert odometry_edges([k for k in lineage if k.id != 3]) == [(0, 1), (1, 2), (2, 3)]  # 4 hung on it

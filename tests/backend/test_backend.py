"""What the backend gives back after each keyframe, and the whole map adjusted at the end."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slam.backend.adjustment import Adjustment
from slam.backend.backend import Backend
from slam.backend.config import BackendConfig
from slam.backend.densification import Densification
from slam.backend.graph import SUBSAMPLING, Edge, KeyframeGraph
from slam.backend.loops import LoopCloser, LoopConfig
from slam.frames import DensifyAndCloseLoops, Keyframe, Restore, Update, Window
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import reproject
from slam.inv_depth import InvDepth
from slam.mapping.transforms import rescaled
from slam.matching.matcher import Matcher
from slam.matching.photometric import PhotometricAlignment

F64 = torch.float64
DRIFT = torch.tensor([0.01, -0.008, 0.008, 0.003, -0.003, 0.004], dtype=F64)  # from each keyframe to the next
WINDOW = 4


@pytest.fixture(scope="module")
def path(world, wall_and_box) -> tuple[Keyframe, ...]:
    """True keyframes along the wall and back, the last beside the first."""
    places = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.6, 0.45, 0.3, 0.15, 0.02]
    return tuple(world.keyframe(wall_and_box.moved(x, 0.02 * n, 0.01 * n), n, 5 * n) for n, x in enumerate(places))


def drifted(keyframes: tuple[Keyframe, ...]) -> list[Keyframe]:
    out = [keyframes[0]]
    for before, k in itertools.pairwise(keyframes):
        T_wc = out[-1].T_wc @ se3.inverse(before.T_wc) @ k.T_wc @ se3.exp(DRIFT)
        out.append(replace(k, T_wc=T_wc))
    return out


def processed(backend: Backend, keyframes: list[Keyframe]) -> list[Update]:
    """Two jobs for each keyframe, as the system makes them: what the second found, or else the first."""
    updates = []
    for n in range(len(keyframes)):
        window = tuple(keyframes[max(0, n + 1 - WINDOW) : n + 1])
        update = backend.process(Window(window, frozenset(range(n + 1))))
        looked = backend.process(DensifyAndCloseLoops(keyframes[n].id))
        updates.append(looked if len(looked.keyframes) > WINDOW else update)
    return updates


def position_errors(keyframes: tuple[Keyframe, ...], truth: tuple[Keyframe, ...]) -> Tensor:
    return torch.stack([(k.T_wc - truth[k.id].T_wc)[:3, 3].norm() for k in keyframes])


def test_a_job_gives_its_window_back_and_a_closed_loop_the_whole_map(world, path):
    """Windows alone cannot see the drift here: nothing is adjusted in them."""
    matcher = Matcher(world.flow)
    closer = LoopCloser(matcher)
    backend = Backend(Adjustment(matcher, BackendConfig(adjust="off")), None, closer)
    start = drifted(path)
    updates = processed(backend, start)
    closing = next(n for n, update in enumerate(updates) if len(update.keyframes) > WINDOW)
    assert closing > LoopConfig().min_gap and closing == closer.loops[0].new_id
    for n, update in enumerate(updates[:closing]):
        assert [k.id for k in update.keyframes] == list(range(max(0, n + 1 - WINDOW), n + 1))
        assert all(k.refined for k in update.keyframes) and set(update.seconds) == {"match", "adjust"}
    assert all(k.keypoints is not None for k in backend.graph.keyframes)
    bent = updates[closing].keyframes
    assert [k.id for k in bent] == list(range(closing + 1))
    before, after = position_errors(tuple(start[: closing + 1]), path), position_errors(bent, path)
    assert before[-1] > 0.1 and after[-1] < before[-1] / 5
    later = updates[-1].keyframes[-1]  # carried along with the keyframe it was placed by, though its window was older
    assert position_errors((later,), path)[0] < before[-1] / 5
    assert backend.graph[later.id].T_wc is later.T_wc  # the next job goes on from there


def test_keyframes_get_keypoints_also_where_no_loops_are_looked_for(world, path):
    """A lost camera is found by them."""
    backend = Backend(Adjustment(Matcher(world.flow), BackendConfig(adjust="off")), None, None)
    for n in range(3):
        backend.process(Window(path[: n + 1]))
        second = backend.process(DensifyAndCloseLoops(n))
        assert [k.id for k in second.keyframes] == [n] and len(second.keyframes[0].keypoints.uv) > 50
        assert set(second.seconds) == {"keypoints"}


def test_dense_depth_comes_from_the_stereo_with_the_adjusted_poses(world, path):
    asked: dict[int, list[Tensor]] = {}

    def stereo(k: Keyframe, neighbours: list, T_jk: list[Tensor]) -> InvDepth:
        assert len(neighbours) == len(T_jk) == 2
        asked[k.id] = T_jk
        return InvDepth.from_confidence(torch.full_like(k.dense.value, 0.25), torch.full_like(k.dense.value, 0.75))

    config = BackendConfig(neighbours=2)
    backend = Backend(Adjustment(Matcher(world.flow), config), Densification(stereo, config), None)
    adjusted = backend.process(Window(tuple(drifted(path[:4])))).keyframes
    assert not asked  # tracking goes on meanwhile
    dense = {k.id: k for k in backend.process(DensifyAndCloseLoops(3)).keyframes if k.dense_version}
    assert set(dense) == set(asked) == {0, 1}  # with neighbours on both sides, as far as there are any
    rest = {k.id: k for k in backend.densify_rest().keyframes}
    assert set(rest) == {2, 3} and backend.densify_rest().keyframes == ()
    for n, k in (dense | rest).items():
        assert (k.dense.value == 0.25).all() and k.T_wc is adjusted[n].T_wc and backend.graph[n] is k
        torch.testing.assert_close(k.dense.confidence, torch.full_like(k.dense.value, 0.75))
    torch.testing.assert_close(asked[1][0], se3.inverse(adjusted[0].T_wc) @ adjusted[1].T_wc, rtol=0, atol=1e-12)
    torch.testing.assert_close(asked[1][1], se3.inverse(adjusted[2].T_wc) @ adjusted[1].T_wc, rtol=0, atol=1e-12)


def test_the_neighbours_of_stereo_are_those_that_a_keyframe_was_tracked_from(world, path):
    """After the camera was found again elsewhere, the keyframes just before show another place."""
    asked: dict[int, list[int]] = {}

    def stereo(k: Keyframe, neighbours: list, T_jk: list[Tensor]) -> InvDepth:
        asked[k.id] = [view.frame_id for view in neighbours]
        return k.dense

    backend = Backend(Adjustment(Matcher(world.flow), BackendConfig(adjust="joint")), Densification(stereo), None)
    backend.process(Restore(path[:6]))
    found = replace(path[6], parent_id=1)  # tracked against keyframe 1
    backend.process(Window((path[0], path[1], found)))
    backend.process(DensifyAndCloseLoops(6))
    backend.densify_rest()
    assert asked[6] == [path[1].view.frame_id, path[0].view.frame_id]


@pytest.mark.parametrize("adjust", ["off", "poses"])
def test_without_joint_adjustment_cells_take_their_depth_from_the_stereo_at_once(adjust, world, path):
    def stereo(k: Keyframe, neighbours: list, T_jk: list[Tensor]) -> InvDepth:
        return InvDepth.from_confidence(torch.full_like(k.dense.value, 0.25), torch.full_like(k.dense.value, 0.75))

    config = BackendConfig(adjust=adjust)
    backend = Backend(Adjustment(Matcher(world.flow), config), Densification(stereo, config), None)
    newest = backend.process(Window(tuple(drifted(path[:4])))).keyframes[3]
    torch.testing.assert_close(newest.coarse.value, torch.full_like(newest.coarse.value, 0.25))
    assert all(k.dense_version < 2 for k in backend.process(DensifyAndCloseLoops(3)).keyframes)


@pytest.fixture(scope="module")
def seen(world, path) -> Backend:
    """A backend that has seen the true path, and with it all flows."""
    matcher = Matcher(world.flow)
    backend = Backend(Adjustment(matcher, BackendConfig(window=WINDOW)), None, LoopCloser(matcher))
    processed(backend, list(path))
    return backend


def disturbed(keyframes: tuple[Keyframe, ...]) -> dict[int, Keyframe]:
    """All but the first: off by 0.03 and a degree, every depth 5 % too large or too small."""
    out = {keyframes[0].id: keyframes[0]}
    for k in keyframes[1:]:
        sign = (-1.0) ** k.id
        twist = sign * torch.tensor([0.02, -0.015, 0.015, 0.01, -0.01, 0.01], dtype=F64)
        out[k.id] = replace(rescaled(k, k.T_wc @ se3.exp(twist), 1 + 0.05 * sign), scale=1.0)
    return out


def copied(
    backend: Backend, keyframes: dict[int, Keyframe], linked: Callable[[int, int], bool] | None = None
) -> Backend:
    """Another backend that knows those keyframes, and the same flows and loops, or only the flows of `linked` pairs."""
    assert backend.closer is not None
    other = Backend(backend.adjustment, None, LoopCloser(backend.adjustment.matcher))
    other.process(Restore(tuple(keyframes.values())))
    for pair, edge in backend.graph.subsampled_edges().items():
        if linked is None or linked(*pair):
            other.graph.connect_subsampled(pair, edge)
    other.closer.loops = list(backend.closer.loops) if linked is None else []
    return other


def test_adjusting_everything_mends_poses_and_depths_of_the_whole_map_and_repeats(seen, path):
    start = {n: replace(k, dense_version=1) for n, k in disturbed(path).items()}
    update = copied(seen, start).adjust_all()
    assert [k.id for k in update.keyframes] == list(range(len(path))) and set(update.seconds) == {"refine"}
    torch.testing.assert_close(update.keyframes[0].T_wc, path[0].T_wc, rtol=0, atol=1e-12)
    before = position_errors(tuple(start.values()), path)
    assert position_errors(update.keyframes, path).max() < before.max() / 3
    for k, true in zip(update.keyframes[1:], path[1:], strict=True):
        off, left = (abs(math.log(float((a.coarse.value / true.coarse.value).median()))) for a in (start[k.id], k))
        assert off > 0.04 and left < off / 2
        torch.testing.assert_close(k.dense.value * k.scale, start[k.id].dense.value)  # the dense one grows as much
    again = copied(seen, start).adjust_all()
    for a, b in zip(update.keyframes, again.keyframes, strict=True):
        assert torch.equal(a.T_wc, b.T_wc) and torch.equal(a.coarse.value, b.coarse.value) and a.scale == b.scale


def test_flows_that_erred_are_measured_anew_on_the_images(seen, path):
    """By a pixel to the right or to the left, and half of them downwards."""
    erring = copied(seen, {k.id: k for k in path}), copied(seen, {k.id: k for k in path})
    for (a, b), edge in seen.graph.subsampled_edges().items():
        off = torch.tensor([(-1.0) ** a, float(b % 2)]) / (seen.adjustment.matcher.stride * SUBSAMPLING)
        for backend in erring:
            backend.graph.connect_subsampled((a, b), replace(edge, target_uv=edge.target_uv + off))
    coarse, fine = erring[0].adjust_all().keyframes, erring[1].adjust_all(Matcher(PhotometricAlignment())).keyframes
    before, after = (float(position_errors(keyframes, path).max()) for keyframes in (coarse, fine))
    assert before > 0.008 and after < before / 4


def test_adjusting_everything_leaves_alone_what_no_flow_tells_of(seen, path, world, wall_and_box):
    """Keyframes of a loaded map that was not seen again: no prior may smooth their depth."""
    strangers = {n: world.keyframe(wall_and_box.moved(0.1 * n), n, n) for n in (-2, 99)}
    start = disturbed(path)
    update = copied(seen, {-2: strangers[-2], **start, 99: strangers[99]}).adjust_all()
    assert [k.id for k in update.keyframes] == [-2, *range(len(path)), 99]
    assert update.keyframes[0] is strangers[-2] and update.keyframes[-1] is strangers[99]
    torch.testing.assert_close(update.keyframes[1].T_wc, path[0].T_wc, rtol=0, atol=1e-12)  # the first that is linked
    before, after = (position_errors(k, path).max() for k in (tuple(start.values()), update.keyframes[1:-1]))
    assert after < before / 3


def test_adjusting_everything_mends_parts_of_a_map_that_nothing_links(seen, path):
    """Each keeps its own first pose; a part that floats must not stop the others."""
    start = disturbed(path) | {6: path[6]}
    update = copied(seen, start, linked=lambda a, b: (a < 6) == (b < 6)).adjust_all()
    for n in (0, 6):
        torch.testing.assert_close(update.keyframes[n].T_wc, path[n].T_wc, rtol=0, atol=1e-12)
    for part in (slice(1, 6), slice(7, None)):
        before, after = (position_errors(tuple(k)[part], path).max() for k in (start.values(), update.keyframes))
        assert after < before / 2


def test_adjusting_everything_of_a_map_without_flows_is_the_map(world, path):
    backend = Backend(Adjustment(Matcher(world.flow)), None, None)
    backend.process(Restore(path[:2]))
    assert backend.adjust_all().keyframes == path[:2]


def test_subsampled_flows_belong_to_the_same_camera(world, path):
    """Of exact flows the truth is a fixed point; a grid shifted by half a cell would move it."""
    keyframes = path[:4]
    graph = KeyframeGraph()
    graph.put(replace(k, coarse=InvDepth(k.coarse.value, 1e-3 * k.coarse.value)) for k in keyframes)
    K_cells = scaled_intrinsics(keyframes[0].view.K, 1 / world.flow.stride)[None]
    exact = {}
    for a, b in itertools.permutations(keyframes, 2):
        uv, _, valid = reproject(a.coarse.value[None], (se3.inverse(b.T_wc) @ a.T_wc)[None], K_cells)
        exact[a.id, b.id] = Edge(uv[0], valid[0, ..., None].float().expand(-1, -1, 2)).subsampled()
        assert exact[a.id, b.id].target_uv.shape[0] == -(-a.coarse.value.shape[0] // SUBSAMPLING)
    Adjustment(Matcher(world.flow)).adjust_all(graph, exact)
    found = tuple(graph.keyframes)
    assert position_errors(found, path).max() < 1e-4
    for k, true in zip(found, keyframes, strict=True):
        torch.testing.assert_close(k.coarse.value, true.coarse.value, rtol=2e-3, atol=0)


def test_flows_of_keyframes_that_left_the_map_are_forgotten(world, path):
    backend = Backend(Adjustment(Matcher(world.flow), BackendConfig(window=WINDOW)), None, None)
    processed(backend, list(path[:6]))
    active = frozenset({0, 2, 3, 4, 5, 6})
    backend.process(Window(path[3:7], active))
    assert {k.id for k in backend.graph.keyframes} == active
    edges = backend.graph.subsampled_edges()
    assert (2, 3) in edges and all(active.issuperset(pair) for pair in edges)


def test_what_leaves_is_stood_in_for_by_flows_between_its_neighbours(world, path):
    """Each was matched with three on either side; then every other leaves, and the rest holds together as before."""
    backend = Backend(Adjustment(Matcher(world.flow), BackendConfig(window=WINDOW)), None, None)
    processed(backend, list(path))
    graph, before = backend.graph, len(backend.graph.subsampled_edges())
    rest = frozenset(n for n in graph.ids if n % 2 == 0)
    graph.forget(path[-1].id, rest, world.flow.stride)
    edges = graph.subsampled_edges()
    assert set(graph.ids) == rest and all(rest.issuperset(pair) for pair in edges)
    assert (0, 6) in edges and (6, 0) in edges and (0, 8) not in edges  # two of the three neighbours of 0 left
    assert len(edges) / len(rest) > 0.6 * before / len(path)
    K_cells = scaled_intrinsics(path[0].view.K, 1 / world.flow.stride)[None]
    for a, b in ((0, 6), (6, 0)):
        T_ba = se3.inverse(graph[b].T_wc) @ graph[a].T_wc
        uv, _, _ = reproject(graph[a].coarse.value[None], T_ba[None], K_cells)
        exact = Edge(uv[0], edges[a, b].weight).subsampled().target_uv
        sure = edges[a, b].weight[..., 0] > 0
        assert sure.any()
        torch.testing.assert_close(edges[a, b].target_uv[sure], exact[sure], atol=0.05, rtol=0)

"""The start: a map from a sideways motion, none from rotation, and no frame forgotten."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import ConfigError
from slam.frames import View
from slam.frontend.initial_structure import adjusted, solve
from slam.frontend.initialiser import Initialiser, InitialiserConfig, InitialMap
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.matching.matcher import Matcher, MatcherConfig
from slam.matching.parallax import turn_and_parallax
from slam.stereo.prior import Prior

F64 = torch.float64


def fed(world, poses, prior: Prior | None = None, **settings) -> tuple[Initialiser, InitialMap | None, int]:
    """The initialiser after these views, its first map, and the number of views it took."""
    initialiser = Initialiser(Matcher(world.flow), InitialiserConfig(**settings), prior=prior)
    for n, T_cw in enumerate(poses):
        first = initialiser.add(world.view(T_cw, n))
        if first is not None:
            return initialiser, first, n + 1
    return initialiser, None, len(poses)


@pytest.fixture(scope="module")
def sideways(world, wall_and_box):
    poses = [wall_and_box.moved(0.03 * n, 0.006 * n, 0, 0, 0.004 * n, 0.002 * n) for n in range(14)]
    return poses, *fed(world, poses)[1:]


def test_a_sideways_motion_gives_a_map(sideways, world):
    poses, first, count = sideways
    assert first is not None and first.view.frame_id == 0 and first.before == ()
    assert len(first.views) == len(first.T_cks) == count - 1
    assert [view.frame_id for view in first.views] == list(range(1, count))


def test_its_depth_is_the_truth_up_to_scale(sideways, world):
    _, first, _ = sideways
    truth = world.cell_inv_depth(torch.eye(4, dtype=F64))
    sure = first.coarse.confidence > 0.5
    assert sure.float().mean() > 0.3
    ratio = first.coarse.value[sure] / truth[sure]
    assert float((ratio / ratio.median() - 1).abs().median()) < 0.1
    known = first.coarse.sigma < 0.35 * first.coarse.value  # relative deviation up to 0.3
    assert float(first.coarse.value[known].median()) == pytest.approx(1, abs=1e-5)
    assert (first.coarse.sigma > 0).all() and (first.coarse.value > 0).all()


def test_the_box_stands_before_the_wall(sideways, world, wall_and_box):
    """Depth varies by 1.5 between them: constant depth, however good its scale, would fail."""
    _, first, _ = sideways
    eye = torch.eye(4, dtype=F64)
    K_cells = torch.tensor([[35.0, 0, 19.5], [0, 35.0, 14.5], [0, 0, 1]], dtype=F64)
    on_box = world.cast(eye, K_cells, 30, 40)[2]
    sure = first.coarse.confidence > 0.5
    box, wall = first.coarse.value[on_box & sure], first.coarse.value[~on_box & sure]
    assert 1.3 < float(box.median() / wall.median()) < 1.9


def test_its_poses_are_the_truth_in_the_scale_of_the_map(sideways, world):
    """The pose of a gathered view is that of the adjusted one nearest in time."""
    poses, first, count = sideways
    truth = world.cell_inv_depth(torch.eye(4, dtype=F64))
    sure = first.coarse.confidence > 0.5
    scale = float((truth[sure] / first.coarse.value[sure]).median())  # unit of the world over that of the map
    adjusted_ids = 1 + np.unique(np.linspace(0, count - 2, InitialiserConfig().views).round().astype(int))
    for n, T_ck in enumerate(first.T_cks, 1):
        T_cw = poses[adjusted_ids[np.abs(adjusted_ids - n).argmin()]]
        assert float((T_ck[:3, 3] / scale - T_cw[:3, 3]).norm()) < 0.01
        assert float(se3.angle_rad(T_ck @ se3.inverse(T_cw))) < 0.005
    assert len({float(T_ck[0, 3]) for T_ck in first.T_cks}) == len(adjusted_ids)


def test_pure_rotation_gives_no_map(world, wall_and_box):
    poses = [wall_and_box.moved(rx=0.004 * n, ry=0.012 * n, rz=0.006 * n) for n in range(14)]
    initialiser, first, _ = fed(world, poses)
    assert first is None
    assert len(initialiser.views) == 14  # all gathered: the flow is 23 px, yet none of it is parallax
    last = initialiser.matches[-1]
    assert turn_and_parallax(last.target_uv, last.weight, wall_and_box.K, 4)[1] < 1.0


def test_a_start_that_moves_everything_out_of_view_leads_nowhere(sideways, world, wall_and_box):
    """It has no misfit to compare; as NaN among the others' it would leave their order to chance."""
    poses, _, _ = sideways
    initialiser = Initialiser(Matcher(world.flow))
    for n, T_cw in enumerate(poses[:4]):
        initialiser.add(world.view(T_cw, n))
    start, K_cells = torch.ones(30, 40), scaled_intrinsics(wall_and_box.K, 1 / 4)
    assert adjusted(initialiser.matches, start, K_cells, 4, steps=20) is not None
    far = torch.tensor([1.1 * start.shape[1], 0.0])
    matches = [replace(match, target_uv=match.target_uv + far) for match in initialiser.matches]
    assert adjusted(matches, start, K_cells, 4, steps=20) is None


def test_the_limit_of_views_must_leave_room_for_an_attempt():
    with pytest.raises(ConfigError, match="min_views must be from 2 to 4, got 5"):
        InitialiserConfig(max_gathered=4)


def test_standing_still_gives_no_map(world):
    assert fed(world, [torch.eye(4, dtype=F64)] * 8)[1] is None


def test_a_cut_begins_anew_and_forgets_no_frame(world, wall_and_box):
    """Three frames of another place first: they are handed on as `before`, in order."""
    other = wall_and_box.World(seed=5)
    initialiser = Initialiser(Matcher(world.flow))
    for n in range(3):
        assert initialiser.add(other.view(wall_and_box.moved(0.01 * n), n)) is None
    first = None
    for n in range(3, 20):
        first = initialiser.add(world.view(wall_and_box.moved(0.03 * n, 0.006 * n), n))
        if first is not None:
            break
    assert first is not None
    ids = [v.frame_id for v in first.before] + [first.view.frame_id] + [v.frame_id for v in first.views]
    assert ids == list(range(n + 1)) and first.view.frame_id >= 3


def test_large_steps_give_a_map_of_the_few_views_that_share_the_first(world, wall_and_box):
    """14 degrees and 10 cm a frame: the fourth view hardly overlaps the first, and a fifth would not at all."""
    poses = [wall_and_box.moved(0.1 * n, 0, 0, 0, -0.24 * n, 0) for n in range(6)]
    _, first, count = fed(world, poses)
    assert first is not None and first.view.frame_id == 0 and 3 <= count < InitialiserConfig().min_views
    assert [view.frame_id for view in first.views] == list(range(1, count))
    for T_ck, T_cw in zip(first.T_cks[:2], poses[1:], strict=False):
        assert float(se3.angle_rad(T_ck @ se3.inverse(T_cw))) < 0.02


def test_a_flow_that_no_constant_depth_explains_is_believed(world, wall_and_box):
    """It agrees both ways, though cells at other depths miss what one depth would make of it."""
    initialiser = Initialiser(Matcher(world.flow, MatcherConfig(min_inlier_ratio=1.0)))
    for n in range(4):
        initialiser.add(world.view(wall_and_box.moved(0.1 * n, 0.02 * n), n))
    assert len(initialiser.matches) == 3 and initialiser.seen.failed == 0
    assert not any(match.ok for match in initialiser.matches)


def test_views_that_show_enough_make_a_map_when_the_next_one_shows_something_else(world, wall_and_box):
    """That one is handed on with them, to be placed or not."""
    initialiser = Initialiser(Matcher(world.flow))
    for n in range(3):
        assert initialiser.add(world.view(wall_and_box.moved(0.25 * n, 0.05 * n), n)) is None
    first = initialiser.add(wall_and_box.World(seed=5).view(wall_and_box.moved(0.4), 3))
    assert first is not None and first.view.frame_id == 0 and initialiser.seen.failed == 1
    assert [view.frame_id for view in first.views] == [1, 2, 3] and len(first.T_cks) == 3


def test_waiting_is_bounded(world):
    """Standing still for ever: views are kept up to the limit, older ones fall out."""
    initialiser = Initialiser(Matcher(world.flow), InitialiserConfig(max_gathered=6))
    view = world.view(torch.eye(4, dtype=F64))
    for _ in range(15):
        assert initialiser.add(view) is None
        assert len(initialiser.views) <= 6 and len(initialiser.dropped) <= 6


def test_of_many_gathered_views_only_some_keep_their_flow(world, wall_and_box, monkeypatch):
    """The map has them all, in order; those without flow are looked at again when they are placed."""
    monkeypatch.setattr("slam.frontend.initialiser.MAX_MATCHED_VIEWS", 10)
    initialiser, first, count = fed(world, [wall_and_box.moved(0.006 * n, 0.001 * n) for n in range(40)])
    assert first is not None and count > 12
    assert [v.frame_id for v in first.views] == list(range(1, count)) and len(first.T_cks) == count - 1
    assert len(initialiser.views) == 10 and len(initialiser.matches) == 9
    held = [v.frame_id for v in initialiser.views]
    assert held[0] == 0 and held[-1] == count - 1 and max(b - a for a, b in itertools.pairwise(held)) <= 8
    x = [float(T_ck[0, 3]) for T_ck in first.T_cks]
    assert all(b >= a for a, b in itertools.pairwise(x))  # guesses go by time, as the camera went


def test_a_restart_forgets_no_view_that_was_put_aside(world, wall_and_box, monkeypatch):
    monkeypatch.setattr("slam.frontend.initialiser.MAX_MATCHED_VIEWS", 6)
    initialiser = Initialiser(Matcher(world.flow), InitialiserConfig(max_gathered=14))
    for n in range(18):
        assert initialiser.add(world.view(wall_and_box.moved(0.001 * n), n)) is None
    first_id = initialiser.views[0].frame_id
    assert 0 < first_id < 14 and [v.frame_id for v in initialiser.dropped] == list(range(first_id))
    kept = sorted(v.frame_id for v in initialiser.views + initialiser.unmatched)
    assert kept == list(range(first_id, 18))


def test_after_long_waiting_half_the_parallax_has_to_do(world, wall_and_box, monkeypatch):
    """About 2 px, of 3 that are wanted; standing still (above) gives no map however long it lasts."""
    poses = [wall_and_box.moved(0.0075 * n, 0.0015 * n) for n in range(14)]
    assert fed(world, poses)[1] is None
    monkeypatch.setattr("slam.frontend.initialiser.MAX_MATCHED_VIEWS", 10)
    assert fed(world, poses)[1] is not None


# with a prior


def ramp(view: View) -> InvDepth:
    """What a picture suggests: nearer towards its bottom, in some unit."""
    value = torch.linspace(2.0, 5.0, 30)[:, None].expand(30, 40)
    return InvDepth(value, 0.4 * value)


def test_a_turned_camera_gets_a_map_by_the_prior_once_the_first_view_leaves_sight(world, wall_and_box):
    poses = [wall_and_box.moved(rx=0.002 * n, ry=0.03 * n) for n in range(20)]
    initialiser, count = Initialiser(Matcher(world.flow), prior=ramp), 0
    assert initialiser.guessed() is None  # before there is anything
    for count, T_cw in enumerate(poses):
        assert initialiser.add(world.view(T_cw, count)) is None
        first = initialiser.guessed()
        if first is not None:
            break
        visible = initialiser.matches[-1].visible_ratio if initialiser.matches else 1.0
        assert visible > InitialiserConfig().turned_visible_ratio
    assert first is not None and 8 < count < 19
    assert initialiser.matches[-1].visible_ratio <= InitialiserConfig().turned_visible_ratio
    assert first.view.frame_id == 0 and [v.frame_id for v in first.views] == list(range(1, count + 1))
    assert float(first.coarse.value.median()) == pytest.approx(1, abs=1e-6)
    ratio = first.coarse.value / first.prior.value
    assert float(ratio.std()) < 1e-6 and torch.equal(first.prior.value, ramp(first.view).value)
    torch.testing.assert_close(first.coarse.relative_sigma, torch.full((30, 40), 0.4))
    for T_ck, T_cw in zip(first.T_cks, poses[1:], strict=False):
        assert float(se3.angle_rad(T_ck @ se3.inverse(T_cw))) < 0.01


def test_without_a_prior_a_turned_camera_has_no_map(world, wall_and_box):
    initialiser, first, _ = fed(world, [wall_and_box.moved(ry=0.03 * n) for n in range(20)])
    assert first is None and initialiser.guessed() is None
    assert initialiser.matches[-1].visible_ratio < InitialiserConfig().turned_visible_ratio


def test_a_guess_is_one_more_start_of_the_adjustment(sideways, world, wall_and_box):
    """The true shape, in the unit of 1: after one step it fits better than all other starts, which need more."""
    poses, _, _ = sideways
    initialiser, _, _ = fed(world, poses[:6], parallax_px=1000.0)
    truth = world.cell_inv_depth(torch.eye(4, dtype=F64))
    guess = truth / truth.median()
    without = solve(initialiser.matches, wall_and_box.K, 4, 1)
    within = solve(initialiser.matches, wall_and_box.K, 4, 1, [guess])
    assert len(within) == len(without) + 1
    assert within[0].cost < 0.9 * without[0].cost
    assert ((within[0].inv_depth / guess - 1).abs() < 0.2).float().mean() > 0.9
    assert [c.cost for c in within[1:]] == pytest.approx([c.cost for c in without])


def test_the_prior_of_the_first_view_is_a_start_in_the_unit_of_the_others(world, wall_and_box, monkeypatch):
    poses = [wall_and_box.moved(0.04 * n, 0.008 * n, 0, 0, 0.004 * n, 0.002 * n) for n in range(7)]
    asked: list[int] = []
    starts: list[torch.Tensor] = []

    def solved(*given):
        starts.extend(given[4])
        return solve(*given)

    def prior(view: View) -> InvDepth:
        asked.append(view.frame_id)
        return ramp(view)

    monkeypatch.setattr("slam.frontend.initialiser.solve", solved)
    assert fed(world, poses)[1].prior is None and starts == []
    _, first, _ = fed(world, poses, prior)
    assert set(asked) == {0} and torch.equal(first.prior.value, ramp(first.view).value)
    (start,) = starts
    assert float(start.median()) == pytest.approx(1, abs=1e-6)
    assert float((start / first.prior.value).std()) < 1e-6


def test_a_wrong_prior_does_not_spoil_a_map_that_parallax_decides(sideways, world):
    poses, plain, count = sideways
    _, first, taken = fed(world, poses, ramp)
    assert first is not None and taken == count
    torch.testing.assert_close(first.coarse.value, plain.coarse.value)

"""Refinement of a stretch: truth stays, noise goes, what contradicts itself is not used, what was kept is used."""

import errno
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError, OutputError, SourceError
from slam.evaluation.consistency import temporal_alignment_error
from slam.frames import Image, Keyframe, View
from slam.geometry import se3
from slam.geometry.flow import reproject
from slam.inv_depth import InvDepth
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.networks.prior import STRIDE
from slam.refinement import refiner as refiner_module
from slam.refinement.acceptance import HeldOut, held_out_errors, is_better
from slam.refinement.clip import Clip
from slam.refinement.constraints import Constraints, averaged
from slam.refinement.direct import DirectConfig, optimised
from slam.refinement.fine_tuning import FineTuningConfig, TunedHead
from slam.refinement.flows import Flows
from slam.refinement.measurement import MIN_PARALLAX_PX, neighbours_by_parallax
from slam.refinement.pairs import held_out_pairs, hierarchical_pairs
from slam.refinement.refiner import RefineConfig, Refined, Refiner, Tools

CPU = torch.device("cpu")
FEW = RefineConfig(direct=DirectConfig(steps=12))  # where the depth's accuracy is not what is tested


class ExactFlow:
    """The flow that follows from a room's depth and poses, as a correspondence."""

    stride = STRIDE
    max_updates = 1

    def __init__(self, room, order: Sequence[int] | None = None) -> None:
        """`order`: the frame of the room that is taken for each of the clip's."""
        self.room, self.pairs = room, 0
        frames = order or range(len(room.clip))
        self.number = {id(view.image): n for view, n in zip(room.clip.views, frames, strict=True)}

    def encode(self, images: Sequence[Image]) -> list[int]:
        return [self.number[id(image)] for image in images]

    def start(self, i: list[int], j: list[int]) -> tuple[Tensor, Tensor]:
        self.pairs += 1
        return torch.tensor(i), torch.tensor(j)

    def update(self, state: tuple[Tensor, Tensor], uv: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        return state, self.room.uv(*state).to(uv) - uv, torch.ones_like(uv)


class Known:
    """Stereo that says what it is told to, frame by frame, and counts how often it is asked."""

    def __init__(self, room, inv_depth: Tensor, relative_sigma: float = 0.03) -> None:
        self.maps = {view.time_ns: d for view, d in zip(room.clip.views, inv_depth, strict=True)}
        self.relative_sigma, self.calls = relative_sigma, 0

    def __call__(self, keyframe: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> InvDepth:
        self.calls += 1
        value = self.maps[keyframe.view.time_ns]
        return InvDepth(value, self.relative_sigma * value)


def tools(room, inv_depth: Tensor, flow=None) -> Tools:
    return Tools(flow or ExactFlow(room), Known(room, inv_depth), None, None, CPU)


class Stop:
    """Says stop from the moment on that the words told contain some."""

    def __init__(self, words: str) -> None:
        self.words, self.is_set = words, False

    def tell(self, words: str) -> None:
        self.is_set |= self.words in words

    def __call__(self) -> bool:
        return self.is_set


def noise(room, flicker: float = 0.05, cell: float = 0.05) -> Tensor:
    """(N, H, W) factors: a scale for each frame and one for each cell."""
    generator = torch.Generator().manual_seed(1)
    N, H, W = room.inv_depth.shape
    frames = flicker * torch.randn(N, 1, 1, generator=generator)
    cells = cell * torch.randn(N, H // STRIDE, W // STRIDE, generator=generator)
    return (frames + cells.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)).exp()


def values(maps: Sequence[InvDepth]) -> Tensor:
    return torch.stack([d.value for d in maps])


def error(room, inv_depth: Tensor, where: Tensor | None = None) -> float:
    """AbsRel without any alignment: the poses have the unit."""
    each = (room.inv_depth / inv_depth - 1).abs()
    return float(each.mean() if where is None else each[where].mean())


@pytest.fixture(scope="module")
def noisy(room) -> Tensor:
    return room.inv_depth * noise(room)


# end to end


def test_exact_depth_stays_as_it_is(room, tmp_path):
    """Truth in, truth out: the held-out pairs accept what optimisation has made of it, or not; half of the pixels off
    edges change by less than a thousandth. The rest is for edges, where a cell is the mean of two planes."""
    config = RefineConfig(direct=DirectConfig(steps=60))  # of at most a hundredth each
    done = Refiner(room.clip, room.keyframes(1), tools(room, room.inv_depth), config, tmp_path).run()
    change = (values(done.after) / room.inv_depth).log().abs()
    at_cells = room.off_edges.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)
    assert change[at_cells].median() < 1e-3 and change.mean() < 5e-3
    if not done.accepted:
        assert change.max() == 0
    assert done.held_out[0].pairs > 0 and done.held_out[0].reprojection_px < 0.05


@pytest.fixture(scope="module")
def refined(room, noisy, tmp_path_factory) -> Refined:
    """Depth with a scale of its own in each frame and noise in each cell, both 5 %; flow measured in the images."""
    keyframes = room.keyframes(1, noisy / room.inv_depth)
    config, used = RefineConfig(direct=DirectConfig(steps=50)), tools(room, noisy, DisFlow())
    return Refiner(room.clip, keyframes, used, config, tmp_path_factory.mktemp("noisy")).run()


def test_flicker_and_noise_get_less(room, noisy, refined):
    """A mean over ten views would take away two thirds of both. A map is judged against truth and against itself."""
    assert refined.accepted
    before, after = values(refined.before), values(refined.after)
    torch.testing.assert_close(before, noisy)
    assert error(room, after) < 0.65 * error(room, before)
    for gap in (1, 5):
        errors = [temporal_alignment_error(d, room.clip.T_wc, room.clip.K, gap) for d in (before, after)]
        assert errors[1] < 0.6 * errors[0]
    assert is_better(refined.held_out[1], refined.held_out[0])
    assert refined.held_out[1].log_ratio < 0.5 * refined.held_out[0].log_ratio
    frames = [float((d / room.inv_depth[n]).log().median()) for n, d in enumerate(after)]
    assert torch.tensor(frames).std() < 0.5 * 0.05  # of the frames' scales


def test_sigma_of_refined_depth_is_that_of_what_is_known(refined):
    """Between the best that is believed and a guess; above 0, as others divide by it."""
    relative = torch.stack([d.relative_sigma for d in refined.after])
    assert relative.isfinite().all() and relative.min() > 1e-3 and relative.max() <= 1.01
    assert relative.median() < 0.06


@pytest.mark.parametrize("factor", [1 / 1.15, 1.15])
def test_depth_that_is_wrong_by_a_factor_is_drawn_to_that_of_the_poses(room, factor):
    """Stereo too near, or too far, in all frames, and unsure of itself: flow and poses have the right scale."""
    constraints = room.constraints(hierarchical_pairs(len(room.clip)))
    wrong = room.cells.log() - torch.tensor(factor).log()
    config = DirectConfig(steps=40)  # of at most a hundredth each
    found = optimised(wrong, torch.full_like(wrong, 0.3), torch.zeros_like(wrong), constraints, config=config)
    left = (found - room.cells.log()).median() / (wrong - room.cells.log()).median()
    assert 0 < left < 0.85


def test_what_moves_is_found_and_the_background_gets_better_all_the_same(passage, tmp_path):
    """Flow measured in the images, noisy depth, no network. A cell that moves has no depth that could be believed."""
    factors = noise(passage)
    used = tools(passage, passage.inv_depth * factors, DisFlow())
    done = Refiner(passage.clip, passage.keyframes(1, factors), used, FEW, tmp_path).run()
    moving, masked = passage.moving, done.static < 0.5
    assert done.static[moving].mean() < done.static[~moving].mean() - 0.2
    assert masked[~moving].float().mean() < 0.05 < 0.25 < masked[moving].float().mean()
    still = ~moving.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)
    assert error(passage, values(done.after), still) < 0.8 * error(passage, values(done.before), still)
    relative = torch.stack([d.relative_sigma for d in done.after])[:, ::STRIDE, ::STRIDE]
    assert relative[masked].median() > 5 * relative[~masked].median()


def test_mode_train_teaches_a_copy_of_the_head_and_goes_on(room, noisy, untrained, tmp_path):
    """Interrupted after the training, it is not trained again; the networks keep every bit."""
    before = {name: x.clone() for name, x in untrained.state_dict().items()}
    config = replace(FEW, mode="train", fine_tuning=FineTuningConfig(steps=6))
    flow = LearnedFlow(untrained.motion)
    used = replace(tools(room, noisy), flow=flow, prior=untrained.prior)
    results, steps = [], []
    for words in ("optimising, step 3 of", "never"):
        stop, told = Stop(words), []

        def tell(said: str, stop: Stop = stop, told: list[str] = told) -> None:
            stop.tell(said)
            told.append(said)

        head = TunedHead(untrained.prior, room.clip.K)
        keyframes = room.keyframes(1, noisy / room.inv_depth)
        results.append(Refiner(room.clip, keyframes, used, config, tmp_path, tell, stop).run(head))
        steps.append(sum(said.startswith("training, step") for said in told))
        assert head.done == 6
    assert steps == [6, 0]
    assert results[1].accepted and error(room, values(results[1].after)) < error(room, noisy)
    assert all(torch.equal(x, before[name]) for name, x in untrained.state_dict().items())


def test_the_head_keeps_the_unit_of_the_map_from_stretch_to_stretch(room, noisy, untrained, tmp_path):
    """In a map whose inverse depths are five times those of the network, also when it goes on with a second stretch."""
    config = replace(FEW, mode="train", fine_tuning=FineTuningConfig(steps=2))
    used = replace(tools(room, noisy), flow=LearnedFlow(untrained.motion), prior=untrained.prior)
    head, scales = TunedHead(untrained.prior, room.clip.K), []
    for name in ("first", "second"):
        head.done = 0
        (tmp_path / name).mkdir()
        Refiner(room.clip, room.keyframes(1), used, config, tmp_path / name).run(head)
        scales.append(head.log_scale)
    unit = float(room.cells.log().median())  # the untrained network's inverse depths are one
    assert abs(scales[0] - unit) < 0.3 and abs(scales[1] - scales[0]) < 0.1


def test_no_time_left_still_tells_whether_there_is_anything_better(room, noisy, tmp_path):
    """The few held-out pairs are measured whatever the time."""
    done = Refiner(room.clip, room.keyframes(1), tools(room, noisy), FEW, tmp_path, stop=lambda: True).run()
    assert done.held_out[0].pairs > 0 and not done.accepted


# what is not used


def shuffled(room) -> Clip:
    order = torch.randperm(len(room.clip), generator=torch.Generator().manual_seed(2))
    return Clip(room.clip.views, room.clip.T_wc[order])


def mirrored(room) -> Clip:
    return Clip(room.clip.views, se3.inverse(room.clip.T_wc))


@pytest.mark.parametrize("poses", [shuffled, mirrored])
def test_wrong_poses_change_nothing(room, noisy, tmp_path, poses):
    done = Refiner(poses(room), room.keyframes(1), tools(room, noisy), FEW, tmp_path).run()
    assert not done.accepted and len(done.after) == len(room.clip)
    assert all(torch.equal(a.value, b.value) for a, b in zip(done.after, done.before, strict=True))


def test_the_flow_of_another_video_changes_nothing(room, noisy, tmp_path):
    """Frames in another order."""
    order = torch.randperm(len(room.clip), generator=torch.Generator().manual_seed(2)).tolist()
    flow = ExactFlow(room, order)
    done = Refiner(room.clip, room.keyframes(1), tools(room, noisy, flow), FEW, tmp_path).run()
    assert not done.accepted and torch.equal(values(done.after), values(done.before))


def test_pairs_whose_flow_contradicts_their_poses_are_left_out(room, tmp_path, monkeypatch):
    """Frame 11 stands half a metre beside its true place: all of its pairs go, and no others."""
    T_wc = room.clip.T_wc.clone()
    T_wc[11] = T_wc[11] @ se3.exp(torch.tensor([0.5, 0, 0, 0, 0, 0], dtype=torch.float64))
    used: list[Constraints] = []

    def kept(mean: Tensor, sigma: Tensor, gray: Tensor, constraints: Constraints, *rest, **others) -> Tensor:
        used.append(constraints)
        return mean

    monkeypatch.setattr(refiner_module, "optimised", kept)
    Refiner(Clip(room.clip.views, T_wc), room.keyframes(1), tools(room, room.inv_depth), FEW, tmp_path).run()
    expected = {pair for pair in hierarchical_pairs(24) if 11 not in pair}
    assert {tuple(pair) for pair in used[0].flows.index.tolist()} == expected | {(j, i) for i, j in expected}
    torch.testing.assert_close(used[0].T_ji, room.clip.motion(*used[0].flows.index.unbind(1)).float())


def test_a_result_that_is_worse_than_the_map_is_not_used(room, noisy, tmp_path, monkeypatch):
    """Optimisation gone wrong: depths with a tilt that changes from frame to frame."""
    tilt = torch.linspace(-0.3, 0.3, 32) * torch.linspace(-1, 1, len(room.clip))[:, None, None]
    monkeypatch.setattr(refiner_module, "optimised", lambda mean, *rest, **others: mean + tilt)
    done = Refiner(room.clip, room.keyframes(1), tools(room, noisy), FEW, tmp_path).run()
    assert not done.accepted and torch.equal(values(done.after), values(done.before))


def test_better_means_more_agreement_and_no_worse_reprojection_of_some_pairs():
    before = HeldOut(reprojection_px=0.5, log_ratio=0.1, pairs=10)
    assert is_better(replace(before, log_ratio=0.05), before)
    assert is_better(replace(before, log_ratio=0.05, reprojection_px=0.3), before)
    assert not is_better(before, before)
    assert not is_better(replace(before, log_ratio=0.2), before)
    assert not is_better(replace(before, log_ratio=0.05, reprojection_px=0.6), before)
    assert not is_better(HeldOut(0.0, 0.0, 0), before) and not is_better(HeldOut(0.0, 0.0, 0), HeldOut(0.0, 0.0, 0))


def test_held_out_errors_tell_truth_from_constants_and_wrong_conventions(room):
    """A constant depth agrees with itself, and not with where things are seen."""
    exact = room.constraints(held_out_pairs(len(room.clip)))
    truth = held_out_errors(room.cells, exact)
    assert truth.pairs == len(exact) and truth.reprojection_px < 0.05 and truth.log_ratio < 0.02
    constant = held_out_errors(torch.full_like(room.cells, float(room.cells.median())), exact)
    assert constant.reprojection_px > 10 * truth.reprojection_px
    flicker = held_out_errors(room.cells * noise(room)[:, :1, :1], exact)
    assert flicker.log_ratio > 5 * truth.log_ratio
    wrong = replace(exact, T_ji=se3.inverse(exact.T_ji))
    assert held_out_errors(room.cells, wrong).reprojection_px > 10 * truth.reprojection_px
    nobody = replace(exact, static=torch.zeros_like(exact.static))
    assert held_out_errors(room.cells, nobody).pairs == 0


# the mean over frames


def pairs_of(room) -> Constraints:
    return room.constraints(hierarchical_pairs(len(room.clip)))


def test_the_mean_of_depths_that_agree_is_each_of_them(room):
    """Off edges inverse depth is linear between cells; the log of its sample is not its sampled log, by 1e-3."""
    constraints = pairs_of(room)
    mean, sigma = averaged(room.cells.log(), torch.full_like(room.cells, 0.05), constraints)
    change = (mean - room.cells.log()).abs()[room.off_edges]
    assert change.median() < 2e-3 and change.mean() < 5e-3
    assert sigma.isfinite().all() and 0 < sigma.median() < 0.05


def test_the_mean_of_noise_is_nearer_to_the_truth(room):
    generator = torch.Generator().manual_seed(3)
    N, h, w = room.cells.shape
    flicker = 0.03 * torch.randn(N, 1, 1, generator=generator) + 0.03 * torch.randn(N, h, w, generator=generator)
    mean, _ = averaged(room.cells.log() + flicker, torch.full_like(room.cells, 0.05), pairs_of(room))
    assert (mean - room.cells.log()).abs().mean() < 0.6 * flicker.abs().mean()


def test_one_frame_that_is_wrong_moves_no_other(room):
    """Half as far again, with the same trust in it; its neighbours see it and give it no weight."""
    logs = room.cells.log()
    wrong = logs.clone()
    wrong[9] -= 0.4
    constraints, sigma = pairs_of(room), torch.full_like(logs, 0.05)
    right, mean = averaged(logs, sigma, constraints)[0], averaged(wrong, sigma, constraints)[0]
    others = torch.arange(len(logs)) != 9
    assert (mean - right)[others].abs().mean() < 0.004  # the plain mean of ten would be moved by 0.04
    assert (mean - right)[others].abs().median() < 0.002


def test_what_moves_is_not_asked(room):
    """Cells of frame 9 that move, and are wrong by less than an outlier, do not enter the mean of others."""
    logs, sigma = room.cells.log(), torch.full_like(room.cells, 0.05)
    wrong = logs.clone()
    wrong[9] -= 0.08
    constraints = pairs_of(room)
    static = torch.ones_like(logs)
    static[9] = 0
    masked = replace(constraints, static=static)
    others = torch.arange(len(logs)) != 9
    moved = [
        (averaged(wrong, sigma, c)[0] - averaged(logs, sigma, c)[0])[others].abs().max() for c in (constraints, masked)
    ]
    assert moved[0] > 0.002 and moved[1] == 0


@pytest.mark.parametrize("forward", [0.5, -0.5])
def test_the_mean_knows_that_a_camera_that_goes_forward_is_nearer(forward):
    """A wall 2 away, 1.5 (2.5) by the other camera: told by that one it is 2 again, not 1.5."""
    K = torch.tensor([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]])
    depth = torch.tensor([2.0, 2 - forward])
    d = (1 / depth)[:, None, None].expand(2, 24, 32).contiguous()
    T_ji = torch.eye(4).repeat(2, 1, 1)
    T_ji[:, 2, 3] = torch.tensor([-forward, forward])
    uv, _, _ = reproject(d, T_ji, K.expand(2, 3, 3))
    grid = reproject(d, torch.eye(4).expand(2, 4, 4), K.expand(2, 3, 3))[0]
    seen = ((uv >= 0) & (uv <= torch.tensor([31.0, 23.0]))).all(-1)
    flows = Flows(torch.tensor([[0, 1], [1, 0]]), (uv - grid).half(), torch.ones_like(uv).half(), seen)
    constraints = Constraints(flows, T_ji, K, torch.ones_like(d), STRIDE)
    unsure = torch.full_like(d, 0.1)
    unsure[1] = 0.01
    start = d.log()
    start[0] += 0.05
    mean, _ = averaged(start, unsure, constraints)  # frame 1 is ten times as sure: it decides
    assert (mean[0] - d[0].log())[seen[0]].abs().max() < 0.005
    assert (mean[1] - d[1].log()).abs().max() < 0.001


# neighbours for stereo


def test_neighbours_lie_before_and_after_at_the_parallax_that_is_wanted():
    """A camera that moves to the right by 1 cm a frame: at a depth of 1 and a focal length of 100 px, 1 px a frame."""
    K = torch.tensor([[100.0, 0, 63.5], [0, 100.0, 47.5], [0, 0, 1]], dtype=torch.float64)
    image = Image(torch.zeros(96, 128, 3, dtype=torch.uint8).numpy())
    T_wc = torch.eye(4, dtype=torch.float64).repeat(100, 1, 1)
    T_wc[:, 0, 3] = 0.01 * torch.arange(100)
    clip = Clip(tuple(View(n, n, image, K) for n in range(100)), T_wc)
    assert sorted(neighbours_by_parallax(clip, 50, 1.0)) == [2, 26, 38, 62, 74, 98]
    assert sorted(neighbours_by_parallax(clip, 50, 2.0)) == [26, 38, 44, 56, 62, 74]
    assert sorted(neighbours_by_parallax(clip, 0, 1.0)) == [12, 24, 48]
    far = 0.9 * MIN_PARALLAX_PX / 49  # even the farthest frame has too little
    assert neighbours_by_parallax(clip, 50, far) == []
    still = Clip(clip.views, T_wc[:1].expand(100, 4, 4))
    assert neighbours_by_parallax(still, 50, 1.0) == []
    assert neighbours_by_parallax(Clip(clip.views[:1], T_wc[:1]), 0, 1.0) == []


def test_stereo_is_told_where_the_neighbours_stand(room, tmp_path):
    """`T_jk`: a point of the keyframe is where the neighbour has it."""
    seen = []

    def stereo(keyframe: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> InvDepth:
        n = keyframe.view.frame_id
        for view, T in zip(neighbours, T_jk, strict=True):
            expected = torch.linalg.inv(room.clip.T_wc[view.frame_id]) @ room.clip.T_wc[n]
            torch.testing.assert_close(T, expected)
            seen.append((n, view.frame_id))
        torch.testing.assert_close(keyframe.T_wc, room.clip.T_wc[n])
        low, high = (keyframe.coarse.value / room.cells[n]).log().abs().flatten().quantile(torch.tensor([0.5, 0.9]))
        assert low < 0.02 and high < 0.2  # where it begins to search is the map's depth
        return InvDepth(room.inv_depth[n], 0.03 * room.inv_depth[n])

    Refiner(room.clip, room.keyframes(4), replace(tools(room, room.inv_depth), stereo=stereo), FEW, tmp_path).run()
    assert {n for n, _ in seen} == set(range(24)) and len(seen) > 48


# what is kept


def run(room, noisy, folder: Path, used: Tools, config: RefineConfig = FEW, **others) -> Refined:
    return Refiner(room.clip, room.keyframes(1, noisy / room.inv_depth), used, config, folder, **others).run()


@pytest.fixture(scope="module")
def whole(room, noisy, tmp_path_factory) -> tuple[Refined, Path]:
    """A refinement that nothing interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(room, noisy, folder, tools(room, noisy)), folder


def test_the_same_again_is_the_same_bit_by_bit(room, noisy, whole, tmp_path):
    again = run(room, noisy, tmp_path, tools(room, noisy))
    assert whole[0].accepted
    assert torch.equal(values(again.after), values(whole[0].after)) and again.held_out == whole[0].held_out


def test_stopped_at_once_it_keeps_what_there_was_and_writes_nothing(room, noisy, tmp_path):
    used = tools(room, noisy)
    done = run(room, noisy, tmp_path, used, stop=lambda: True)
    assert not done.accepted and torch.equal(values(done.after), noisy)
    assert used.stereo.calls == 0 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "kept", "asked"),
    [
        ("depth measured in 12 of", [], (24, True)),
        ("measuring the flow", ["measured"], (0, True)),
        ("optimising, step 10 of", ["flows", "held_out", "measured"], (0, False)),
    ],
)
def test_an_interrupted_one_goes_on_with_what_was_kept(room, noisy, whole, tmp_path, words, kept, asked):
    """The result is that of one that was not interrupted. What was half done when it was stopped is done again."""
    stop = Stop(words)
    first = run(room, noisy, tmp_path, tools(room, noisy), tell=stop.tell, stop=stop)
    assert stop.is_set and len(first.after) == 24
    assert sorted(path.stem for path in tmp_path.iterdir()) == kept
    used = tools(room, noisy)
    second = run(room, noisy, tmp_path, used)
    assert (used.stereo.calls, used.correspondence.pairs > 0) == asked
    assert torch.equal(values(second.after), values(whole[0].after))
    assert [path.name for path in tmp_path.iterdir()] == ["result.safetensors"]


def test_what_is_done_is_not_done_again(room, noisy, whole, tmp_path):
    """Only the result is left, and whoever asks gets it, without stereo and flow; of other settings it is not taken."""
    done, folder = whole
    assert [path.name for path in folder.iterdir()] == ["result.safetensors"]
    (tmp_path / "result.safetensors").write_bytes((folder / "result.safetensors").read_bytes())
    used = tools(room, noisy)
    again = run(room, noisy, tmp_path, used)
    assert used.stereo.calls == used.correspondence.pairs == 0
    for name in ("value", "sigma"):
        maps = [torch.stack([getattr(d, name) for d in r.after]) for r in (done, again)]
        assert torch.equal(*maps)
    assert torch.equal(done.static, again.static)
    assert (done.held_out, done.accepted) == (again.held_out, again.accepted)
    used = tools(room, noisy)
    run(room, noisy, tmp_path, used, replace(FEW, measure=False, mask=False))
    assert used.stereo.calls == 0 and used.correspondence.pairs > 0


@pytest.mark.parametrize("name", ["measured", "flows", "result"])
def test_a_damaged_file_is_named(room, noisy, tmp_path, name):
    (tmp_path / f"{name}.safetensors").write_bytes(b"broken")
    with pytest.raises(SourceError, match=f"{name}.safetensors.*delete"):
        run(room, noisy, tmp_path, tools(room, noisy))


@pytest.mark.parametrize("name", ["measured", "flows", "result"])
def test_a_full_disk_is_said_and_leaves_nothing_half(room, noisy, tmp_path, monkeypatch, name):
    mkstemp = tempfile.mkstemp

    def refusing(prefix: str, **options) -> tuple[int, str]:
        if prefix.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return mkstemp(prefix=prefix, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refusing)
    with pytest.raises(OutputError, match=f"{name}.safetensors: No space left on device; free some space"):
        run(room, noisy, tmp_path, tools(room, noisy))
    assert name not in {path.stem for path in tmp_path.iterdir()}


def test_flows_are_kept_under_what_they_were_measured_on(room, tmp_path):
    flows = room.flows([(0, 1), (4, 9)])
    path = tmp_path / "flows.safetensors"
    assert Flows.load(path, "key") is None
    flows.save(path, "key")
    found = Flows.load(path, "key")
    assert found is not None
    assert all(torch.equal(x, y) for x, y in zip(vars(flows).values(), vars(found).values(), strict=True))
    assert Flows.load(path, "another") is None
    path.write_bytes(b"broken")
    with pytest.raises(SourceError, match="no file of flows"):
        Flows.load(path, "key")
    with pytest.raises(OutputError, match=r"cannot write .*below: File exists"):
        flows.save(tmp_path / "flows.safetensors" / "below", "key")


def test_a_gap_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="largest_gap must be from"):
        RefineConfig(largest_gap=0)

"""The self-supervised stage on videos made by formula: what it learns, what it must not touch, and how it goes on."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.errors import SourceError, WeightsError
from slam.geometry import se3
from slam.networks.prior import PriorNetConfig, PriorOutput
from slam.networks.storage import load_networks, read_metadata
from slam.training.card import model_card
from slam.training.clips import Clip, ClipPool
from slam.training.self_supervision import (
    TRUSTED_SIGMA,
    SelfSupervisionConfig,
    distillation_loss,
    inconsistency,
    warp_view,
)
from slam.training.selfsup_stage import SelfSupervisedStage
from slam.training.trainer import TrainConfig, Trainer
from slam.training.validation import NO_CHANGE
from slam.training.video import Video
from tests.training import tiny

TINY = replace(tiny.TINY, prior=PriorNetConfig(16, 24, 32, 48))  # wide enough for shapes
CPU = torch.device("cpu")
ALONE = SelfSupervisionConfig(replay_every=0, targets=1, distillation=0, geometry=0.1)  # no truth, no map's depth


def trainer(videos: list[Video], settings: SelfSupervisionConfig = ALONE, clips: list[Clip] | None = None) -> Trainer:
    pool = ClipPool(8)
    for clip in clips or []:
        pool.add(clip)
    augment = replace(NO_CHANGE, flip=0.5)
    config = TrainConfig(
        "selfsup", learning_rate=3e-3, clips=2, views=2, augment=augment, selfsup=settings, steps_per_render=1000
    )
    stage = SelfSupervisedStage(videos, settings, augment, TINY.encoder, CPU)
    return Trainer(TINY, config, pool, lambda g: [], CPU, selfsup=stage)


@pytest.fixture(scope="module")
def middle(slide: Video) -> Video:
    """The middle of the slide, 96x80 pixels: training on it takes less than half the time."""
    top, left = 20, 32
    K = slide.K.clone()
    K[:2, 2] -= torch.tensor([left, top])
    rows, columns = slice(top // 4, top // 4 + 20), slice(left // 4, left // 4 + 24)
    depth, sigma = slide.inv_depth[:, rows, columns], slide.relative_sigma[:, rows, columns]
    images = slide.images[..., top : top + 80, left : left + 96].contiguous()
    return replace(slide, images=images, K=K, inv_depth=depth, relative_sigma=sigma)


def trained(t: Trainer, steps: int) -> list[dict[str, float]]:
    return [t.step(n / steps) for n in range(steps)]


@torch.no_grad()
def abs_rel(t: Trainer, video: Video) -> float:
    """Of the whole video by its current weights, one scale a picture."""
    maps = t.networks.motion.encode(video.images)
    found = t.networks.prior(maps, video.K.expand(len(video.images), 3, 3)).log_inv_depth.exp()
    ratios = (video.inv_depth / found).flatten(1)
    return float((ratios / ratios.median(1, keepdim=True).values - 1).abs().mean())


def test_true_poses_teach_depth_and_wrong_ones_do_not(middle):
    """No depth is given but that which sets the scale. The wrong poses are those of other frames, on the same pairs."""
    right = trainer([middle])
    constant, untrained = abs_rel(right, middle), right.selfsup.validate(right.networks)
    trained(right, 80)
    wrong = trainer([middle])
    order = torch.randperm(len(middle.T_wc), generator=torch.Generator().manual_seed(1))
    wrong.selfsup.videos = (replace(middle, T_wc=middle.T_wc[order]),)
    trained(wrong, 40)
    assert abs_rel(right, middle) < 0.6 * constant
    assert abs_rel(wrong, middle) > 0.9 * constant
    held_out = right.selfsup.validate(right.networks)  # the last tenth of the time, which it has not seen
    assert set(held_out) == {"held_out_photometric", "held_out_inconsistency"}
    assert held_out["held_out_photometric"] < 0.8 * untrained["held_out_photometric"]


def test_depth_is_learned_without_touching_tracking(slide, plane_clip):
    """Trunk, motion and stereo are the same to the bit afterwards, and so is what tracking reads of an image."""
    generator = torch.Generator().manual_seed(5)
    clips = [plane_clip(generator, views=2, height=64) for _ in range(2)]
    t = trainer([slide], SelfSupervisionConfig(targets=1), clips)
    before = {name: value.clone() for name, value in t.networks.state_dict().items()}
    maps = t.networks.motion.encode(slide.images[:1])
    steps = trained(t, 4)
    assert [("shape" in parts, "photometric" in parts) for parts in steps] == [(True, False), (False, True)] * 2
    for name, value in t.networks.state_dict().items():
        assert name.startswith("prior.") or torch.equal(value, before[name]), name
    assert not torch.equal(t.networks.prior.head.weight, before["prior.head.weight"])
    after = t.networks.motion.encode(slide.images[:1])
    assert all(torch.equal(value, getattr(after, name)) for name, value in vars(maps).items())


def test_a_resumed_run_takes_the_same_next_steps(tmp_path, middle, plane_clip):
    """Also the scale between two measurements, and the pose network of a video without poses."""
    plain = replace(middle, name="plain", T_wc=middle.T_wc[:0], inv_depth=torch.zeros_like(middle.inv_depth))
    clips = [plane_clip(torch.Generator().manual_seed(5), views=2, height=64)]
    settings = SelfSupervisionConfig(targets=1, scale_every=50)
    first = trainer([middle, plain], settings, clips)
    trained(first, 5)
    first.save(tmp_path)
    resumed = trainer([middle, plain], settings, clips)
    resumed.load(tmp_path / "checkpoint.pt")
    assert resumed.selfsup.scales == first.selfsup.scales and first.selfsup.scales[0] != 1.0
    assert [first.step(0.5) for _ in range(4)] == [resumed.step(0.5) for _ in range(4)]
    for name, value in first.networks.state_dict().items():
        assert torch.equal(value, resumed.networks.state_dict()[name])
    for a, b in zip(first.selfsup.parameters, resumed.selfsup.parameters):
        assert torch.equal(a, b)
    assert not any(name.startswith("selfsup") or "pose" in name for name in first.average)  # not in the weights file
    with pytest.raises(WeightsError, match="other videos or other --poses"):
        trainer([middle], settings, clips).load(tmp_path / "checkpoint.pt")


def test_recordings_are_named_in_the_card_and_in_what_comes_later(tmp_path, middle, plane_clip):
    t = trainer([middle])
    trained(t, 2)
    card = model_card(t, {})
    assert "not to be shipped" in card and "`slide`" in card
    t.save(tmp_path)
    assert read_metadata(tmp_path / "weights.safetensors")["recordings"] == '["slide"]'
    load_networks(tmp_path / "weights.safetensors")
    for file in ("checkpoint.pt", "weights.safetensors"):
        later = Trainer(TINY, TrainConfig("prior"), ClipPool(2), lambda g: [], CPU)
        assert "not to be shipped" not in model_card(later, {})
        later.load(tmp_path / file)
        assert "`slide`" in model_card(later, {})


@pytest.mark.parametrize("unit", [0.37, 2.0])
def test_each_map_has_its_own_scale_and_the_loss_is_free_of_its_unit(unit: float, middle):
    """A map whose unit is 1 / 0.37 times as long: its scale is 1 / 0.37 times the other's, its losses are the same."""
    T_wc = middle.T_wc.clone()
    T_wc[:, :3, 3] *= unit
    other = replace(middle, T_wc=T_wc, inv_depth=middle.inv_depth / unit)
    both = trainer([middle, other])
    both.selfsup.measure_scales(both.networks)
    first, second = both.selfsup.scales
    assert second == pytest.approx(first / unit, rel=1e-5)
    assert first == pytest.approx(float(middle.inv_depth.median()), rel=0.05)  # the untrained depth is 1 everywhere
    settings = SelfSupervisionConfig(targets=2, replay_every=0)
    a, b = (trainer([video], settings).step(0.1) for video in (middle, other))
    for name in ("photometric", "geometry", "distillation"):
        assert b[name] == pytest.approx(a[name], rel=1e-3)


def test_distillation_counts_certain_depth_alone_by_its_sigma():
    """Three cells: exact, unknown, and wrong by a factor of e with four times the trusted sigma."""
    log_inv_depth = torch.zeros(1, 1, 3, requires_grad=True)
    output = PriorOutput(log_inv_depth, torch.zeros(1, 1, 3, requires_grad=True))
    inv_depth = torch.tensor([[[2.0, 0.0, 2 * 2.71828]]])  # of a map with two of the network's units in one of its own
    sigma = TRUSTED_SIGMA * torch.tensor([[[1.0, 1.0, 4.0]]])
    loss, parts = distillation_loss(output, inv_depth, sigma, 2.0)
    assert float(parts["distillation"]) == pytest.approx((0 + 1 / 4) / 2, abs=1e-4)
    loss.backward()
    assert log_inv_depth.grad[0, 0, 1] == 0 and log_inv_depth.grad[0, 0, 2] < 0  # more inverse depth, less loss
    assert output.log_sigma.grad[0, 0, 0] > 0 == output.log_sigma.grad[0, 0, 1]  # exact: may be surer
    nothing, _ = distillation_loss(PriorOutput(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)), 0 * sigma, sigma, 2.0)
    assert float(nothing) == 0


def area_under_curve(score: Tensor, positive: Tensor) -> float:
    """Chance that the score of a positive is higher than that of another."""
    ranks = score.argsort().argsort().double() + 1
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def test_the_mask_finds_a_box_that_moves_between_two_views(wall_and_box, monkeypatch):
    """The box is gone to the side in the second view. M_s = 1 - D_diff is lower on it than elsewhere."""
    T_a, T_b = wall_and_box.moved(x=0.0), wall_and_box.moved(x=0.05)
    world = wall_and_box.World()
    inv_depth_a = world.inv_depth(T_a)[None]
    on_box = world.cast(T_a, wall_and_box.K, 120, 160)[2]
    still = world.inv_depth(T_b)[None]
    monkeypatch.setattr(wall_and_box, "BOX_LIMITS", (-0.55, 0.3, 0.05, 0.25))
    gone = world.inv_depth(T_b)[None]
    image = torch.zeros(1, 3, 120, 160)
    curves = []
    for inv_depth_b in (still, gone):
        warped = warp_view(image, inv_depth_a, inv_depth_b, T_b[None], wall_and_box.K[None])
        disagreement = inconsistency(warped.inv_depth, warped.sampled_inv_depth)
        counted = warped.valid[0]
        curves.append(area_under_curve(disagreement[0][counted], on_box[counted]))
    assert curves[1] > 0.8 > curves[0]


def test_without_poses_motion_and_depth_are_learned_together(middle):
    """Ten steps' mean before and after, on soft images: what is 8 pixels off must look a little alike, to be drawn."""
    soft = F.avg_pool2d(F.avg_pool2d(middle.images.float(), 9, 1, 4), 9, 1, 4).byte()
    plain = replace(middle, images=soft, T_wc=middle.T_wc[:0], inv_depth=torch.zeros_like(middle.inv_depth))
    settings = replace(ALONE, auto_mask=False)
    t = trainer([plain], settings)
    errors = [parts["photometric"] for parts in trained(t, 120)]
    assert sum(errors[-10:]) < 0.75 * sum(errors[:10])
    with torch.no_grad():
        maps = t.networks.motion.encode(soft[[0, 3]])
        moved = t.selfsup.pose_net(maps[:1], maps[1:])[0]
    true = se3.inverse(middle.T_wc[3]) @ middle.T_wc[0]
    assert moved[0, 3] * true[0, 3] > 0  # to the same side


def test_a_video_without_any_pair_is_refused(slide):
    still = replace(slide, T_wc=slide.T_wc[:1].expand(30, 4, 4), images=slide.images[:1].expand(30, -1, -1, -1))
    with pytest.raises(SourceError, match="slide has no two frames to learn from: too little parallax"):
        trainer([still])
    blind = replace(slide, inv_depth=torch.zeros_like(slide.inv_depth))
    with pytest.raises(SourceError, match="no two keyframes measured the same depth"):
        trainer([blind])

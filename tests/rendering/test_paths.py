"""Clips and hand-held paths: flow, overlap, clearance, smoothness, closure."""

import pytest
import torch

from slam.errors import ConfigError
from slam.geometry import se3
from slam.rendering.clips import MIN_CLEARANCE, MIN_OVERLAP, clip_poses, neighbour_flow
from slam.rendering.paths import MAX_SPEED, PATH_VARIANTS, between, handheld_path, shaken
from slam.rendering.primitives import distance, stack
from slam.rendering.scenes import SCENE_KINDS, make_scene
from slam.rendering.viewpoints import default_intrinsics

K = default_intrinsics(96, 128)


def clips(scale: float, count: int = 14) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Median flow at 256 columns, overlap (S, V - 1), clearance (S, V)."""
    generator = torch.Generator().manual_seed(11)
    scenes = stack([make_scene(SCENE_KINDS[i % len(SCENE_KINDS)], generator) for i in range(count)])
    T_wc = clip_poses(scenes, 4, generator, scale)
    assert T_wc.shape == (count, 4, 4, 4) and T_wc.dtype == torch.float64
    flow, inside = neighbour_flow(scenes, T_wc, K, 96, 128)
    px = 2 * flow.norm(dim=-1).flatten(2).median(-1).values
    return px, inside.double().mean((-1, -2)), distance(scenes, T_wc[..., :3, 3].float())


def test_clips_span_the_wanted_flow_and_overlap():
    px, overlap, clear = clips(1.0)
    mean = px.mean(1)
    quantile = mean.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    assert quantile[0] < 5 and 6 < quantile[1] < 20 and quantile[2] > 22
    assert mean.quantile(0.95) < 66
    assert overlap.min() > MIN_OVERLAP - 0.05  # chosen on a preview of 32 columns
    # a candidate without room happens in an overfull scene; then it is skipped motion, not a camera inside things
    assert (clear.amin(1) >= MIN_CLEARANCE - 1e-4).double().mean() > 0.95 and clear.min() > 0.02


def test_the_curriculum_begins_with_small_motion():
    px, _, _ = clips(0.0, 14)
    assert (px.mean(1) - 2).abs().median() < 0.3


def test_clips_mix_turning_and_moving():
    generator = torch.Generator().manual_seed(12)
    scenes = stack([make_scene("bare", generator) for _ in range(24)])
    T_wc = clip_poses(scenes, 2, generator)
    xi = se3.log(se3.inverse(T_wc[:, 0]) @ T_wc[:, 1])
    turn_px = 222 * xi[:, 3:].norm(dim=-1)
    assert (turn_px < 0.5).any() and (turn_px > 10).any()
    assert (xi[:, :3].norm(dim=-1) > 0.05).any()


@pytest.mark.parametrize("variant", PATH_VARIANTS)
def test_paths_are_smooth_and_clear_of_geometry(variant: str):
    generator = torch.Generator().manual_seed(21)
    for kind in ("living", "corridor", "desk", "clutter"):
        scene = make_scene(kind, generator)
        T_wc = handheld_path(scene, 90, 30.0, generator, variant)
        assert T_wc.shape == (90, 4, 4)
        assert distance(stack([scene]), T_wc[None, :, :3, 3].float()).min() >= 0.25
        step = se3.log(se3.inverse(T_wc[:-1]) @ T_wc[1:])
        speed, turn = 30 * step[:, :3].norm(dim=-1), 30 * step[:, 3:].norm(dim=-1)
        assert speed.max() < MAX_SPEED + 0.2 and turn.max() < 1.8  # the limits, and tremor on top
        jerk = step.diff(dim=0)
        assert jerk[:, :3].norm(dim=-1).max() < 0.01 and jerk[:, 3:].norm(dim=-1).max() < 0.02
        assert T_wc[:, 1, 1].min() > 0.2  # held upright


def test_a_loop_closes():
    generator = torch.Generator().manual_seed(22)
    T_wc = handheld_path(make_scene("living", generator), 300, 30.0, generator, "loop")
    steps = T_wc[:, :3, 3].diff(dim=0).norm(dim=-1)
    assert steps.sum() > 1.5
    assert (T_wc[0, :3, 3] - T_wc[-1, :3, 3]).norm() < 0.05
    assert se3.angle_rad(se3.inverse(T_wc[0]) @ T_wc[-1]) < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_a_turn_is_a_turn_on_the_spot_and_then_a_step(seed: int):
    """12 s: a quarter turn and back without any translation, to the last bit, then up to 0.8 m to the side."""
    generator = torch.Generator().manual_seed(seed)
    T_wc = handheld_path(make_scene("living", generator), 180, 15.0, generator, "turn")
    moved = (T_wc[:, :3, 3] - T_wc[0, :3, 3]).norm(dim=-1)
    turn = int((moved < 1e-9).sum())
    assert 60 < turn < 110 and moved[:turn].max() < 1e-9 and moved[turn:].min() > 1e-9
    assert 0.4 < moved[-1] == moved.max() < 0.9
    angle = torch.rad2deg(se3.angle_rad(se3.inverse(T_wc[:1]) @ T_wc))
    assert 80 < angle[:turn].max() < 100 and angle[-1] < 15
    step = T_wc[0, :3, :3].mT @ (T_wc[-1, :3, 3] - T_wc[0, :3, 3])
    assert step[0].abs() > 0.85 * step.norm()  # to the side


def test_paths_repeat_by_seed():
    def path(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return handheld_path(make_scene("office", generator), 30, 30.0, generator, "walk")

    assert torch.equal(path(3), path(3)) and not torch.equal(path(3), path(4))


def test_unknown_names_are_reported():
    generator = torch.Generator()
    with pytest.raises(ConfigError, match="moon"):
        make_scene("moon", generator)
    with pytest.raises(ConfigError, match="fly"):
        handheld_path(make_scene("bare", generator), 10, 30.0, generator, "fly")
    with pytest.raises(ValueError, match=r"1\.5"):
        clip_poses(stack([make_scene("bare", generator)]), 4, generator, 1.5)


def test_a_shake_turns_the_camera_as_much_and_as_often_as_it_should():
    """Deviation about each axis, and 3 to 6 Hz by its steps: the angle's deviation times 2 pi f / fps."""
    still = torch.eye(4, dtype=torch.float64).expand(600, 4, 4)
    T_wc = shaken(still, 60.0, 2.0, torch.Generator().manual_seed(3))
    twist = se3.log(T_wc)
    assert not twist[:, :3].any()
    deviation = torch.rad2deg(twist[:, 3:].std(0))
    assert (deviation - 2).abs().max() < 0.4
    hertz = 60 / (2 * torch.pi) * twist[:, 3:].diff(dim=0).std(0) / twist[:, 3:].std(0)
    assert (hertz > 2.9).all() and (hertz < 6.1).all()


def test_between_two_poses_the_path_goes_straight_on_also_past_its_ends():
    step = torch.tensor([0.1, 0.0, 0.2, 0.0, 0.3, 0.0], dtype=torch.float64)
    T_wc = se3.exp(step * torch.arange(3, dtype=torch.float64)[:, None])
    at = torch.tensor([[-0.5, 0.0], [1.25, 2.5]], dtype=torch.float64)
    torch.testing.assert_close(between(T_wc, at), se3.exp(at[..., None] * step), atol=1e-12, rtol=0)

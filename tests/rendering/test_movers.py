"""Movers: masks against depth, true poses against depth, epipolar flow, gait; static pixels stay as they are."""

import importlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.geometry import se3
from slam.geometry.camera import Camera, sample
from slam.geometry.flow import in_image, project, rays
from slam.io.images import read_depth, read_mask
from slam.rendering import furniture
from slam.rendering.movers import CAMERA_CLEARANCE, LARGEST, MOVER_KINDS, Movers, Placement, make_movers
from slam.rendering.paths import handheld_path
from slam.rendering.primitives import Scenes, distance, stack
from slam.rendering.renderer import Rendered, render, render_primitives
from slam.rendering.scenes import make_scene
from slam.sources.demo import DemoConfig, DemoSource

H, W, VIEWS, FPS = 72, 96, 16, 5.0
CAMERA = Camera(W, H, 80.0, 80.0, 47.5, 35.5)
K = CAMERA.matrix()
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class Clip:
    """A static scene, a path, movers, what they look like together, and the scene without them."""

    static: Scenes
    T_wc: Tensor
    movers: Movers
    seen: Rendered
    mask: Tensor
    empty: Rendered


def clip(kind: str, seed: int = 3) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    static = stack([make_scene("office", generator)])
    T_wc = handheld_path(static, VIEWS, FPS, generator, "walk")
    movers = make_movers(kind, static, T_wc, FPS, CAMERA, generator)
    scenes = movers.within(static, slice(0, VIEWS))
    mask = render_primitives(scenes, T_wc, K, H, W) >= static.kind.shape[1]
    return Clip(static, T_wc, movers, render(scenes, T_wc, K, H, W), mask, render(static, T_wc, K, H, W))


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    return {kind: clip(kind) for kind in MOVER_KINDS}


def points(c: Clip, i: int, n: int = 0) -> Tensor:
    """(m, 3) world points of the pixels of view i that show object n."""
    index = render_primitives(c.movers.within(c.static, slice(i, i + 1)), c.T_wc[i : i + 1], K, H, W)[0]
    own = torch.cat([torch.full((c.static.kind.shape[1],), -1), c.movers.owner])
    p_c = rays(K[None], H, W)[0] * c.seen.depth[i, ..., None].double()
    return (p_c @ c.T_wc[i, :3, :3].mT + c.T_wc[i, :3, 3])[own[index] == n]


def moved(c: Clip, p_w: Tensor, i: int, j: int, n: int = 0) -> Tensor:
    """Points (m, 3) of object n at view i, where they are at view j."""
    T = c.movers.T_wo[j, n] @ se3.inverse(c.movers.T_wo[i, n])
    return p_w @ T[:3, :3].mT + T[:3, 3]


def in_view(c: Clip, p_w: Tensor, j: int) -> tuple[Tensor, Tensor]:
    """Pixels (m, 2) and depth (m,) of world points in view j."""
    T_cw = se3.inverse(c.T_wc[j])
    p_c = p_w @ T_cw[:3, :3].mT + T_cw[:3, 3]
    return project(p_c[None], K[None])[0], p_c[:, 2]


@pytest.mark.parametrize("kind", MOVER_KINDS)
def test_the_mask_is_where_depth_differs_from_the_static_scene(clips, kind):
    c = clips[kind]
    assert torch.equal(c.mask, c.seen.depth != c.empty.depth)
    assert (c.seen.depth[c.mask] < c.empty.depth[c.mask]).all()
    share = c.mask.double().mean((1, 2))
    assert ((share > 0.03) & (share < 0.3)).double().mean() > 0.4 and share.max() < LARGEST + 0.05


@pytest.mark.parametrize("kind", MOVER_KINDS)
def test_static_pixels_are_those_of_the_static_render(clips, kind):
    c = clips[kind]
    same = ~c.mask[:, None].expand(-1, 3, -1, -1)
    # the last bits may differ where vectorised and plain functions round differently
    torch.testing.assert_close(c.seen.image[same], c.empty.image[same], rtol=0, atol=1e-5)
    assert (c.seen.image[~same] - c.empty.image[~same]).abs().mean() > 0.03
    lit = c.movers.within(c.static, slice(2, 4)).light_volume
    assert lit.data_ptr() == c.static.light_volume.data_ptr()  # nothing was baked anew


@pytest.mark.parametrize("kind", ["rigid", "epipolar"])
def test_points_moved_by_the_true_pose_have_the_depth_of_the_later_view(clips, kind):
    c = clips[kind]
    agree, still = [], []
    for i in range(VIEWS - 2):
        p_w = points(c, i)
        for found, q_w in ((agree, moved(c, p_w, i, i + 2)), (still, p_w)):
            uv, depth = in_view(c, q_w, i + 2)
            inside = in_image(uv, H, W, 1)
            there = 1 / sample((1 / c.seen.depth[i + 2].double())[None, None], uv[None, None])[0, 0, 0]
            found.append(((there / depth - 1).abs() < 2e-3)[inside])  # bilinear is exact on a face
    agree_share, still_share = torch.cat(agree).double().mean(), torch.cat(still).double().mean()
    assert len(torch.cat(agree)) > 500
    assert agree_share > 0.75 and still_share < 0.3  # the rest has turned away or lies on an edge


def epipolar_residual_px(c: Clip, i: int, j: int) -> tuple[Tensor, Tensor]:
    """Of object 0's points from view i to j: distance from the epipolar lines, and from the places of static points."""
    p_w = points(c, i)
    uv_i, _ = in_view(c, p_w, i)
    uv_j, _ = in_view(c, moved(c, p_w, i, j), j)
    T_ji = se3.inverse(c.T_wc[j]) @ c.T_wc[i]
    F = torch.linalg.inv(K).mT @ se3.hat(T_ji[:3, 3]) @ T_ji[:3, :3] @ torch.linalg.inv(K)
    one = torch.ones(len(p_w), 1, dtype=torch.float64)
    line = torch.cat([uv_i, one], 1) @ F.mT
    off = (torch.cat([uv_j, one], 1) * line).sum(1).abs() / line[:, :2].norm(dim=1)
    return off, (uv_j - in_view(c, p_w, j)[0]).norm(dim=1)


def test_an_epipolar_mover_stays_on_the_epipolar_lines_and_is_no_static_thing(clips):
    pairs = [(i, j) for i in range(VIEWS) for j in (i - 3, i + 1, i + 4) if 0 <= j < VIEWS]
    off, rigid = (torch.cat(parts) for parts in zip(*(epipolar_residual_px(clips["epipolar"], *p) for p in pairs)))
    assert len(off) > 1000 and off.max() < 0.05 and rigid.median() > 2
    other = torch.cat([epipolar_residual_px(clips["rigid"], *p)[0] for p in pairs])
    assert other.median() > 1


def test_an_epipolar_mover_looks_like_a_static_thing_at_another_depth(clips):
    c, i = clips["epipolar"], VIEWS // 2
    assert torch.equal(c.movers.T_wo[:, 0, :3, :3], torch.eye(3).double().expand(VIEWS, 3, 3))
    path, camera = (T[:, :3, 3] - T[i, :3, 3] for T in (c.movers.T_wo[:, 0], c.T_wc))
    factor = float((path * camera).sum() / camera.square().sum())
    assert 0.25 < abs(factor) < 0.85
    torch.testing.assert_close(path, factor * camera, rtol=0, atol=1e-9)
    p_w = points(c, i)
    elsewhere = c.T_wc[i, :3, 3] + (p_w - c.T_wc[i, :3, 3]) / (1 - factor)
    for j in range(VIEWS):
        torch.testing.assert_close(
            in_view(c, moved(c, p_w, i, j), j)[0], in_view(c, elsewhere, j)[0], rtol=0, atol=1e-6
        )


def test_a_camera_that_turns_round_meets_several_objects_each_of_its_own_material():
    static, T_wc = _room()
    angle_rad = torch.linspace(0, 1.6 * torch.pi, VIEWS, dtype=torch.float64)
    T_wc = T_wc[:1].repeat(VIEWS, 1, 1)
    T_wc[:, :3, :3] = se3.so3_exp(angle_rad[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    movers = make_movers("rigid", static, T_wc, FPS, CAMERA, torch.Generator().manual_seed(1))
    N, P = len(movers.owner), static.kind.shape[1]
    assert N > 1 and movers.owner.tolist() == list(range(N))
    torch.testing.assert_close(movers.primitives.centre.double(), movers.T_wo[..., :3, 3], rtol=0, atol=1e-6)
    alone, scenes = movers.primitives, movers.within(static, slice(0, VIEWS))
    own = alone.material[0, alone.face_material[0]]
    assert len(own[:, 0].unique(dim=0)) == N
    assert torch.equal(scenes.material[0, scenes.face_material[0, P:]], own)
    assert torch.equal(scenes.material[0, scenes.face_material[0, :P]], static.material[0, static.face_material[0]])


def test_an_object_inside_another_is_scored_below_none(clips):
    c = clips["rigid"]
    placement, none = Placement(c.static, c.T_wc, FPS, CAMERA), torch.zeros(VIEWS)
    assert placement.score(c.movers, none, []) > 0.2
    assert placement.score(c.movers, none, [c.movers]) < 0


@pytest.mark.parametrize("kind", MOVER_KINDS)
def test_movers_keep_off_the_camera(clips, kind):
    c = clips[kind]
    assert distance(c.movers.primitives, c.T_wc[:, None, :3, 3].float()).min() >= CAMERA_CLEARANCE


def test_a_person_faces_where_it_walks_and_swings_its_limbs(clips):
    c = clips["person"]
    T_wo, P = c.movers.T_wo[:, 0], c.movers.primitives
    step = (T_wo[2:, :3, 3] - T_wo[:-2, :3, 3]) * torch.tensor([1.0, 0.0, 1.0])
    assert 0.2 < (step.norm(dim=1) * FPS / 2).median() < 1.2  # metres a second
    ahead = (torch.nn.functional.normalize(step, dim=1) * -T_wo[1:-1, :3, 2]).sum(1)
    assert ahead.min() > 0.9  # the chord of two steps of an oval
    R_ol = T_wo[:, None, :3, :3].mT @ P.R.double()
    turn = se3.angle_rad(R_ol[:1].mT @ R_ol).amax(0)
    limbs = [row for limb in furniture.LIMBS for row in limb]
    body = [row for row in range(int((c.movers.owner == 0).sum())) if row not in limbs]
    assert len(body) == 3 and turn[body].max() < 1e-3 and turn[limbs].min() > 0.2

    def ends(row: int) -> tuple[Tensor, Tensor]:  # of a rod, in the frame of the person
        p_o = (T_wo[:, :3, :3].mT @ (P.centre[:, row].double() - T_wo[:, :3, 3])[..., None]).squeeze(-1)
        arm = P.half[:, row, 1:2].double() * R_ol[:, row, :, 1]
        return p_o - arm, p_o + arm

    legs, arms = furniture.LIMBS[::2], furniture.LIMBS[1::2]
    for upper, _ in map(ends, (legs[0][0], legs[1][0], arms[0][0], arms[1][0])):
        torch.testing.assert_close(upper, upper[:1].expand_as(upper), rtol=0, atol=1e-4)  # joints stay
    for arm in arms:
        torch.testing.assert_close(ends(arm[0])[1], ends(arm[1])[0], rtol=0, atol=1e-4)  # the elbow holds
    feet = [ends(leg[0])[1] for leg in legs]
    lower = torch.stack([foot[:, 1] + T_wo[:, 1, 3] for foot in feet]).amax(0)
    torch.testing.assert_close(lower, torch.zeros(VIEWS).double(), rtol=0, atol=1e-4)  # stands on the floor
    assert (feet[0][:, 2] - feet[1][:, 2]).abs().max() > 0.4
    assert (feet[0][:, 2] * feet[1][:, 2]).max() < 1e-6  # one before, one behind the hip
    hand = ends(arms[0][0])[1][:, 2]
    assert ((hand - hand.mean()) * (feet[0][:, 2] - feet[0][:, 2].mean())).sum() < 0  # against the leg of its side


def test_a_seed_gives_the_same_movers_and_another_does_not():
    one, again, other = clip("rigid", 5), clip("rigid", 5), clip("rigid", 6)
    assert torch.equal(one.seen.image, again.seen.image) and torch.equal(one.movers.T_wo, again.movers.T_wo)
    assert not torch.equal(one.movers.T_wo, other.movers.T_wo)


@pytest.mark.parametrize("readout_s", [0.0, 0.1])
def test_the_demo_masks_its_movers(readout_s):
    config = DemoConfig(kind="living", frames=6, width=96, height=72, fps=5.0, readout_s=readout_s)
    plain, source = DemoSource(config, True), DemoSource(replace(config, movers="rigid"), True)
    np.testing.assert_array_equal(plain.groundtruth().T_wc, source.groundtruth().T_wc)
    assert plain.movers is None and not plain.mover_masks(0, 6).any()
    masks = source.mover_masks(0, 6)
    assert masks.shape == (6, 72, 96) and masks.any((1, 2)).mean() > 0.5
    assert np.array_equal(source.mover_masks(2, 4), masks[2:4])
    for frame, still, mask in zip(source, plain, masks):
        assert np.array_equal(mask, frame.depth != still.depth)
    with pytest.raises(ConfigError, match="ghosts"):
        DemoConfig(movers="ghosts")
    with pytest.raises(ConfigError, match="ghosts"):
        make_movers("ghosts", *_room(), FPS, CAMERA, torch.Generator())


def test_a_camera_before_a_wall_has_no_room_for_movers():
    static, T_wc = _room()
    T_wc[:, 2, 3] = static.half[0, 0, 2] - 0.3  # looks along z
    with pytest.raises(ConfigError, match="too little room for movers 'person'"):
        make_movers("person", static, T_wc, FPS, CAMERA, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["rigid", "epipolar"])
def test_movers_cover_the_share_that_is_wanted(kind):
    config = DemoConfig(kind="living", frames=8, width=64, height=48, fps=5.0, movers=kind, mover_share=0.3)
    source = DemoSource(config)
    share = source.mover_masks(0, 8).mean((1, 2))
    assert 0.24 < share.mean() < 0.4 and share.max() < 0.9
    np.testing.assert_array_equal(
        source.groundtruth().T_wc, DemoSource(replace(config, movers="none", mover_share=0)).groundtruth().T_wc
    )


def test_a_share_that_there_is_no_room_for_is_refused():
    static, T_wc = _room()
    T_wc[:, 2, 3] = static.half[0, 0, 2] - 0.3
    with pytest.raises(ConfigError, match="cover 0% of the image instead of 30%"):
        make_movers("person", static, T_wc, FPS, CAMERA, torch.Generator().manual_seed(0), 0.3)
    with pytest.raises(ConfigError, match="mover_share"):
        DemoConfig(mover_share=0.3)


def _room() -> tuple[Scenes, Tensor]:
    """A room and four poses at eye height in its middle."""
    T_wc = se3.identity().repeat(4, 1, 1)
    T_wc[:, 1, 3] = -1.5
    return stack([make_scene("bare", torch.Generator().manual_seed(0))]), T_wc


def test_the_tool_writes_masks_beside_the_depth(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("render_sequence")
    arguments = ["living", "loop", str(tmp_path), "--frames", "3", "--depth", "--movers", "epipolar"]
    monkeypatch.setattr(sys, "argv", ["render_sequence.py", *arguments])
    tool.main()
    lines = [(tmp_path / f"{name}.txt").read_text().splitlines()[1:] for name in ("depth", "movers")]
    assert [line.replace("movers", "depth") for line in lines[1]] == lines[0] and len(lines[0]) == 3
    source = DemoSource(DemoConfig(frames=3, movers="epipolar"))
    for k, line in enumerate(lines[1]):
        mask = read_mask(tmp_path / line.split()[1])
        assert np.array_equal(mask, source.mover_masks(k, k + 1)[0]) and mask.any()
        assert read_depth(tmp_path / lines[0][k].split()[1])[mask].min() > 0.1

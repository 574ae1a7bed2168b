"""Kinds of scenes: what makes each of them what it is, seen in its depth."""

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.geometry.flow import rays
from slam.rendering import furniture
from slam.rendering.builder import SceneBuilder
from slam.rendering.clips import clip_poses
from slam.rendering.primitives import Scene, stack
from slam.rendering.renderer import render, render_depth
from slam.rendering.scenes import make_scene
from slam.rendering.textures import default_atlas
from slam.rendering.viewpoints import default_intrinsics

H, W = 72, 96
K = default_intrinsics(H, W)
LOOKING_UP = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)  # camera z is the world's -y


def seen_from(scene: Scene, y: float, R_wc: Tensor | None = None) -> Tensor:
    """(H, W) depth from a height over the middle of the floor."""
    T_wc = torch.eye(4, dtype=torch.float64)[None].clone()
    T_wc[0, 1, 3] = y
    if R_wc is not None:
        T_wc[0, :3, :3] = R_wc
    return render_depth(stack([scene]), T_wc, K, H, W)[0].double()


@pytest.mark.parametrize("kind", ["people", "attic", "yard"])
def test_scenes_of_a_kind_can_be_walked_in_and_seen(kind: str):
    generator = torch.Generator().manual_seed(5)
    scenes = stack([make_scene(kind, generator) for _ in range(4)])
    views = render(scenes, clip_poses(scenes, 1, generator)[:, 0], K, H, W)
    assert torch.isfinite(views.depth).all() and views.depth.min() > 0.1 and views.depth.max() < 40
    assert views.image.std((1, 2, 3)).min() > 0.03
    assert (views.depth.flatten(1).std(1) > 0.2).all()  # no wall before the nose


def test_the_roof_of_an_attic_comes_down_to_both_sides():
    """Straight up, the middle is higher than what lies to the left and to the right, by the slope of the roof."""
    for seed in range(4):
        scene = make_scene("attic", torch.Generator().manual_seed(seed))
        columns = seen_from(scene, -1.0, LOOKING_UP).amax(0)  # in some row neither beam nor furniture is before it
        left, middle, right = columns[:6].mean(), columns[W // 2 - 3 : W // 2 + 3].mean(), columns[-6:].mean()
        assert middle > left + 0.1 and middle > right + 0.1
        assert abs(float(left - right)) < 0.05
    room = seen_from(make_scene("bare", torch.Generator().manual_seed(1)), -1.0, LOOKING_UP).amax(0)
    assert float(room.max() - room.min()) < 0.1


@pytest.mark.parametrize(("is_sitting", "low", "high"), [(False, 1.45, 2.05), (True, 1.0, 1.5)])
def test_people_stand_on_the_floor_as_tall_as_people_are(is_sitting: bool, low: float, high: float):
    for seed in range(6):
        b = SceneBuilder(np.random.default_rng(seed), default_atlas())
        b.room(8, 4, 10, [b.material("plain", 1.0)] * 6)
        b.light((0, -3.5, 0), (1, 1, 1))
        furniture.person(b, 0, 0.0, 3.0, 0.4 * seed, is_sitting)
        depth = seen_from(b.finish("test", "cpu"), -1.0)
        points = rays(K[None], H, W)[0] * depth[..., None]
        near = (depth < 3.8) & (points[..., 1] < 0.97)  # not the floor, which is 1 m below
        height = 1.0 - points[..., 1][near]
        assert near.sum() > 80 and points[..., 0][near].abs().max() < 0.9
        assert low < float(height.max()) < high and float(height.min()) < 0.15


def test_a_yard_is_open_to_the_sky():
    """What looks up from its middle sees no ceiling of a room."""
    for seed in range(3):
        yard = seen_from(make_scene("yard", torch.Generator().manual_seed(seed)), -1.5, LOOKING_UP)
        assert float(yard.median()) > 4.0

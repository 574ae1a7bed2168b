"""Clips of a slanted, textured plane and videos of a wall and a box, by formula: exact truth without a renderer."""

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import rays
from slam.training.clips import Clip
from slam.training.video import Video


@pytest.fixture
def plane_clip() -> Callable[..., Clip]:
    """Makes a clip from a generator."""
    return make_plane_clip


def make_plane_clip(
    generator: torch.Generator, views: int = 3, height: int = 48, width: int = 64, step: float = 0.08
) -> Clip:
    """A plane about 1 unit away, seen from `views` poses a few centimetres and degrees apart."""
    focal = 0.9 * width
    K = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    normal = torch.tensor([0.0, 0, 1], dtype=torch.float64) + 0.3 * _randn(generator, 3)
    normal = normal / normal[2]  # n . p = 1: the plane meets the axis at depth 1
    waves = _randn(generator, 24, 2) * 0.2 * width
    phase, tint = 6.28 * torch.rand(24, generator=generator).double(), _randn(generator, 24, 3)
    images, depths, poses = [], [], []
    for v in range(views):
        T_wc = se3.exp(step * torch.cat([_randn(generator, 3), 0.5 * _randn(generator, 3)]) * (v > 0))
        ray = rays(K[None], height, width)[0] @ T_wc[:3, :3].mT
        depth = (1 - normal @ T_wc[:3, 3]) / (ray @ normal)
        point = T_wc[:3, 3] + depth[..., None] * ray
        shade = torch.sin(point[..., :2] @ waves.mT + phase) @ tint / 24**0.5
        images.append((0.5 + 0.2 * shade).permute(2, 0, 1))
        depths.append(depth)
        poses.append(T_wc)
    return Clip.pack(torch.stack(images), torch.stack(depths), torch.stack(poses), K)


def _randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator).double()


@pytest.fixture(scope="session")
def slide(wall_and_box: ModuleType) -> Video:
    """A video of the wall and the box: the camera slides to and fro and turns a little; exact poses and depths."""
    return video_of(wall_and_box, slide_poses(wall_and_box))


@pytest.fixture(scope="session")
def filmed(wall_and_box: ModuleType) -> Callable[..., Video]:
    """Makes a video of the wall and the box from poses T_cw."""
    return lambda poses, name="slide": video_of(wall_and_box, poses, name)


def slide_poses(wall_and_box: ModuleType) -> list[Tensor]:
    """T_cw of 30 frames, about 3 pixels of flow apart."""
    turns = [2 * math.pi * n / 30 for n in range(30)]
    return [wall_and_box.moved(0.2 * math.sin(a), 0.06 * math.sin(2 * a), 0, 0, 0.03 * math.cos(3 * a)) for a in turns]


def video_of(wall_and_box: ModuleType, poses: list[Tensor], name: str = "slide") -> Video:
    """What the cameras T_cw see, ten frames a second."""
    world = wall_and_box.World()
    inv_depth = torch.stack([world.cell_inv_depth(T_cw) for T_cw in poses])
    return Video(
        name=name,
        images=torch.stack([torch.from_numpy(world.image(T_cw)).permute(2, 0, 1) for T_cw in poses]),
        time_ns=10**8 * torch.arange(len(poses)),
        K=wall_and_box.K,
        T_wc=torch.stack([se3.inverse(T_cw) for T_cw in poses]),
        inv_depth=inv_depth,
        relative_sigma=torch.full_like(inv_depth, 0.01),
    )

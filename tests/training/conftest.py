"""Clips of a slanted, textured plane, by formula: exact truth without a renderer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import rays
from slam.training.clips import Clip


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

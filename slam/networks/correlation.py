"""All-pairs correlation of two feature maps and its lookup around given pixels.

Reference: Teed & Deng, RAFT: recurrent all-pairs field transforms for optical flow, ECCV 2020, sec. 3.2.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.networks.lookup_cpu import Volumes


def correlation(features_i: Tensor, features_j: Tensor) -> Tensor:
    """Scalar products of every pixel of i (E, C, h, w) with every pixel of j (E, C, h', w'), divided by sqrt(C).

    Returns:
        (E, h * w, h', w') float32.
    """
    rows = features_i.flatten(2).mT * features_i.shape[1] ** -0.5  # (E, h w, C)
    return torch.bmm(rows, features_j.flatten(2)).float().unflatten(2, features_j.shape[-2:])


def correlation_pyramid(features_i: Tensor, features_j: Tensor, levels: int) -> list[Tensor]:
    """Correlation with j pooled by 1, 2, 4 ...

    Args:
        features_i, features_j: (E, C, h, w).
        levels: number of pyramid levels; those that would be empty are left out.

    Returns:
        A list of (E, h * w, h_l, w_l) float32.
    """
    pyramid = [correlation(features_i, features_j)]
    while len(pyramid) < levels and min(features_j.shape[-2:]) >= 2:
        features_j = F.avg_pool2d(features_j, 2)
        pyramid.append(correlation(features_i, features_j))
    return pyramid


@dataclass(frozen=True)
class Pyramid:
    """Correlation volumes, with the loops that read them fast where they live on the CPU."""

    volumes: list[Tensor]  # (E, h * w, h_l, w_l) float32, finest first
    first: int  # level of the finest: its pixels are 2^first cells wide
    on_cpu: Volumes | None

    @staticmethod
    def build(volumes: list[Tensor], first: int = 0) -> "Pyramid":
        """Make the volumes ready for lookups."""
        return Pyramid(volumes, first, Volumes(volumes, first) if volumes[0].device.type == "cpu" else None)

    def lookup(self, uv: Tensor, radius: int) -> Tensor:
        """As the function `lookup`."""
        return lookup(self.volumes, uv, radius, self.first) if self.on_cpu is None else self.on_cpu.lookup(uv, radius)


def lookup(pyramid: list[Tensor], uv: Tensor, radius: int, first: int = 0) -> Tensor:
    """Correlation on a square of (2 radius + 1)^2 offsets around uv at every level, bilinear, zero outside.

    A pixel u of level 0 is (u + 0.5) / 2^l - 0.5 of level l. All offsets share the fraction of their
    centre, so an integer patch is gathered once and blended twice, rows and columns.

    Args:
        pyramid: as made by `correlation_pyramid`.
        uv: (E, h, w, 2) pixels of view j at level 0; no gradient flows to it.
        radius: offsets go from -radius to radius, in pixels of the level.
        first: level of the first volume; -1 is twice as fine as uv.

    Returns:
        (E, levels * (2 radius + 1)^2, h, w), channel order: level, row offset, column offset.
    """
    E, h, w, _ = uv.shape
    uv = uv.detach()
    n = 2 * radius + 1
    outputs = []
    for level, volume in enumerate(pyramid, first):
        height, width = volume.shape[-2:]
        centre = (uv.reshape(E, h * w, 2) + 0.5) / 2**level - 0.5
        u, du, inside_u = _window(centre[..., 0], width, radius)
        v, dv, inside_v = _window(centre[..., 1], height, radius)
        index = v[..., :, None] * width + u[..., None, :]  # (E, h w, n + 1, n + 1)
        patch = volume.flatten(2).gather(2, index.flatten(2)).view_as(index)
        row_weight, column_weight = inside_v[..., None], inside_u[..., None, :]
        patch = patch * (row_weight * column_weight)
        patch = torch.lerp(patch[..., :-1], patch[..., 1:], du[..., None, None])
        patch = torch.lerp(patch[..., :-1, :], patch[..., 1:, :], dv[..., None, None])
        outputs.append(patch.reshape(E, h, w, n * n))
    return torch.cat(outputs, -1).permute(0, 3, 1, 2)


def _window(centre: Tensor, size: int, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Integer positions (..., 2 radius + 2) around centre (...), clamped; its fraction; 1.0 where they are inside."""
    far = radius + 2.0
    centre = torch.nan_to_num(centre, nan=-far).clamp(-far, size - 1 + far)
    floor = centre.floor()
    offsets = torch.arange(-radius, radius + 2, device=centre.device)
    position = floor.long()[..., None] + offsets
    inside = ((position >= 0) & (position < size)).to(centre.dtype)
    return position.clamp(0, size - 1), centre - floor, inside

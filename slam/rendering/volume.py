"""Soft light of a scene on a coarse grid: how open a place is, and how much of the main light reaches it."""

import torch
from torch import Tensor

GRID = (20, 10, 20)  # points along x, y, z of the room
REACH = 0.25  # metres from a surface at which its surroundings are judged


def grid_points(centre: Tensor, half: Tensor) -> Tensor:
    """(S, N, 3) the points of rooms given by centre and half size (S, 3), x slowest."""
    axes = [torch.linspace(-1, 1, n, device=centre.device) for n in GRID]
    unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, -1, 3)
    return centre[:, None] + half[:, None] * unit


def pack_volume(distance: Tensor, visible: Tensor) -> Tensor:
    """Numbers (S, N) of the grid points -> (S, N, 16) float32: each row both numbers at the eight corners of a cell."""
    both = torch.stack([distance.clamp_min(0), visible.to(distance)], -1).view(-1, *GRID, 2)
    corners = [torch.roll(both, (-i, -j, -k), (1, 2, 3)) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    return torch.cat(corners, -1).view(*distance.shape, 16)


def sample_volume(volume: Tensor, cell_from_world: tuple[Tensor, ...], first_row: Tensor) -> tuple[Tensor, Tensor]:
    """Openness in [0, 1] and visibility of light 0, trilinear.

    Args:
        volume: (S * N, 16) rows as of `pack_volume`.
        cell_from_world: x, y, z (...) of the points in grid units, 0 .. n - 1.
        first_row: (...) int64 first row of the point's scene.
    """
    low, weight = [], []
    for value, n in zip(cell_from_world, GRID):
        value = value.clamp(0, n - 1.001)
        low.append(value.long())
        weight.append((value - low[-1]).unsqueeze(-1))
    row = first_row + (low[0] * GRID[1] + low[1]) * GRID[2] + low[2]
    corners = volume.index_select(0, row.flatten()).view(*row.shape, 16)
    half = torch.lerp(corners[..., :8], corners[..., 8:], weight[0])
    quarter = torch.lerp(half[..., :4], half[..., 4:], weight[1])
    both = torch.lerp(quarter[..., :2], quarter[..., 2:], weight[2])
    return (both[..., 0] / REACH).clamp(0, 1), both[..., 1].contiguous()

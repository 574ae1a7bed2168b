"""All-pairs correlation of two feature maps and its lookup around given pixels.

Reference: Teed & Deng, RAFT: recurrent all-pairs field transforms for optical flow, ECCV 2020, sec. 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from slam.kernels.compile import REASSOCIATED, compiled, has_loops, runs_as_loop

AT_ONCE = 4  # scalar products


def correlation(features_i: Tensor, features_j: Tensor) -> Tensor:
    """Scalar products of every pixel of i (E, C, h, w) with every pixel of j (E, C, h', w'), divided by sqrt(C).

    Returns:
        (E, h * w, h', w') float32.
    """
    rows = features_i.flatten(2).mT * features_i.shape[1] ** -0.5  # (E, h w, C)
    return torch.bmm(rows, features_j.flatten(2)).float().unflatten(2, features_j.shape[-2:])


def pooled_levels(features: Tensor, levels: int) -> list[Tensor]:
    """Features (E, C, h, w) pooled by 1, 2, 4 ...; levels that would be empty are left out."""
    pyramid = [features]
    while len(pyramid) < levels and min(features.shape[-2:]) >= 2:
        features = F.avg_pool2d(features, 2)
        pyramid.append(features)
    return pyramid


def pyramid_of(pairs: Sequence[tuple[Tensor, Tensor]], radius: int, first: int = 0) -> "Pyramid | FeaturePyramid":
    """What answers lookups best: products on demand on the CPU without gradients, else volumes.

    Args:
        pairs: features of i (E, C, h, w) and j (E, C, h_l, w_l) of each level, finest first.
        radius: of the lookups.
        first: level of the finest.
    """
    if runs_as_loop(pairs[0][0].float(), *(x for pair in pairs for x in pair)):
        return FeaturePyramid(pairs, radius, first)
    return Pyramid.build([correlation(i, j) for i, j in pairs], first)


@dataclass(frozen=True, eq=False)
class Pyramid:
    """Correlation volumes, with the loops that read them fast where they live on the CPU."""

    volumes: list[Tensor]  # (E, h * w, h_l, w_l) float32, finest first
    first: int  # level of the finest: its pixels are 2^first cells wide
    on_cpu: "Volumes | None"

    @staticmethod
    def build(volumes: list[Tensor], first: int = 0) -> "Pyramid":
        """Make the volumes ready for lookups."""
        return Pyramid(volumes, first, Volumes(volumes, first) if has_loops(volumes[0]) else None)

    def lookup(self, uv: Tensor, radius: int) -> Tensor:
        """As the function `lookup`."""
        return lookup(self.volumes, uv, radius, self.first) if self.on_cpu is None else self.on_cpu.lookup(uv, radius)


class FeaturePyramid:
    """Correlation without volumes: scalar products are computed where they are looked up.

    Of float32 features on the CPU, without gradients. A volume holds a hundred times as many as a lookup reads.
    """

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]], radius: int, first: int = 0) -> None:
        """Features of i (E, C, h, w) and j (E, C, h_l, w_l) of each level, finest first."""
        self.radius, self.first = radius, first
        pad = 2 * radius + 3  # whatever a lookup reads outside of a map is zero
        self._levels = [
            (
                (i.float() * i.shape[1] ** -0.5).permute(0, 2, 3, 1).contiguous().flatten(1, 2).numpy(),
                F.pad(j.float().permute(0, 2, 3, 1), (0, 0, pad, pad + AT_ONCE, pad, pad)).numpy(),
                j.shape[-2:],
            )
            for i, j in pairs
        ]

    def lookup(self, uv: Tensor, radius: int) -> Tensor:
        """As the function `lookup`, with the radius given before."""
        assert radius == self.radius
        E, h, w, _ = uv.shape
        n = (2 * radius + 1) ** 2
        out = torch.empty(E, h, w, n * len(self._levels))
        rows, places = out.view(E, h * w, -1).numpy(), uv.float().contiguous().view(E, h * w, 2).numpy()
        for k, (cells, features, size) in enumerate(self._levels):
            _look_at_features(cells, features, *size, places, self.first + k, radius, rows, k * n)
        return out.permute(0, 3, 1, 2)


def lookup(pyramid: list[Tensor], uv: Tensor, radius: int, first: int = 0) -> Tensor:
    """Correlation on a square of (2 radius + 1)^2 offsets around uv at every level, bilinear, zero outside.

    A pixel u of level 0 is (u + 0.5) / 2^l - 0.5 of level l. All offsets share the fraction of their
    centre, so an integer patch is gathered once and blended twice, rows and columns.

    Args:
        pyramid: (E, h * w, h_l, w_l) of each level, by `correlation` with `pooled_levels`.
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


# The lookup as loops, for float32 on the CPU: about ten times faster than the tensor expression there. All lookups of
# one pyramid write their gradients into one buffer; autograd would make and add a volume for each.


@compiled(part=True)
def _corner(centre: float, size: int, radius: int) -> tuple[int, float]:
    """First row or column of the patch and the fraction; far or undefined centres land outside the map."""
    far = radius + 2.0
    if not centre > -far:  # also NaN
        centre = -far
    centre = min(centre, size - 1 + far)
    floor = np.floor(centre)
    return int(floor) - radius, centre - floor


@compiled(REASSOCIATED, part=True)
def _blend(patch: np.ndarray, n: int, du: float, dv: float, out: np.ndarray) -> None:
    """The n x n squares of a patch (n + 1, >= n + 1), each blended to one number (n * n,) at the same fraction."""
    w11 = np.float32(du * dv)
    w10 = np.float32(dv - du * dv)
    w01 = np.float32(du - du * dv)
    w00 = np.float32(1 - du - dv + du * dv)
    for a in range(n):
        for b in range(n):
            out[a * n + b] = (
                w00 * patch[a, b] + w01 * patch[a, b + 1] + w10 * patch[a + 1, b] + w11 * patch[a + 1, b + 1]
            )


@compiled()
def _look(volume: np.ndarray, uv: np.ndarray, level: int, radius: int, out: np.ndarray, first: int) -> None:
    """volume (P, h, w), uv (P, 2) -> out[:, first : first + n * n] of (P, C)."""
    pixels, height, width = volume.shape
    n = 2 * radius + 1
    scale = np.float32(2.0**-level)
    patch = np.zeros((n + 1, n + 1), np.float32)
    for p in range(pixels):
        left, du = _corner((uv[p, 0] + 0.5) * scale - 0.5, width, radius)
        top, dv = _corner((uv[p, 1] + 0.5) * scale - 0.5, height, radius)
        for a in range(n + 1):
            y = top + a
            for b in range(n + 1):
                x = left + b
                inside = 0 <= y < height and 0 <= x < width
                patch[a, b] = volume[p, y, x] if inside else np.float32(0)
        _blend(patch, n, du, dv, out[p, first : first + n * n])


@compiled()
def _spread(
    gradient: np.ndarray, uv: np.ndarray, level: int, radius: int, out_gradient: np.ndarray, first: int
) -> None:
    """The transpose of `_look`: adds to gradient (P, h, w)."""
    pixels, height, width = gradient.shape
    n = 2 * radius + 1
    scale = np.float32(2.0**-level)
    patch = np.zeros((n + 1, n + 1), np.float32)
    for p in range(pixels):
        left, du = _corner((uv[p, 0] + 0.5) * scale - 0.5, width, radius)
        top, dv = _corner((uv[p, 1] + 0.5) * scale - 0.5, height, radius)
        w11 = np.float32(du * dv)
        w10 = np.float32(dv - du * dv)
        w01 = np.float32(du - du * dv)
        w00 = np.float32(1 - du - dv + du * dv)
        patch[:] = 0
        for a in range(n):
            for b in range(n):
                g = out_gradient[p, first + a * n + b]
                patch[a, b] += w00 * g
                patch[a, b + 1] += w01 * g
                patch[a + 1, b] += w10 * g
                patch[a + 1, b + 1] += w11 * g
        for a in range(max(0, -top), min(n + 1, height - top)):
            for b in range(max(0, -left), min(n + 1, width - left)):
                gradient[p, top + a, left + b] += patch[a, b]


@compiled(REASSOCIATED)
def _look_at_features(
    cells: np.ndarray,
    features: np.ndarray,
    height: int,
    width: int,
    uv: np.ndarray,
    level: int,
    radius: int,
    out: np.ndarray,
    first: int,
) -> None:
    """Products of cells (E, P, C) around uv (E, P, 2) -> out[..., first : first + n * n].

    Args:
        features: (E, height + 2 pad, width + 2 pad + AT_ONCE, C), zero beyond the map.
    """
    E, _, _, C = features.shape
    n, pad, zero = 2 * radius + 1, 2 * radius + 3, np.float32(0)
    shrink = np.float32(2.0**-level)
    patch = np.zeros((n + 1, n + 1 + AT_ONCE), np.float32)
    for e in range(E):
        for p in range(cells.shape[1]):
            left, du = _corner((uv[e, p, 0] + 0.5) * shrink - 0.5, width, radius)
            top, dv = _corner((uv[e, p, 1] + 0.5) * shrink - 0.5, height, radius)
            cell = cells[e, p]
            for a in range(n + 1):
                row = features[e, top + pad + a]
                for b in range(0, n + 1, AT_ONCE):  # several sums at once: one alone waits for each of its additions
                    x = left + pad + b
                    f0, f1, f2, f3 = row[x], row[x + 1], row[x + 2], row[x + 3]
                    s0, s1, s2, s3 = zero, zero, zero, zero
                    for c in range(C):
                        value = cell[c]
                        s0 += value * f0[c]
                        s1 += value * f1[c]
                        s2 += value * f2[c]
                        s3 += value * f3[c]
                    patch[a, b], patch[a, b + 1], patch[a, b + 2], patch[a, b + 3] = s0, s1, s2, s3
            _blend(patch, n, du, dv, out[e, p, first : first + n * n])


class Volumes:
    """Correlation volumes outside the graph, with one buffer for the gradient of all lookups."""

    def __init__(self, pyramid: list[Tensor], first: int) -> None:
        self.first = first
        self.levels = [volume.detach().contiguous() for volume in pyramid]
        self.gradients: list[Tensor] | None = None
        self.token = _Enter.apply(self, *pyramid)  # ties the lookups to the volumes in the graph

    def lookup(self, uv: Tensor, radius: int) -> Tensor:
        """As the function `lookup`."""
        return _Lookup.apply(self, self.token, uv, radius)


class _Enter(torch.autograd.Function):
    """Volumes -> token. Its backward runs after that of every lookup, when the buffer is complete."""

    @staticmethod
    def forward(ctx: Any, volumes: Volumes, *pyramid: Tensor) -> Tensor:
        ctx.volumes = volumes
        return pyramid[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.volumes.gradients = ctx.volumes.gradients, None
        return (None, *(gradients or [None] * len(ctx.volumes.levels)))


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volumes: Volumes, token: Tensor, uv: Tensor, radius: int) -> Tensor:
        E, h, w, _ = uv.shape
        n = (2 * radius + 1) ** 2
        pixels = uv.detach().float().contiguous().view(-1, 2)
        out = torch.empty(E, h, w, n * len(volumes.levels))
        rows = out.view(E * h * w, -1).numpy()
        for k, volume in enumerate(volumes.levels):
            _look(volume.flatten(0, 1).numpy(), pixels.numpy(), volumes.first + k, radius, rows, k * n)
        ctx.volumes, ctx.pixels, ctx.radius = volumes, pixels, radius
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        volumes: Volumes = ctx.volumes
        if volumes.gradients is None:
            volumes.gradients = [torch.zeros_like(volume) for volume in volumes.levels]
        rows = gradient.permute(0, 2, 3, 1).float().contiguous().flatten(0, 2).numpy()
        n = (2 * ctx.radius + 1) ** 2
        for k, total in enumerate(volumes.gradients):
            _spread(total.flatten(0, 1).numpy(), ctx.pixels.numpy(), volumes.first + k, ctx.radius, rows, k * n)
        return None, gradient.new_zeros(()), None, None

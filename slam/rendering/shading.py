"""Colour of the points that rays hit: texture, ambient and point lights, gloss.

Everything is elementwise over (tiles, pixels), one tensor a coordinate; on a CPU a few tiles at a time, in its cache.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.rendering import textures
from slam.rendering.casting import Hits, Rays
from slam.rendering.primitives import BOX, CYLINDER, EMISSION, GAIN, GLOSS, OFFSET, PERIOD, ROOM, TEXTURE, Scenes
from slam.rendering.volume import GRID, REACH, sample_volume

CHUNK_TILES = 48  # on a CPU

Vector = tuple[Tensor, Tensor, Tensor]
Tables = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Surface:
    """The hit points of some tiles, all (tiles, pixels)."""

    p_w: Vector
    normal: Vector  # world, unit, towards the camera
    view: Vector  # unit, from the camera
    cosine: Tensor  # between them
    u: Tensor  # texture coordinates, repeats
    v: Tensor
    period: Tensor  # metres of one repeat, the shorter side
    material: Tensor  # (MATERIAL_WIDTH, tiles, pixels)


def dot(a: Vector, b: Vector) -> Tensor:
    """Elementwise scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def shade(scenes: Scenes, rays: Rays, hits: Hits, pixel_angle: Tensor) -> Tensor:
    """Colours (n, 3, pixels) of the hits in [0, 1], display-referred.

    Args:
        pixel_angle: (n,) size of a pixel at depth 1, for the choice of the mip level.
    """
    tables = _tables(scenes)
    n = len(rays.scene)
    step = CHUNK_TILES if rays.direction.device.type == "cpu" else n
    parts = [_shade_tiles(scenes, tables, rays, hits, pixel_angle, slice(i, i + step)) for i in range(0, n, step)]
    return torch.cat(parts)


def _tables(scenes: Scenes) -> Tables:
    """(17, S P) numbers of the primitives, (10, S M) of the materials, a column each; the light volume (S N, 16)."""
    shapes = torch.cat([scenes.R.flatten(2), scenes.centre, scenes.half, scenes.uv_offset], -1)
    return (
        shapes.flatten(0, 1).T.contiguous(),
        scenes.material.flatten(0, 1).T.contiguous(),
        scenes.light_volume.flatten(0, 1),
    )


def _shade_tiles(scenes: Scenes, tables: Tables, rays: Rays, hits: Hits, pixel_angle: Tensor, part: slice) -> Tensor:
    scene, depth = rays.scene[part], hits.depth[part]
    s = _surface(scenes, tables, rays, hits, part)
    m = s.material
    texels = pixel_angle[part, None] * scenes.atlas.size * depth / (s.period * s.cosine.sqrt())
    sampled = textures.sample(scenes.atlas, m[TEXTURE].long(), s.u, s.v, texels.log2())
    light, shine = _lighting(scenes, tables[2], scene, s)
    glow = m[EMISSION]
    colour = []
    for k in range(3):
        albedo = (m[OFFSET + k] + m[GAIN + k] * sampled[k]).clamp_(0, 1)
        # the albedo is display-referred: light acts on its square, the square root brings it back
        value = albedo * (light[k] + glow).sqrt_() + shine[k]
        colour.append(value * (1 + value.square().square_()).rsqrt_().sqrt_())  # soft shoulder
    return torch.stack(colour, 1)


def _surface(scenes: Scenes, tables: Tables, rays: Rays, hits: Hits, part: slice) -> Surface:
    prim, depth = hits.primitive[part], hits.depth[part]
    shape = prim.shape
    d: Vector = rays.direction[part].unbind(1)  # type: ignore[assignment]
    o = rays.origin[part].unbind(1)
    p_w: Vector = tuple(o[k] + depth * d[k] for k in range(3))  # type: ignore[assignment]
    row = tables[0].index_select(1, prim.flatten()).view(-1, *shape)
    R, centre, half = row[:9], row[9:12], row[12:15]
    rel = [p_w[k] - centre[k] for k in range(3)]
    unit = [(R[k] * rel[0] + R[3 + k] * rel[1] + R[6 + k] * rel[2]) / half[k] for k in range(3)]
    kind = scenes.kind.flatten()[prim]
    is_cylinder = kind == CYLINDER
    curved = is_cylinder | ((kind != BOX) & (kind != ROOM))

    ax, ay, az = (c.abs() for c in unit)
    is_y = torch.where(is_cylinder, ay >= (unit[0] * unit[0] + unit[2] * unit[2]).sqrt(), (ay >= ax) & (ay >= az))
    is_x = (ax >= az) & ~is_y
    side = curved & ~(is_y & is_cylinder)
    flat = [is_x, is_y, ~(is_x | is_y)]
    bent = [unit[0], torch.where(is_cylinder, 0.0, unit[1]), unit[2]]
    g = [torch.where(side, bent[k], flat[k] * unit[k]) / half[k] for k in range(3)]
    n = [R[3 * k] * g[0] + R[3 * k + 1] * g[1] + R[3 * k + 2] * g[2] for k in range(3)]
    ray = (d[0] * d[0] + d[1] * d[1] + d[2] * d[2]).rsqrt_()
    facing = n[0] * d[0] + n[1] * d[1] + n[2] * d[2]
    inv = (n[0] * n[0] + n[1] * n[1] + n[2] * n[2]).rsqrt_().copysign_(-facing)
    normal: Vector = tuple(c * inv for c in n)  # type: ignore[assignment]

    # texture coordinates: unit ones across a face, and the metres they span
    around = torch.atan2(unit[0], unit[2]) / torch.pi
    latitude = torch.where(is_cylinder, unit[1], unit[1].clamp(-1, 1).asin() * (2 / torch.pi))
    across = torch.where(side, around, torch.where(is_x, unit[2], unit[0]))
    down = torch.where(side, latitude, torch.where(is_y, unit[2], unit[1]))
    half_u = torch.where(side, half[0] * torch.pi, torch.where(is_x, half[2], half[0]))
    half_v = torch.where(is_y & ~side, half[2], half[1])
    axis_value = torch.where(is_x, unit[0], torch.where(is_y, unit[1], unit[2]))
    face = torch.where(curved, 0, 2 * (2 - 2 * is_x.long() - is_y.long()) + (axis_value > 0))
    materials = scenes.material.shape[1]
    index = scenes.face_material.flatten()[prim * 6 + face] + rays.scene[part, None] * materials
    m = tables[1].index_select(1, index.flatten()).view(-1, *shape)
    fits = m[PERIOD] <= 0
    u = torch.where(fits, 0.5 * across + 0.5, across * half_u / m[PERIOD] + row[15])
    v = torch.where(fits, 0.5 * down + 0.5, down * half_v / m[PERIOD] + row[16])
    period = torch.where(fits, 2 * torch.minimum(half_u, half_v), m[PERIOD])
    cosine = (facing * inv * ray).abs_().clamp_(0.02)
    view: Vector = (d[0] * ray, d[1] * ray, d[2] * ray)
    return Surface(p_w, normal, view, cosine, u, v, period, m)


def _grid_units(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Lower corner (S, 3) of the light grid and its points a metre (S, 3)."""
    centre, half = scenes.centre[:, 0], scenes.half[:, 0]
    return centre - half, (torch.tensor(GRID, device=half.device) - 1) / (2 * half)


def _lighting(scenes: Scenes, volume: Tensor, scene: Tensor, s: Surface) -> tuple[list[Tensor], list[Tensor]]:
    """Irradiance and highlights, each a tensor a colour."""
    low, per_metre = _grid_units(scenes)
    where = tuple((s.p_w[k] + REACH * s.normal[k] - low[scene, k, None]) * per_metre[scene, k, None] for k in range(3))
    cells = len(volume) // len(scenes)
    openness, visible = sample_volume(volume, where, (scene * cells)[:, None])
    open_sky = (0.8 - 0.2 * s.normal[1]) * (0.3 + 0.7 * openness)
    light = [scenes.ambient[scene, k, None] * open_sky for k in range(3)]
    shine = [torch.zeros_like(open_sky) for _ in range(3)]
    gloss = s.material[GLOSS]
    power = 8 + 120 * gloss
    reflected = 2 * dot(s.view, s.normal)
    mirror: Vector = tuple(s.view[k] - reflected * s.normal[k] for k in range(3))  # type: ignore[assignment]
    for index, lamp in enumerate(scenes.light[scene].unbind(1)):
        to: Vector = tuple(lamp[:, k, None] - s.p_w[k] for k in range(3))  # type: ignore[assignment]
        distance_sq = dot(to, to) + 0.3
        inv = distance_sq.rsqrt()
        weight = (dot(s.normal, to) * inv).clamp_(0) / (0.25 + distance_sq / 6)
        if index == 0:
            weight = weight * visible
        highlight = (power * (dot(mirror, to) * inv - 1)).exp_() * gloss  # close to Phong's power of the cosine
        for k in range(3):
            light[k] = light[k].addcmul_(lamp[:, 3 + k, None], weight)
            shine[k] = shine[k].addcmul_(0.6 * lamp[:, 3 + k, None].clamp_max(1), highlight)
    return light, shine

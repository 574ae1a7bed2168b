"""Colour of the points that rays hit: texture, ambient and point lights, gloss."""

import torch
from torch import Tensor

from slam.rendering import textures
from slam.rendering.casting import Hits, Rays
from slam.rendering.primitives import (
    BOX,
    CYLINDER,
    EMISSION,
    GAIN,
    GLOSS,
    MATERIAL_WIDTH,
    OFFSET,
    PERIOD,
    ROOM,
    TEXTURE,
    Scenes,
)

CORNER_REACH = 0.5  # metres from a corner of the room within which the ambient light fades


def shade(scenes: Scenes, rays: Rays, hits: Hits, pixel_angle: Tensor) -> Tensor:
    """Colours (n, 3, pixels) of the hits in [0, 1], display-referred.

    Args:
        pixel_angle: (n,) size of a pixel at depth 1, for the choice of the mip level.
    """
    n, pixels = hits.depth.shape
    N = n * pixels
    S, P = scenes.kind.shape
    prim, depth = hits.primitive.flatten(), hits.depth.flatten()
    scene = rays.scene[:, None].expand(-1, pixels).flatten()
    d = rays.direction.transpose(0, 1).reshape(3, N)
    p_w = rays.origin.expand(-1, -1, pixels).transpose(0, 1).reshape(3, N) + depth * d

    table = torch.cat([scenes.R.flatten(2), scenes.centre, scenes.half, scenes.uv_offset], -1)  # (S, P, 17)
    row = table.flatten(0, 1).T.contiguous()[:, prim]
    R, centre, half, offset = row[:9].view(3, 3, N), row[9:12], row[12:15], row[15:17]
    kind = scenes.kind.flatten()[prim]
    unit = (R * (p_w - centre)[:, None]).sum(0) / half
    size = unit.abs()
    curved = (kind != BOX) & (kind != ROOM)
    cap = (kind == CYLINDER) & (size[1] >= unit[0].hypot(unit[2]))
    axis = torch.where(cap, 1, size.argmax(0))
    flat_normal = torch.nn.functional.one_hot(axis, 3).T * unit.sign()
    radial = unit.clone()
    radial[1].masked_fill_(kind == CYLINDER, 0)
    normal_l = torch.where(curved & ~cap, radial, flat_normal) / half
    normal = torch.nn.functional.normalize((R * normal_l).sum(1), dim=0)
    facing = (normal * d).sum(0)
    normal = torch.where(facing > 0, -normal, normal)
    ray_length = d.norm(dim=0)
    cosine = (facing.abs() / ray_length).clamp_min(0.02)

    around = torch.atan2(unit[0], unit[2])
    face_u = torch.where(axis == 0, unit[2], unit[0])
    face_v = torch.where(axis == 1, unit[2], unit[1])
    half_u = torch.where(axis == 0, half[2], half[0])
    half_v = torch.where(axis == 1, half[2], half[1])
    side = curved & ~cap
    face_u = torch.where(side, around / torch.pi, face_u)
    half_u = torch.where(side, half_u * torch.pi, half_u)
    face_v = torch.where(side & (kind != CYLINDER), unit[1].clamp(-1, 1).asin() * (2 / torch.pi), face_v)
    face_v = torch.where(side & (kind == CYLINDER), unit[1], face_v)
    half_v = torch.where(side, half[1], half_v)

    face = torch.where(curved, 0, 2 * axis + (unit.gather(0, axis[None])[0] > 0))
    materials = scenes.material.shape[1]
    index = scene * materials + scenes.face_material.flatten()[prim * 6 + face]
    m = scenes.material.flatten(0, 1).T.contiguous()[:, index]
    assert len(m) == MATERIAL_WIDTH
    period = m[PERIOD]
    fits = period <= 0
    period_u, period_v = torch.where(fits, 2 * half_u, period), torch.where(fits, 2 * half_v, period)
    u = torch.where(fits, 0.5 * face_u + 0.5, face_u * half_u / period_u + offset[0])
    v = torch.where(fits, 0.5 * face_v + 0.5, face_v * half_v / period_v + offset[1])
    angle = pixel_angle[:, None].expand(-1, pixels).flatten()
    texels = angle * depth * scenes.atlas.size / (torch.minimum(period_u, period_v) * cosine.sqrt())
    albedo = textures.sample(scenes.atlas, m[TEXTURE].long(), u, v, texels.log2())
    albedo = (m[OFFSET : OFFSET + 3] + m[GAIN : GAIN + 3] * albedo).clamp(0, 1)

    view = d / ray_length
    light, gloss = _lighting(scenes, scene, p_w, normal, view, m[GLOSS])
    light = light + m[EMISSION]
    # the albedo is display-referred: light acts on its square, the square root brings it back
    colour = albedo * light.sqrt() + gloss
    colour = colour / (1 + colour.pow(4)).pow(0.25)  # soft shoulder
    return colour.view(3, n, pixels).transpose(0, 1)


def _lighting(
    scenes: Scenes, scene: Tensor, p_w: Tensor, normal: Tensor, view: Tensor, gloss: Tensor
) -> tuple[Tensor, Tensor]:
    """Irradiance (3, N) and highlights (3, N)."""
    low = (scenes.centre[:, 0] - scenes.half[:, 0]).T[:, scene]
    high = (scenes.centre[:, 0] + scenes.half[:, 0]).T[:, scene]
    near = torch.minimum(p_w - low, high - p_w).clamp(0, CORNER_REACH) / CORNER_REACH
    open_sky = (0.55 + 0.45 * near + 0.45 * normal.abs()).clamp_max(1).prod(0)
    light = scenes.ambient.T[:, scene] * (open_sky * (0.8 - 0.2 * normal[1]))
    shine = torch.zeros_like(light)
    mirror = view - 2 * (view * normal).sum(0) * normal
    power = 8 + 120 * gloss
    for lamp in scenes.light.unbind(1):
        to = lamp.T[:3, scene] - p_w
        distance_sq = to.square().sum(0) + 0.3
        to = to * distance_sq.rsqrt()
        colour = lamp.T[3:, scene]
        light = light + colour * ((normal * to).sum(0).clamp_min(0) / (0.25 + distance_sq / 6))
        highlight = (mirror * to).sum(0).clamp_min(0) ** power * gloss
        shine = shine + colour.clamp_max(1) * highlight * 0.6
    return light, shine

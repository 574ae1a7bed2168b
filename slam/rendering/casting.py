"""Exact ray casting in screen tiles: only the primitives that a tile can see are intersected.

Rays have z = 1 in the camera, so the ray parameter is the z-depth. Each primitive is a unit cube, sphere or cylinder
in its own affine frame, where the parameter is the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry.camera import pixel_grid
from slam.rendering.primitives import BOX, CYLINDER, ELLIPSOID, NOTHING, ROOM, Scenes

TILE = 16  # pixels
NEAR = 0.02  # metres
FAR = 1e6  # nothing hit
CHUNK = 1 << 15  # rays times primitives at a time on a CPU: intermediates stay in its cache
CHUNK_DEVICE = 1 << 25


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays of B views cut into tiles of TILE x TILE pixels; n = B * tiles. Edge tiles reach over the image border."""

    origin: Tensor  # (n, 3, 1) world, or (n, 3, TILE * TILE) for a rolling shutter
    direction: Tensor  # (n, 3, TILE * TILE) world, z = 1 in the camera
    scene: Tensor  # (n,) int64
    grid: tuple[int, int, int]  # views, tile rows, tile columns

    def image(self, values: Tensor, height: int, width: int) -> Tensor:
        """(n, C, TILE * TILE) -> (B, C, H, W)."""
        B, rows, cols = self.grid
        C = values.shape[1]
        whole = values.view(B, rows, cols, C, TILE, TILE).permute(0, 3, 1, 4, 2, 5)
        return whole.reshape(B, C, rows * TILE, cols * TILE)[..., :height, :width]


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray meets first."""

    depth: Tensor  # (n, TILE * TILE) z-depth, metres; FAR where nothing
    primitive: Tensor  # (n, TILE * TILE) int64, flat: scene * P + primitive


def make_rays(
    T_wc: Tensor,
    K: Tensor,
    height: int,
    width: int,
    views: int,
    row_T_wc: Tensor | None,
    rays_c: Tensor | None = None,
) -> Rays:
    """Rays through the pixel centres.

    Args:
        T_wc: (B, 4, 4), K: (B, 3, 3) pixels.
        views: views of each scene, B = scenes * views, scene by scene.
        row_T_wc: (B, H, 4, 4) pose of each image row, or None.
        rays_c: (H, W, 3) rays in the camera, z = 1, in place of those of K; None: a pinhole.
    """
    B = len(T_wc)
    rows, cols = -(-height // TILE), -(-width // TILE)
    uv = pixel_grid(rows * TILE, cols * TILE, like=K)
    if rays_c is None:
        tiles = _in_tiles(torch.cat([uv, torch.ones_like(uv[..., :1])], -1))
        tiles = torch.linalg.inv(K)[:, None] @ tiles  # (B, tiles, 3, pixels)
    else:
        u, v = uv.long().unbind(-1)
        tiles = _in_tiles(rays_c.to(K)[v.clamp_max(height - 1), u.clamp_max(width - 1)]).expand(B, -1, -1, -1)
    if row_T_wc is None:
        direction = T_wc[:, None, :3, :3] @ tiles
        origin = T_wc[:, None, :3, 3:].expand(-1, rows * cols, -1, -1)
    else:
        row = torch.arange(rows * TILE, device=K.device).clamp_max(height - 1)
        poses = row_T_wc[:, row].view(B, rows, 1, TILE, 1, 4, 4).expand(-1, -1, cols, -1, TILE, -1, -1)
        poses = poses.reshape(B, rows * cols, TILE * TILE, 4, 4)
        direction = torch.einsum("btpij,btjp->btip", poses[..., :3, :3], tiles)
        origin = poses[..., :3, 3].mT
    scene = (torch.arange(B, device=K.device) // views)[:, None].expand(-1, rows * cols)
    flat = (origin.flatten(0, 1).float(), direction.flatten(0, 1).float(), scene.flatten())
    return Rays(*flat, (B, rows, cols))


def _in_tiles(values: Tensor) -> Tensor:
    """(rows TILE, cols TILE, C) -> (rows cols, C, TILE * TILE)."""
    H, W, C = values.shape
    return values.view(H // TILE, TILE, W // TILE, TILE, C).permute(0, 2, 4, 1, 3).reshape(-1, C, TILE * TILE)


def visible_pairs(scenes: Scenes, rays: Rays) -> tuple[Tensor, Tensor]:
    """Tiles and primitives (flat index) that may meet, by a cone round the tile and two bounds of the primitive.

    The cone is tested against the bounding sphere, then, in the primitive's frame, the box it sweeps is not needed:
    for elongated primitives the cone's axis must also pass near the box.
    """
    n, pixels = len(rays.scene), TILE * TILE
    corners = torch.tensor([0, TILE - 1, pixels - TILE, pixels - 1], device=rays.direction.device)
    d = torch.nn.functional.normalize(rays.direction[..., corners], dim=1)
    axis = torch.nn.functional.normalize(d.mean(-1), dim=1)  # (n, 3)
    sin_cone = (d - axis[..., None]).norm(dim=1).amax(-1) * 1.05 + 1e-3  # chord >= sine
    origin = rays.origin.mean(-1)
    slack = (rays.origin - origin[..., None]).norm(dim=1).amax(-1)
    S, P = scenes.kind.shape
    per = n // S  # tiles of one scene, consecutive
    o, a = origin.view(S, per, 1, 3), axis.view(S, per, 1, 3)
    sin_cone, slack = sin_cone.view(S, per, 1), slack.view(S, per, 1)
    to = scenes.centre[:, None] - o  # (S, per, P, 3)
    along = (to * a).sum(-1)
    aside = (to.square().sum(-1) - along.square()).clamp_min(0).sqrt()
    radius = scenes.radius[:, None] + slack
    # a cone of half angle c meets a sphere if its distance from the axis is below reach * tan(c) + r / cos(c)
    cos_cone = (1 - sin_cone.square()).clamp_min(0.25).sqrt()
    meets = (aside * cos_cone < along.clamp_min(0) * sin_cone + radius * 1.01) & (along > -radius)
    kind = scenes.kind[:, None]
    meets = (meets & (kind != NOTHING)) | (kind == ROOM)
    s, tile, p = meets.nonzero(as_tuple=True)
    # second bound: the axis, thickened by the cone at the far side of the sphere, against the box itself
    flat = s * P + p
    R, half = scenes.R.flatten(0, 1)[flat], scenes.half.flatten(0, 1)[flat]
    o_l = (R.mT @ (origin.view(S, per, 3)[s, tile] - scenes.centre.flatten(0, 1)[flat])[..., None]).squeeze(-1)
    a_l = (R.mT @ axis.view(S, per, 3)[s, tile][..., None]).squeeze(-1)
    reach = along[s, tile, p] + scenes.radius[s, p]
    grow = (reach.clamp_min(0) * (sin_cone / cos_cone)[s, tile, 0] + slack[s, tile, 0]) * 1.05 + 1e-3
    a_l = torch.where(a_l.abs() < 1e-6, torch.full_like(a_l, 1e-6), a_l)
    t0, t1 = (-half - grow[:, None] - o_l) / a_l, (half + grow[:, None] - o_l) / a_l
    enter, leave = torch.minimum(t0, t1).amax(-1), torch.maximum(t0, t1).amin(-1)
    keep = (enter <= leave) & (leave > 0)
    return (s * per + tile)[keep], flat[keep]


def intersect(kind: int, o: Tensor, d: Tensor) -> Tensor:
    """First parameter beyond NEAR at which rays o + t d (m, 3, 1 or pixels), in the unit frame, meet the unit shape.

    Returns:
        (m, pixels), FAR where they miss. Inside a solid nothing is seen of it; of the room, the far side is.
    """
    if kind in (BOX, ROOM):
        inv = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
        t_mid, t_half = -o * inv, inv.abs()
        if kind == ROOM:
            return (t_mid + t_half).amin(1)
        enter, leave = (t_mid - t_half).amax(1), (t_mid + t_half).amin(1)
        return torch.where((enter <= leave) & (enter > NEAR), enter, FAR)
    if kind == ELLIPSOID:
        a = d.square().sum(1)
        t_foot = -(o * d).sum(1) / a
        foot = o + t_foot[:, None] * d  # from the nearest point: keeps the digits of small, far things
        disc = 1 - foot.square().sum(1)
        enter = t_foot - (disc.clamp_min(0) / a).sqrt()
        return torch.where((disc > 0) & (enter > NEAR), enter, FAR)
    ox, oy, oz = o.unbind(1)
    dx, dy, dz = d.unbind(1)
    a = (dx * dx + dz * dz).clamp_min(1e-12)
    t_foot = -(ox * dx + oz * dz) / a
    fx, fz = ox + t_foot * dx, oz + t_foot * dz
    disc = 1 - (fx * fx + fz * fz)
    reach = (disc.clamp_min(0) / a).sqrt()
    inv = 1 / torch.where(dy.abs() < 1e-9, torch.full_like(dy, 1e-9), dy)
    enter = torch.maximum(t_foot - reach, -oy * inv - inv.abs())
    leave = torch.minimum(t_foot + reach, -oy * inv + inv.abs())
    return torch.where((disc > 0) & (enter <= leave) & (enter > NEAR), enter, FAR)


def cast(scenes: Scenes, rays: Rays) -> Hits:
    """First hit of every ray.

    The nearest of all candidates of a tile is one integer minimum: the bits of a positive float grow with its value,
    so (depth bits, primitive) packs into an int64.
    """
    n, pixels = len(rays.scene), TILE * TILE
    device = rays.direction.device
    tile, flat = visible_pairs(scenes, rays)
    to_unit = (scenes.R.mT / scenes.half[..., None]).flatten(0, 1)  # (S P, 3, 3)
    centre, kinds = scenes.centre.flatten(0, 1)[..., None], scenes.kind.flatten()
    far = torch.full((), FAR, device=device).view(torch.int32).long() << 32
    best = far.expand(n, pixels).contiguous()
    chunk = max(1, (CHUNK if device.type == "cpu" else CHUNK_DEVICE) // pixels)
    for kind in (ROOM, BOX, CYLINDER, ELLIPSOID):
        chosen = (kinds[flat] == kind).nonzero().squeeze(1)
        for part in chosen.split(chunk):
            t, f = tile[part], flat[part]
            A = to_unit[f]
            depth = intersect(kind, A @ (rays.origin[t] - centre[f]), A @ rays.direction[t])
            packed = (depth.contiguous().view(torch.int32).long() << 32) | f[:, None]
            best.scatter_reduce_(0, t[:, None].expand(-1, pixels), packed, "amin")
    depth = (best >> 32).int().view(torch.float32)
    return Hits(depth, best & 0xFFFFFFFF)

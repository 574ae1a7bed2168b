"""Scenes as tensors: posed boxes, ellipsoids and cylinders with materials and lights; one scene, or a padded batch.

World axes: y down, the floor at y = 0, the room around the origin; metres. Primitive 0 is the room, seen from inside.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from slam.rendering.textures import Atlas
from slam.rendering.volume import grid_points, pack_volume

BOX, ELLIPSOID, CYLINDER, ROOM, NOTHING = 0, 1, 2, 3, 4  # cylinder: axis along its local y

# scenes and grid points baked at a time: tables of points against primitives that fit the cache, or the memory
BAKE_CPU, BAKE_DEVICE = (1, 400), (16, 4000)

# columns of the material table
TEXTURE, PERIOD, GLOSS, EMISSION, GAIN, OFFSET, MATERIAL_WIDTH = 0, 1, 2, 3, 4, 7, 10


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene of P primitives, M materials, L lights; points of p are `R[p] @ (half[p] * unit) + centre[p]`."""

    kind: Tensor  # (P,) int64: BOX, ELLIPSOID, CYLINDER, ROOM (index 0) or NOTHING (padding)
    R: Tensor  # (P, 3, 3) float32, world from local
    centre: Tensor  # (P, 3)
    half: Tensor  # (P, 3) half extents
    face_material: Tensor  # (P, 6) int64 material of faces -x +x -y +y -z +z; round shapes use the first
    uv_offset: Tensor  # (P, 2) in repeats of the texture
    # (M, 10): texture, period in metres (0: fits the face once), gloss 0..1, emission, gain rgb, offset rgb;
    # the albedo is offset + gain * texture
    material: Tensor
    light: Tensor  # (L, 6) position, colour
    ambient: Tensor  # (3,)
    atlas: Atlas
    name: str = ""

    def to(self, device: torch.device | str) -> "Scene":
        """The same scene on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "name"}
        return Scene(**moved, name=self.name)


@dataclass(frozen=True, eq=False)
class Scenes:
    """A batch of S scenes, every tensor of `Scene` with a leading axis S; short ones are padded with NOTHING."""

    kind: Tensor
    R: Tensor
    centre: Tensor
    half: Tensor
    face_material: Tensor
    uv_offset: Tensor
    material: Tensor
    light: Tensor
    ambient: Tensor
    atlas: Atlas

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def device(self) -> torch.device:
        """Where the scenes live and are rendered."""
        return self.kind.device

    @cached_property
    def radius(self) -> Tensor:
        """(S, P) of the bounding spheres."""
        return self.half.norm(dim=-1)

    @cached_property
    def light_volume(self) -> Tensor:
        """(S, N, 16) soft light of the rooms, baked when first looked at."""
        scenes_at_once, points_at_once = BAKE_CPU if self.device.type == "cpu" else BAKE_DEVICE
        parts = []
        for index in torch.arange(len(self), device=self.device).split(scenes_at_once):
            some = self.select(index)._trimmed()
            points = grid_points(some.centre[:, 0], some.half[:, 0]).split(points_at_once, 1)
            far = torch.cat([distance(some, p) for p in points], 1)
            seen = torch.cat([lit(some, p, some.light[:, 0, :3]) for p in points], 1)
            parts.append(pack_volume(far, seen))
        return torch.cat(parts)

    def _trimmed(self) -> "Scenes":
        """The same shapes without padding that no scene of the batch needs."""
        used = int((self.kind != NOTHING).sum(1).max())
        return replace(self, **{n: getattr(self, n)[:, :used] for n in ("kind", "R", "centre", "half")})

    def select(self, index: Tensor | list[int]) -> "Scenes":
        """Some of the scenes, repeated where the index repeats."""
        keep = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "atlas"}
        return replace(self, **keep)

    def joined(self, added: "Scenes") -> "Scenes":
        """The S scenes with the primitives and materials of S others behind their own, under their own lights."""
        moved = replace(added, face_material=added.face_material + self.material.shape[1])
        names = ("kind", "R", "centre", "half", "face_material", "uv_offset", "material")
        both: dict[str, Any] = {n: torch.cat([getattr(self, n), getattr(moved, n)], 1) for n in names}
        return replace(self, **both)

    def lit_as(self, one: "Scenes") -> "Scenes":
        """The same scenes with the soft light of one other scene: nothing is baked, what differs casts no shadow."""
        scenes = replace(self)
        vars(scenes)["light_volume"] = one.light_volume.expand(len(self), -1, -1)  # where cached_property looks
        return scenes

    def to(self, device: torch.device | str) -> "Scenes":
        """The same scenes on another device."""
        return Scenes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def _padded(tensors: list[Tensor], fill: float) -> Tensor:
    length = max(len(t) for t in tensors)
    out = tensors[0].new_full((len(tensors), length, *tensors[0].shape[1:]), fill)
    for row, tensor in zip(out, tensors):
        row[: len(tensor)] = tensor
    return out


def stack(scenes: list[Scene]) -> Scenes:
    """Batch scenes of one device and atlas, padded to one count of primitives.

    Raises:
        ValueError: if there is none, or they use different atlases.
    """
    if not scenes or any(s.atlas is not scenes[0].atlas for s in scenes):
        raise ValueError(f"need one or more scenes that share an atlas, got {len(scenes)}")
    fill = {"kind": NOTHING, "half": 1.0}
    names = [f.name for f in fields(Scenes) if f.name not in ("atlas", "ambient")]
    parts = {n: _padded([getattr(s, n) for s in scenes], fill.get(n, 0)) for n in names}
    return Scenes(**parts, ambient=torch.stack([s.ambient for s in scenes]), atlas=scenes[0].atlas)


def distance(scenes: Scenes, points: Tensor) -> Tensor:
    """Distance to the nearest surface, a lower bound for ellipsoids.

    Args:
        points: (S, N, 3) world, metres, N points in each scene.

    Returns:
        (S, N) metres; negative inside a primitive or outside the room.
    """
    kind = scenes.kind[:, None]
    local = _local(scenes, points)
    half = scenes.half[:, None].unbind(-1)
    qx, qy, qz = (x.abs() - h for x, h in zip(local, half))
    deepest = torch.maximum(torch.maximum(qx, qy), qz)
    outside = (qx.clamp_min(0).square() + qy.clamp_min(0).square() + qz.clamp_min(0).square()).sqrt()
    box = outside + deepest.clamp_max(0)
    qr = (local[0].square() + local[2].square()).sqrt() - half[0]
    cylinder = (qr.clamp_min(0).square() + qy.clamp_min(0).square()).sqrt() + torch.maximum(qr, qy).clamp_max(0)
    unit = sum((x / h).square() for x, h in zip(local, half))
    ellipsoid = (torch.as_tensor(unit).sqrt() - 1) * scenes.half.amin(-1)[:, None]
    d = torch.where(kind == BOX, box, torch.where(kind == CYLINDER, cylinder, ellipsoid))
    d = torch.where(kind == ROOM, -deepest, d)
    return torch.where(kind == NOTHING, float("inf"), d).amin(-1)


def _local(scenes: Scenes, points: Tensor) -> list[Tensor]:
    """x, y, z (S, N, P) of points (S, N, 3) in the frames of the primitives."""
    shift = torch.einsum("spik,spi->spk", scenes.R, scenes.centre)
    return [points @ scenes.R[..., k].mT - shift[:, None, :, k] for k in range(3)]


def lit(scenes: Scenes, points: Tensor, light: Tensor) -> Tensor:
    """Which points (S, N, 3) a light at (S, 3) reaches, (S, N) bool; round things block as their boxes do."""
    origin, end = _local(scenes, points), _local(scenes, light[:, None])
    enter, leave = torch.tensor(-torch.inf), torch.tensor(torch.inf)
    enter, leave = enter.to(points), leave.to(points)
    for o, e, h in zip(origin, end, scenes.half[:, None].unbind(-1)):
        d = e - o
        inv = 1 / torch.where(d.abs() < 1e-6, 1e-6, d)
        middle, reach = -o * inv, h * inv.abs()
        enter, leave = torch.maximum(enter, middle - reach), torch.minimum(leave, middle + reach)
    solid = ((scenes.kind != ROOM) & (scenes.kind != NOTHING))[:, None]
    return ~(solid & (enter < leave) & (leave > 0) & (leave < 1)).any(-1)

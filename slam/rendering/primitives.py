"""Scenes as tensors: posed boxes, ellipsoids and cylinders with materials and lights; one scene, or a padded batch.

World axes: y down, the floor at y = 0, the room around the origin; metres. Primitive 0 is the room, seen from inside.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from slam.rendering.textures import Atlas
from slam.rendering.volume import grid_points, pack_volume

BOX, ELLIPSOID, CYLINDER, ROOM, NOTHING = 0, 1, 2, 3, 4  # cylinder: axis along its local y

BAKE_SCENES = 16  # at a time: the tables of grid points against primitives are large

# columns of the material table
TEXTURE, PERIOD, GLOSS, EMISSION, GAIN, OFFSET, MATERIAL_WIDTH = 0, 1, 2, 3, 4, 7, 10


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
        parts = []
        for index in torch.arange(len(self), device=self.device).split(BAKE_SCENES):
            some = self.select(index)
            points = grid_points(some.centre[:, 0], some.half[:, 0])
            parts.append(pack_volume(distance(some, points), lit(some, points, some.light[:, 0, :3])))
        return torch.cat(parts)

    def select(self, index: Tensor | list[int]) -> "Scenes":
        """Some of the scenes, repeated where the index repeats."""
        keep = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "atlas"}
        return replace(self, **keep)

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
    local = torch.einsum("spij,snpi->snpj", scenes.R, points[:, :, None] - scenes.centre[:, None])
    half, kind = scenes.half[:, None], scenes.kind[:, None]
    q = local.abs() - half
    box = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
    side = torch.stack([local[..., 0].hypot(local[..., 2]) - half[..., 0], q[..., 1]], -1)
    cylinder = side.clamp_min(0).norm(dim=-1) + side.amax(-1).clamp_max(0)
    ellipsoid = ((local / half).norm(dim=-1) - 1) * half.amin(-1)
    d = torch.where(kind == BOX, box, torch.where(kind == CYLINDER, cylinder, ellipsoid))
    d = torch.where(kind == ROOM, -q.amax(-1), d)
    return torch.where(kind == NOTHING, torch.full_like(d, float("inf")), d).amin(-1)


def lit(scenes: Scenes, points: Tensor, light: Tensor) -> Tensor:
    """Which points (S, N, 3) a light at (S, 3) reaches, (S, N) bool; round things block as their boxes do."""
    to_unit = scenes.R.mT / scenes.half[..., None]
    o = torch.einsum("spji,snpi->snpj", to_unit, points[:, :, None] - scenes.centre[:, None])
    end = torch.einsum("spji,spi->spj", to_unit, light[:, None] - scenes.centre)
    d = end[:, None] - o
    inv = 1 / torch.where(d.abs() < 1e-6, torch.full_like(d, 1e-6), d)
    middle, reach = -o * inv, inv.abs()
    enter, leave = (middle - reach).amax(-1), (middle + reach).amin(-1)
    solid = ((scenes.kind != ROOM) & (scenes.kind != NOTHING))[:, None]
    return ~(solid & (enter < leave) & (leave > 0) & (leave < 1)).any(-1)

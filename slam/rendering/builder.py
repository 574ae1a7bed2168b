"""Collects primitives and materials in plain lists, then makes the tensors of a scene at once."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from slam.rendering.primitives import BOX, CYLINDER, ELLIPSOID, MATERIAL_WIDTH, ROOM, Scene
from slam.rendering.textures import Atlas

Vector = Sequence[float] | np.ndarray


def yaw_matrix(angle_rad: float) -> np.ndarray:
    """(3, 3) rotation about the vertical."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) uniform rotation."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


class SceneBuilder:
    """Grows one scene. Positions are in world axes (y down, floor at y = 0); furniture stands on `y`."""

    def __init__(self, rng: np.random.Generator, atlas: Atlas) -> None:
        self.rng = rng
        self.atlas = atlas
        self.rows: list[np.ndarray] = []  # kind, R, centre, half, faces, uv offset
        self.materials: list[np.ndarray] = []
        self.lights: list[np.ndarray] = []
        self.ambient = np.full(3, 0.6)
        self._by_name = {name: atlas.indices(name) for name in set(atlas.names)}

    def material(
        self,
        pattern: str,
        period: float = 0.0,
        tint: Vector | None = None,
        contrast: float = 1.0,
        gloss: float = 0.0,
        emission: float = 0.0,
    ) -> int:
        """Add a material, return its row.

        Args:
            pattern: name in the atlas; one of its textures is drawn.
            period: metres after which the texture repeats; 0 fits it once to each face.
            tint: (3,) factor on the colour.
            contrast: 1 as the texture is, 0 flat in its middle gray.
        """
        texture = self.rng.choice(self._by_name[pattern])
        tint = np.ones(3) if tint is None else np.asarray(tint, float)
        gain, offset = tint * contrast, tint * 0.5 * (1 - contrast)
        row = np.concatenate([[texture, period, gloss, emission], gain, offset])
        assert len(row) == MATERIAL_WIDTH
        self.materials.append(row)
        return len(self.materials) - 1

    def random_material(self, tintable: bool = True) -> int:
        """Anything that small things are made of."""
        rng = self.rng
        pattern = str(rng.choice(SURFACES, p=SURFACE_ODDS))
        tint = np.clip(rng.uniform(0.5, 1.25) + 0.15 * rng.standard_normal(3), 0.2, 1.5) if tintable else None
        period = float(np.exp(rng.uniform(np.log(0.15), np.log(1.2))))
        gloss = rng.uniform(0.2, 0.9) if rng.random() < 0.25 else 0.0
        return self.material(pattern, period, tint, rng.uniform(0.3, 1.0), gloss)

    def add(self, kind: int, centre: Vector, half: Vector, R: np.ndarray, faces: int | Sequence[int]) -> None:
        """Add a primitive; `faces` is one material or six (-x +x -y +y -z +z)."""
        six = [faces] * 6 if isinstance(faces, (int, np.integer)) else list(faces)
        row = [[kind], R.ravel(), centre, half, six, self.rng.random(2)]
        self.rows.append(np.concatenate([np.asarray(part, float) for part in row]))

    def room(self, width: float, height: float, length: float, faces: Sequence[int]) -> None:
        """The interior: x in +-width / 2, y in -height .. 0, z in +-length / 2. Must come first."""
        assert not self.rows
        self.add(ROOM, (0, -height / 2, 0), (width / 2, height / 2, length / 2), np.eye(3), faces)

    def box(self, x: float, y: float, z: float, size: Vector, material: int | Sequence[int], yaw: float = 0.0) -> None:
        """A box of full `size` (3,) standing on height y."""
        half = np.asarray(size, float) / 2
        self.add(BOX, (x, y - half[1], z), half, yaw_matrix(yaw), material)

    def cylinder(self, x: float, y: float, z: float, radius: float, height: float, material: int) -> None:
        """An upright cylinder standing on height y."""
        self.add(CYLINDER, (x, y - height / 2, z), (radius, height / 2, radius), np.eye(3), material)

    def rod(self, start: Vector, end: Vector, radius: float, material: int) -> None:
        """A thin cylinder between two points: pole, cable, leg."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        length = float(np.linalg.norm(b - a))
        y = (b - a) / length
        x = np.cross(y, [0.0, 0, 1] if abs(y[2]) < 0.9 else [1.0, 0, 0])
        x /= np.linalg.norm(x)
        R = np.stack([x, y, np.cross(x, y)], 1)
        self.add(CYLINDER, (a + b) / 2, (radius, length / 2, radius), R, material)

    def cable(self, start: Vector, end: Vector, sag: float, radius: float, material: int, pieces: int = 5) -> None:
        """A hanging cable as a chain of rods."""
        s = np.linspace(0, 1, pieces + 1)[:, None]
        points = (1 - s) * np.asarray(start, float) + s * np.asarray(end, float)
        points[:, 1] += 4 * sag * (s * (1 - s))[:, 0]
        for a, b in pairwise(points):
            self.rod(a, b, radius, material)

    def ellipsoid(self, centre: Vector, half: Vector, material: int, R: np.ndarray | None = None) -> None:
        """An ellipsoid by its centre and half axes."""
        self.add(ELLIPSOID, centre, half, np.eye(3) if R is None else R, material)

    def light(self, position: Vector, colour: Vector) -> None:
        """A point light."""
        self.lights.append(np.concatenate([np.asarray(position, float), np.asarray(colour, float)]))

    def finish(self, name: str, device: torch.device | str) -> Scene:
        """The scene as tensors."""
        rows = np.stack(self.rows)
        f32 = torch.from_numpy(rows).to(device, torch.float32)
        return Scene(
            kind=f32[:, 0].long(),
            R=f32[:, 1:10].view(-1, 3, 3),
            centre=f32[:, 10:13],
            half=f32[:, 13:16],
            face_material=f32[:, 16:22].long(),
            uv_offset=f32[:, 22:24],
            material=torch.from_numpy(np.stack(self.materials)).to(device, torch.float32),
            light=torch.from_numpy(np.reshape(self.lights, (-1, 6))).to(device, torch.float32),
            ambient=torch.from_numpy(self.ambient).to(device, torch.float32),
            atlas=self.atlas,
            name=name,
        )


SURFACES = (
    "dead_leaves", "clouds", "wood", "weave", "speckle", "plaster", "plain", "carpet",
    "stripes", "text", "painting", "foliage", "bricks",
)  # fmt: skip
SURFACE_ODDS = np.array([6, 4, 4, 4, 2, 2, 4, 1, 2, 2, 3, 1, 1]) / 36

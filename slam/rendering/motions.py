"""Things that move, as functions of time: a box or ball that turns, somebody who walks, a box bound to the camera.

Frames: `o` of the object, `l` of a part of it that moves as one (a limb), which is `o` when at rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slam.geometry import se3
from slam.rendering import furniture
from slam.rendering.builder import SceneBuilder, yaw_matrix
from slam.rendering.primitives import BOX, ELLIPSOID, Scene

SKINS = ("poster", "painting", "text", "tag", "dead_leaves", "bricks")  # patterns with detail everywhere
IMAGE_SHARE = (0.07, 0.16)  # of the image that a box or a ball takes at its spot
MAX_RATE = 2.5  # radians a second, of what swings to and fro
STRIDE_RAD, ARM_RAD = 0.42, 0.3  # swing of legs and arms from the vertical


@dataclass(frozen=True, eq=False)
class Spot:
    """A place in the view of a camera, which something passes at one time."""

    T_wc: Tensor  # (V, 4, 4) float64, the path of the camera
    view: int  # the view that sees the spot
    time_s: Tensor  # (V,) from the time of that view
    p_w: Tensor  # (3,) float64 world
    depth: float  # of the spot in that view, metres
    clear: float  # from the spot to the nearest surface, metres
    image_radius: float  # of a disc at the spot as large as the whole image, metres


@dataclass(frozen=True, eq=False)
class Motion:
    """One object of P primitives at V times."""

    shape: Scene  # its primitives at rest, in frame o
    T_wo: Tensor  # (V, 4, 4) float64
    T_wl: Tensor  # (V, P, 4, 4) float64 of the part that each primitive belongs to


def rigid(spot: Spot, rng: np.random.Generator, b: SceneBuilder) -> Motion:
    """A ball or a box that swings across the view and turns, where nothing is in its way."""
    radius = _add_solid(b, spot, rng)
    across = spot.T_wc[spot.view, :3, 0] * rng.choice([-1.0, 1.0])
    aside = spot.T_wc[spot.view, :3, :3] @ torch.from_numpy(rng.uniform(-0.35, 0.35, 3))
    amplitude = float(np.clip(0.65 * (spot.clear - radius), 0.02, 0.4 * spot.depth))
    rate = min(rng.uniform(0.25, 0.6) / amplitude, MAX_RATE)
    phase = (rate * spot.time_s)[:, None]
    position = spot.p_w + amplitude * (torch.sin(phase) * across + torch.sin(1.6 * phase) * aside)
    omega = torch.from_numpy(rng.normal(0, 0.5, 3))  # radians a second
    T_wo = se3.from_rt(se3.so3_exp(spot.time_s[:, None] * omega), position)
    return _undivided(b, T_wo)


def epipolar(spot: Spot, rng: np.random.Generator, b: SceneBuilder) -> Motion:
    """A ball or a box that goes a constant factor of the camera's way, without turning.

    With the factor a it lies at X0 - c0 - (1 - a) (c - c0) from the camera at c. That is 1 - a times the place of a
    static object, the same one in all views, which is 1 / (1 - a) times as large and as far from c0: the flow between
    any two views lies on the epipolar lines of the camera's own motion.
    """
    _add_solid(b, spot, rng)
    factor = float(rng.choice([rng.uniform(-0.8, -0.35), rng.uniform(0.3, 0.6)]))
    centre = spot.T_wc[:, :3, 3]
    position = spot.p_w + factor * (centre - centre[spot.view])
    return _undivided(b, se3.from_rt(torch.eye(3, dtype=torch.float64).expand(len(position), 3, 3), position))


def person(spot: Spot, rng: np.random.Generator, b: SceneBuilder) -> Motion:
    """Somebody who walks round a long oval across the view, on the floor; legs and arms swing in step."""
    furniture.person(b, 0.0, 0.0, 0.0, 0.0)
    shape = b.finish("person", "cpu")
    look = spot.T_wc[spot.view, :3, 2] * torch.tensor([1.0, 0.0, 1.0])
    ahead = torch.nn.functional.normalize(look, dim=0)
    across = torch.stack([ahead[2], ahead[1], -ahead[0]])
    length, width = rng.uniform(0.3, 1.1), rng.uniform(0.2, 0.35)
    rate = rng.choice([-1.0, 1.0]) * min(rng.uniform(0.5, 0.9) / length, MAX_RATE)  # radians of the oval a second
    angle = (rate * spot.time_s + rng.choice([-0.5, 0.5]) * np.pi)[:, None]
    floor = spot.p_w * torch.tensor([1.0, 0.0, 1.0])
    position = floor + length * torch.cos(angle) * across + width * torch.sin(angle) * ahead
    velocity = rate * (width * torch.cos(angle) * ahead - length * torch.sin(angle) * across)
    yaw_rad = torch.atan2(-velocity[:, 0], -velocity[:, 2])  # a person faces -z
    T_ol, lift = _gait(shape, velocity.norm(dim=-1), spot.time_s)
    position[:, 1] -= lift
    T_wo = se3.from_rt(torch.from_numpy(np.stack([yaw_matrix(a) for a in yaw_rad.tolist()])), position)
    return Motion(shape, T_wo, T_wo[:, None] @ T_ol)


def _gait(shape: Scene, speed: Tensor, time_s: Tensor) -> tuple[Tensor, Tensor]:
    """T_ol (V, P, 4, 4) of a walking person's parts, and how far (V,) the lower foot is below the floor."""
    along, half = shape.R[:, :, 1].double(), shape.half[:, 1:2].double()
    upper, leg = shape.centre.double() - half * along, 2 * half * along  # of rods: the upper end, from it to the lower
    legs, arms = furniture.LIMBS[::2], furniture.LIMBS[1::2]
    length = max(float(leg[limb[0], 1:].norm()) for limb in legs)
    step = 2 * length * np.sin(STRIDE_RAD)  # metres from one foot to the other
    walked = torch.cumsum(speed * torch.cat([time_s.new_zeros(1), time_s.diff()]), 0)
    swing = torch.sin(np.pi / step * walked)
    T_ol = se3.identity().repeat(len(speed), len(shape.kind), 1, 1)
    for side, (leg_rows, arm_rows) in zip((1, -1), zip(legs, arms)):
        at_rest = float(torch.atan2(leg[leg_rows[0], 2], leg[leg_rows[0], 1]))
        for rows, angle in ((leg_rows, side * STRIDE_RAD * swing - at_rest), (arm_rows, -side * ARM_RAD * swing)):
            T_ol[:, list(rows)] = _turned_about(upper[rows[0]], angle)[:, None]
    return T_ol, length * torch.cos(STRIDE_RAD * swing) + float(upper[legs[0][0], 1])


def _turned_about(p_o: Tensor, angle_rad: Tensor) -> Tensor:
    """(V, 4, 4) turned about the x axis through a point (3,) by (V,) angles; positive takes +y to +z."""
    R = se3.so3_exp(angle_rad[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    return se3.from_rt(R, p_o - R @ p_o)


def _add_solid(b: SceneBuilder, spot: Spot, rng: np.random.Generator) -> float:
    """A ball, an ellipsoid or a box at the origin of o, sized for the spot; returns the radius of its sphere."""
    half = spot.image_radius * np.sqrt(rng.uniform(*IMAGE_SHARE)) * rng.uniform(0.75, 1.0, 3)
    kind = int(rng.choice([BOX, ELLIPSOID]))
    radius = float(np.linalg.norm(half) if kind == BOX else half.max())
    shrink = min(1.0, max(0.6 * spot.clear, 0.03) / radius)
    skin = b.material(str(rng.choice(SKINS)), 0.0, rng.uniform(0.6, 1.2, 3))
    b.add(kind, (0, 0, 0), shrink * half, np.eye(3), skin)
    return shrink * radius


def _undivided(b: SceneBuilder, T_wo: Tensor) -> Motion:
    shape = b.finish("solid", "cpu")
    return Motion(shape, T_wo, T_wo[:, None].expand(-1, len(shape.kind), -1, -1))

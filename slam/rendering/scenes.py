"""Random scenes by kind: rooms of many sorts, one full of clutter, a corner with tags, a hall, a yard outdoors."""

from collections.abc import Callable

import numpy as np
import torch

from slam.errors import ConfigError
from slam.rendering import furniture
from slam.rendering.builder import SceneBuilder, random_rotation
from slam.rendering.primitives import BOX, CYLINDER, ELLIPSOID, Scene, Scenes, stack
from slam.rendering.textures import Atlas, default_atlas

__all__ = ["SCENE_KINDS", "Scene", "Scenes", "make_scene", "stack"]


def _shell(b: SceneBuilder, width: float, height: float, length: float, textured: float = 0.3) -> None:
    """Room with floor, ceiling, walls; lights."""
    rng = b.rng
    tone = rng.uniform(0.65, 1.2) + 0.06 * rng.standard_normal(3)
    walls = []
    common = b.material(str(rng.choice(["plain", "plaster"], p=[0.65, 0.35])), rng.uniform(1, 3), tone)
    for _ in range(4):
        if rng.random() < textured:
            pattern = str(rng.choice(["bricks", "clouds", "wood", "stripes", "plaster", "weave"]))
            walls.append(b.material(pattern, rng.uniform(0.6, 3.0), rng.uniform(0.6, 1.1, 3), rng.uniform(0.15, 0.8)))
        else:
            walls.append(common)
    pattern = str(
        rng.choice(["wood", "carpet", "bricks", "speckle", "clouds", "plain"], p=[0.3, 0.25, 0.15, 0.1, 0.1, 0.1])
    )
    floor = b.material(
        pattern,
        rng.uniform(0.6, 2.0),
        np.full(3, rng.uniform(0.6, 1.1)),
        rng.uniform(0.4, 1),
        rng.choice([0, 0.3, 0.6]),
    )
    ceiling = b.material(
        str(rng.choice(["plain", "plaster", "stripes"])), rng.uniform(0.6, 2.4), np.full(3, rng.uniform(0.8, 1.2)), 0.3
    )
    b.room(width, height, length, [walls[0], walls[1], ceiling, floor, walls[2], walls[3]])
    warm = np.array([1.0, rng.uniform(0.85, 1.02), rng.uniform(0.65, 1.1)])
    b.ambient = (0.5 + 0.5 * warm[::-1]) * rng.uniform(0.25, 0.6)
    for _ in range(int(rng.integers(1, 4))):
        place = (rng.uniform(-0.4, 0.4) * width, -height * rng.uniform(0.75, 0.97), rng.uniform(-0.4, 0.4) * length)
        b.light(place, warm * rng.uniform(0.2, 0.7))


def _decorate_walls(b: SceneBuilder, count: int, size: tuple[float, float] = (0.4, 1.2)) -> None:
    rng = b.rng
    half = b.rows[0][13:16]
    for _ in range(count):
        wall = int(rng.integers(4))
        reach = half[2] if wall < 2 else half[0]
        w = rng.uniform(*size)
        h = min(w * rng.uniform(0.6, 1.4), half[1] * 1.2)
        pattern = str(
            rng.choice(
                ["poster", "painting", "text", "tag", "screen", "foliage", "checker"],
                p=[0.3, 0.3, 0.12, 0.08, 0.08, 0.1, 0.02],
            )
        )
        emission = rng.uniform(0.3, 1.2) if pattern == "screen" else 0.0
        panel = b.material(pattern, 0.0, rng.uniform(0.7, 1.1, 3), gloss=rng.choice([0, 0.5]), emission=emission)
        furniture.on_wall(b, wall, rng.uniform(-0.85, 0.85) * reach, half[1] * rng.uniform(0.7, 1.4), (w, h), panel)


def _window(b: SceneBuilder) -> None:
    """A bright view outside with a frame, and light from there."""
    rng = b.rng
    wall = int(rng.integers(4))
    half = b.rows[0][13:16]
    reach = half[2] if wall < 2 else half[0]
    w, h = rng.uniform(0.8, 1.8), rng.uniform(0.8, 1.4)
    along, height = rng.uniform(-0.6, 0.6) * reach, rng.uniform(1.2, 1.6)
    frame = b.material("plain", 1.0, np.full(3, 1.15))
    furniture.on_wall(b, wall, along, height, (w + 0.12, h + 0.12), frame)
    outside = str(rng.choice(["foliage", "painting", "bricks"]))
    view = b.material(outside, 0.0, (1.1, 1.0, 1.3), emission=rng.uniform(1.0, 3.0))
    n = int(rng.integers(1, 4))
    for k in range(n):
        furniture.on_wall(b, wall, along + w * ((k + 0.5) / n - 0.5), height, (w / n - 0.05, h), view)
        b.rows[-1][13 + (0 if wall < 2 else 2)] += 0.004  # just proud of the frame
    normal = [(1, 0), (-1, 0), (0, 1), (0, -1)][wall]
    x = along if wall >= 2 else -normal[0] * half[0]
    z = along if wall < 2 else -normal[1] * half[2]
    b.light((x + 0.4 * normal[0], -height, z + 0.4 * normal[1]), np.array([0.8, 0.9, 1.0]) * rng.uniform(0.2, 0.8))


def _along_wall(b: SceneBuilder, depth: float, width: float) -> tuple[float, float, float]:
    """A place (x, z, yaw) against a random wall for something that opens towards its own -z."""
    rng = b.rng
    hx, _, hz = b.rows[0][13:16]
    wall = int(rng.integers(4))
    gap = depth / 2 + 0.02
    spread_x, spread_z = max(hx - width / 2, 0.01), max(hz - width / 2, 0.01)
    if wall < 2:
        side = (-1, 1)[wall]
        return side * (hx - gap), rng.uniform(-spread_z, spread_z), side * np.pi / 2
    side = (-1, 1)[wall - 2]
    return rng.uniform(-spread_x, spread_x), side * (hz - gap), 0.0 if side > 0 else np.pi


def _workplace(b: SceneBuilder, x: float, z: float, yaw: float) -> None:
    rng = b.rng
    w, d = rng.uniform(1.2, 1.8), rng.uniform(0.65, 0.85)
    top = furniture.table(b, x, 0.0, z, (w, 0.74, d), yaw)
    for k in range(int(rng.integers(1, 3))):
        mx, mz = furniture.placed(x, z, yaw, (k - 0.4) * 0.65, 0.12)
        furniture.monitor(b, mx, top, mz, yaw + rng.normal(0, 0.15))
    kx, kz = furniture.placed(x, z, yaw, rng.uniform(-0.2, 0.2), -0.2)
    furniture.keyboard(b, kx, top, kz, yaw + rng.normal(0, 0.1))
    for _ in range(int(rng.integers(2, 6))):
        sx, sz = furniture.placed(x, z, yaw, rng.uniform(-0.45, 0.45) * w, rng.uniform(-0.4, 0.4) * d)
        furniture.small_thing(b, sx, top, sz, rng.uniform(0.08, 0.22))
    if rng.random() < 0.8:
        cx, cz = furniture.placed(x, z, yaw, rng.uniform(-0.3, 0.3), -d / 2 - rng.uniform(0.1, 0.5))
        furniture.chair(b, cx, 0.0, cz, yaw + np.pi + rng.normal(0, 0.6))
    if rng.random() < 0.6:
        black = b.material("plain", 1.0, np.full(3, rng.uniform(0.05, 0.9)))
        a, c = furniture.placed(x, z, yaw, -0.3 * w, 0.3 * d), furniture.placed(x, z, yaw, 0.3 * w, 0.42 * d)
        b.cable((a[0], top, a[1]), (c[0], top, c[1]), rng.uniform(0.2, 0.5), 0.005, black)


def _office(b: SceneBuilder) -> None:
    rng = b.rng
    _shell(b, rng.uniform(3.5, 6), rng.uniform(2.4, 3), rng.uniform(3.5, 7))
    for _ in range(int(rng.integers(2, 4))):
        _workplace(b, *_along_wall(b, 0.75, 1.6))
    for _ in range(int(rng.integers(1, 3))):
        w = rng.uniform(0.7, 1.4)
        x, z, yaw = _along_wall(b, 0.32, w)
        furniture.shelf(b, x, 0.0, z, (w, rng.uniform(0.9, 2.0), 0.32), yaw)
    for _ in range(int(rng.integers(0, 3))):
        x, z, yaw = _along_wall(b, 0.5, 0.5)
        furniture.drawers(b, x, 0.0, z, (0.46, rng.uniform(0.6, 1.4), 0.5), yaw)
    if rng.random() < 0.5:
        x, z, _ = _along_wall(b, 0.5, 0.5)
        furniture.plant(b, x, 0.0, z, rng.uniform(0.8, 1.6))
    _window(b)
    _decorate_walls(b, int(rng.integers(3, 8)))
    _ceiling_lamps(b)


def _ceiling_lamps(b: SceneBuilder) -> None:
    rng = b.rng
    half = b.rows[0][13:16]
    lit = b.material(str(rng.choice(["plain", "stripes"])), rng.uniform(0.3, 0.6), np.full(3, 1.2), 0.5, emission=2.5)
    nx, nz = max(1, int(half[0] / 1.2)), max(1, int(half[2] / 1.2))
    for i in range(nx):
        for k in range(nz):
            x, z = half[0] * ((2 * i + 1) / nx - 1), half[2] * ((2 * k + 1) / nz - 1)
            b.box(x, -2 * half[1] + 0.03, z, (0.6, 0.03, 0.6 if rng.random() < 0.5 else 1.2), lit)


def _living(b: SceneBuilder) -> None:
    rng = b.rng
    _shell(b, rng.uniform(3.8, 6), rng.uniform(2.4, 3), rng.uniform(4, 6.5))
    x, z, yaw = _along_wall(b, 0.95, 2.2)
    furniture.sofa(b, x, 0.0, z, yaw)
    rug = b.material(str(rng.choice(["weave", "dead_leaves", "stripes", "carpet"])), 0.0, rng.uniform(0.5, 1.1, 3), 0.7)
    tx, tz = rng.uniform(-0.4, 0.4, 2)
    b.box(tx, 0.0, tz, (rng.uniform(1.2, 2.2), 0.012, rng.uniform(1.2, 2.2)), rug, rng.normal(0, 0.2))
    w, d = rng.uniform(0.7, 1.2), rng.uniform(0.5, 0.8)
    top = furniture.table(b, tx, 0.0, tz, (w, rng.uniform(0.4, 0.55), d), rng.normal(0, 0.3))
    for _ in range(int(rng.integers(2, 6))):
        furniture.small_thing(
            b, tx + rng.uniform(-0.35, 0.35) * w, top, tz + rng.uniform(-0.35, 0.35) * d, rng.uniform(0.1, 0.24)
        )
    for _ in range(int(rng.integers(1, 4))):
        w = rng.uniform(0.7, 1.6)
        x, z, yaw = _along_wall(b, 0.34, w)
        furniture.shelf(b, x, 0.0, z, (w, rng.uniform(0.6, 2.0), 0.34), yaw)
    for _ in range(int(rng.integers(1, 3))):
        x, z, yaw = _along_wall(b, 0.45, 1.2)
        h = rng.uniform(0.45, 0.8)
        furniture.drawers(b, x, 0.0, z, (rng.uniform(0.8, 1.4), h, 0.42), yaw)
        furniture.small_thing(b, x, -h, z, rng.uniform(0.15, 0.3))
        if rng.random() < 0.5:
            furniture.monitor(b, x, -h, z, yaw)
    for _ in range(int(rng.integers(1, 4))):
        furniture.chair(b, *_free_floor(b), rng.uniform(-np.pi, np.pi))
    for _ in range(int(rng.integers(1, 3))):
        x, z, _ = _along_wall(b, 0.6, 0.6)
        furniture.plant(b, x, 0.0, z, rng.uniform(0.8, 1.8))
    x, z, _ = _along_wall(b, 0.6, 0.6)
    furniture.lamp(b, x, 0.0, z, rng.uniform(1.3, 1.8))
    _window(b)
    _decorate_walls(b, int(rng.integers(4, 9)))


def _free_floor(b: SceneBuilder) -> tuple[float, float, float]:
    hx, _, hz = b.rows[0][13:16]
    return float(b.rng.uniform(-0.7, 0.7) * hx), 0.0, float(b.rng.uniform(-0.7, 0.7) * hz)


def _corridor(b: SceneBuilder) -> None:
    rng = b.rng
    width, length = rng.uniform(1.6, 2.8), rng.uniform(8, 18)
    _shell(b, width, rng.uniform(2.3, 3), length, 0.15)
    half = b.rows[0][13:16]
    door = b.material(str(rng.choice(["wood", "plain"])), rng.uniform(0.8, 2), rng.uniform(0.4, 1.1, 3))
    frame = b.material("plain", 1.0, np.full(3, rng.uniform(0.3, 1.1)))
    handle = b.material("plain", 1.0, np.full(3, 0.9), gloss=0.9)
    for wall in (0, 1):
        z = -half[2] + rng.uniform(0.8, 2)
        while z < half[2] - 0.8:
            furniture.on_wall(b, wall, z, 1.04, (1.0, 2.08), frame)
            furniture.on_wall(b, wall, z, 1.0, (0.86, 2.0), door)
            b.rows[-1][13] += 0.012
            side = (-1, 1)[wall]
            b.rod((side * (half[0] - 0.06), -1.0, z + 0.3), (side * (half[0] - 0.06), -1.0, z + 0.4), 0.012, handle)
            z += rng.uniform(1.6, 4.5)
    _decorate_walls(b, int(rng.integers(4, 11)), (0.25, 0.9))
    for _ in range(int(rng.integers(1, 5))):
        x, z, yaw = _along_wall(b, 0.4, 0.5)
        pick = rng.random()
        if pick < 0.4:
            furniture.drawers(b, x, 0.0, z, (rng.uniform(0.4, 0.8), rng.uniform(0.6, 1.4), 0.35), yaw)
        elif pick < 0.7:
            furniture.plant(b, x, 0.0, z, rng.uniform(0.8, 1.4))
        else:
            b.box(x, 0.0, z, rng.uniform(0.25, 0.5, 3), b.random_material(), yaw)
    pipe = b.material("plain", 1.0, np.full(3, rng.uniform(0.3, 1)), gloss=0.4)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.85, 0.85) * half[0], -2 * half[1] + rng.uniform(0.06, 0.2)
        b.rod((x, y, -half[2]), (x, y, half[2]), rng.uniform(0.015, 0.05), pipe)
    for _ in range(int(rng.integers(0, 3))):
        x, z = rng.choice([-1, 1]) * half[0] * 0.85, rng.uniform(-0.9, 0.9) * half[2]
        b.rod((x, 0, z), (x, -2 * half[1], z), rng.uniform(0.02, 0.12), b.random_material())
    _ceiling_lamps(b)


def _desk(b: SceneBuilder) -> None:
    rng = b.rng
    _shell(b, rng.uniform(2.4, 4), rng.uniform(2.3, 2.8), rng.uniform(2.4, 4), 0.3)
    w, d = rng.uniform(1.2, 1.8), rng.uniform(0.7, 0.9)
    z = b.rows[0][15] - d / 2 - 0.02
    top = furniture.table(b, 0.0, 0.0, z, (w, 0.74, d), 0.0)
    for k in range(int(rng.integers(0, 3))):
        furniture.monitor(b, (k - 0.5) * rng.uniform(0.5, 0.65), top, z + 0.18, rng.normal(0, 0.2))
    if rng.random() < 0.8:
        furniture.keyboard(b, rng.uniform(-0.3, 0.2), top, z - 0.15, rng.normal(0, 0.15))
    for _ in range(int(rng.integers(6, 16))):
        x, dz = rng.uniform(-0.46, 0.46) * w, rng.uniform(-0.42, 0.42) * d
        furniture.small_thing(b, x, top, z + dz, float(np.exp(rng.uniform(np.log(0.05), np.log(0.25)))))
    if rng.random() < 0.5:
        furniture.lamp(b, rng.choice([-1, 1]) * 0.4 * w, top, z + 0.2, rng.uniform(0.35, 0.55))
    if rng.random() < 0.3:
        furniture.plant(b, rng.choice([-1, 1]) * 0.38 * w, top, z + 0.2, rng.uniform(0.3, 0.5))
    black = b.material("plain", 1.0, np.full(3, rng.uniform(0.05, 0.3)))
    for _ in range(int(rng.integers(0, 3))):
        a, c = rng.uniform(-0.4, 0.4, 2) * w
        b.cable((a, top - 0.01, z + 0.3), (c, top - 0.01, z - 0.1), -0.01, 0.004, black)
    _decorate_walls(b, int(rng.integers(2, 7)), (0.2, 0.7))
    furniture.chair(b, rng.uniform(-0.8, 0.8), 0.0, z - d / 2 - 0.5, np.pi)
    _office_floor_boxes(b)


def _office_floor_boxes(b: SceneBuilder) -> None:
    for _ in range(int(b.rng.integers(0, 3))):
        x, z, yaw = _along_wall(b, 0.4, 0.4)
        b.box(x, 0.0, z, b.rng.uniform(0.2, 0.5, 3), b.random_material(), yaw)


def _bare(b: SceneBuilder) -> None:
    rng = b.rng
    _shell(b, rng.uniform(3, 6), rng.uniform(2.3, 3), rng.uniform(3, 6), 0.05)
    _decorate_walls(b, int(rng.integers(1, 4)))
    for _ in range(int(rng.integers(1, 4))):
        x, z, yaw = _along_wall(b, 0.5, 0.5)
        b.box(x, 0.0, z, rng.uniform(0.25, 0.8, 3), b.random_material(), yaw)
    if rng.random() < 0.5:
        furniture.chair(b, *_free_floor(b), rng.uniform(-np.pi, np.pi))
    if rng.random() < 0.5:
        _window(b)
    _ceiling_lamps(b)


def _clutter(b: SceneBuilder) -> None:
    """Shapes everywhere, also in the air: no prior of a room holds."""
    rng = b.rng
    size = rng.uniform(3, 7, 3)
    _shell(b, size[0], rng.uniform(2.5, 4), size[2], 0.8)
    hx, hy, hz = b.rows[0][13:16]
    for _ in range(int(rng.integers(25, 60))):
        centre = np.array([rng.uniform(-hx, hx), -rng.uniform(0, 2 * hy), rng.uniform(-hz, hz)])
        extent = np.exp(rng.uniform(np.log(0.05), np.log(0.5))) * rng.uniform(0.3, 1, 3)
        kind = int(rng.choice([BOX, ELLIPSOID, CYLINDER], p=[0.5, 0.25, 0.25]))
        if rng.random() < 0.15:
            extent = np.array([0.015, rng.uniform(0.5, 1.5), 0.015])
        if kind == CYLINDER:
            extent[2] = extent[0]
        b.add(kind, centre, extent, random_rotation(rng), b.random_material())
    _decorate_walls(b, int(rng.integers(2, 8)))


def _tags(b: SceneBuilder) -> None:
    """A corner with tags and papers, little else."""
    rng = b.rng
    _shell(b, rng.uniform(1.8, 3), rng.uniform(1.6, 2.6), rng.uniform(1.8, 3), 0.1)
    hx, hy, hz = b.rows[0][13:16]
    for wall in range(4):
        reach = hz if wall < 2 else hx
        for _ in range(int(rng.integers(2, 6))):
            s = rng.uniform(0.12, 0.35)
            panel = b.material(
                str(rng.choice(["tag", "tag", "text", "checker"])), 0.0, np.full(3, rng.uniform(0.8, 1.1))
            )
            furniture.on_wall(b, wall, rng.uniform(-0.8, 0.8) * reach, hy * rng.uniform(0.4, 1.5), (s, s), panel)
    for _ in range(int(rng.integers(2, 8))):
        x, _, z = _free_floor(b)
        s = rng.uniform(0.12, 0.35)
        b.box(x, 0.0, z, (s, 0.01, s), b.material("tag", 0.0), rng.uniform(-np.pi, np.pi))
    for _ in range(int(rng.integers(1, 5))):
        x, z, yaw = _along_wall(b, 0.3, 0.3)
        b.box(x, 0.0, z, rng.uniform(0.1, 0.6, 3), b.random_material(), yaw)


def _hall(b: SceneBuilder) -> None:
    """A hall of 12 to 16 m with stands in the middle: long paths, things from near to far."""
    rng = b.rng
    _shell(b, rng.uniform(13, 16), rng.uniform(3, 4), rng.uniform(12, 15), 0.5)
    for _ in range(int(rng.integers(7, 11))):
        w = rng.uniform(0.8, 1.8)
        x, z, yaw = _along_wall(b, 0.34, w)
        furniture.shelf(b, x, 0.0, z, (w, rng.uniform(0.9, 2.2), 0.34), yaw)
    for _ in range(int(rng.integers(4, 7))):
        _workplace(b, *_along_wall(b, 0.75, 1.6))
    for n in range(int(rng.integers(4, 7))):  # stands, in a ring that leaves room to walk round them
        angle = 2 * np.pi * (n + rng.uniform(-0.2, 0.2)) / 6
        x, z, yaw = rng.uniform(0.6, 1.5) * np.cos(angle), rng.uniform(0.6, 1.5) * np.sin(angle), rng.uniform(0, np.pi)
        top = furniture.table(b, x, 0.0, z, (rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.8)), yaw)
        for _ in range(int(rng.integers(2, 5))):
            dx, dz = rng.uniform(-0.25, 0.25, 2)
            furniture.small_thing(b, x + dx, top, z + dz, rng.uniform(0.12, 0.35))
    for _ in range(int(rng.integers(2, 5))):
        x, z, _ = _along_wall(b, 0.6, 0.6)
        furniture.plant(b, x, 0.0, z, rng.uniform(1.0, 1.8))
    _window(b)
    _decorate_walls(b, int(rng.integers(12, 20)), (0.6, 1.8))
    _ceiling_lamps(b)


def _people(b: SceneBuilder) -> None:
    """A room with people in it, standing and sitting."""
    rng = b.rng
    (_office, _living, _desk, _bare)[int(rng.choice(4, p=[0.35, 0.35, 0.1, 0.2]))](b)
    for _ in range(int(rng.integers(1, 5))):
        x, y, z = _free_floor(b)
        yaw = rng.uniform(-np.pi, np.pi)
        is_sitting = bool(rng.random() < 0.4)
        if is_sitting:
            furniture.chair(b, x, y, z, yaw)
        furniture.person(b, x, y, z, yaw, is_sitting)


def _attic(b: SceneBuilder) -> None:
    """A room under a roof: sloping ceilings, beams across."""
    rng = b.rng
    width, height, length = rng.uniform(3.5, 6), rng.uniform(2.6, 3.6), rng.uniform(4, 8)
    _shell(b, width, height, length, 0.3)
    wall = b.material(str(rng.choice(["plain", "plaster", "wood"])), rng.uniform(0.8, 2), rng.uniform(0.6, 1.1, 3), 0.5)
    beam = b.material("wood", 0.8, rng.uniform(0.3, 1.0, 3))
    low = rng.uniform(0.9, 1.6)  # where the roof begins
    for side in (-1, 1):
        rise = np.arctan2(height - low, width / 2)
        c, s = np.cos(side * rise), np.sin(side * rise)
        R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        middle = (side * width / 4, -(low + height) / 2 - 0.3 * np.cos(rise), 0)
        b.add(BOX, middle, (width / 2, 0.3, length / 2), R, wall)
    for n in range(int(rng.integers(2, 5))):
        z = length * ((n + 0.5) / 4 - 0.5)
        b.rod((-width / 2, -low - 0.6, z), (width / 2, -low - 0.6, z), rng.uniform(0.06, 0.1), beam)
    for _ in range(int(rng.integers(3, 8))):
        x, y, z = _free_floor(b)
        pick = rng.random()
        if pick < 0.3:
            furniture.chair(b, x, y, z, rng.uniform(-np.pi, np.pi))
        elif pick < 0.5:
            top = furniture.table(b, x, y, z, (rng.uniform(0.7, 1.4), rng.uniform(0.5, 0.8), 0.7), rng.uniform(0, 3))
            furniture.small_thing(b, x, top, z, rng.uniform(0.1, 0.3))
        else:
            b.box(x, y, z, rng.uniform(0.25, 0.9, 3), b.random_material(), rng.uniform(-np.pi, np.pi))
    _decorate_walls(b, int(rng.integers(1, 5)))


def _yard(b: SceneBuilder) -> None:
    """Outdoors, between houses: a sky, ground, trees, cars, people."""
    rng = b.rng
    tone, sky_tone = rng.uniform(0.6, 1.1, 3), np.array([0.8, 0.95, 1.1]) * rng.uniform(0.8, 1.2)
    sky = b.material(str(rng.choice(["clouds", "plain"])), 20.0, sky_tone, rng.uniform(0.2, 0.7), emission=1.5)
    patterns = ["bricks", "plaster", "plain"]
    house = [b.material(str(rng.choice(patterns)), rng.uniform(1, 4), tone, 0.6) for _ in range(4)]
    floor = b.material(
        str(rng.choice(["foliage", "bricks", "speckle", "carpet", "plaster"])), rng.uniform(0.8, 3), tone
    )
    width, height, length = rng.uniform(9, 22), rng.uniform(6, 12), rng.uniform(12, 30)
    b.room(width, height, length, [house[0], house[1], sky, floor, house[2], house[3] if rng.random() < 0.5 else sky])
    b.ambient = np.array([0.8, 0.9, 1.0]) * rng.uniform(0.5, 0.9)
    b.light((rng.uniform(-0.4, 0.4) * width, -0.95 * height, rng.uniform(-0.4, 0.4) * length), np.full(3, 0.6))
    glass = b.material("plain", 1.0, np.array([0.3, 0.4, 0.5]), gloss=0.8)
    frame = b.material("plain", 1.0, np.full(3, rng.uniform(0.4, 1.1)))
    for wall in range(3):
        reach = length / 2 if wall < 2 else width / 2
        step = rng.uniform(2.0, 3.5)
        for level in np.arange(1.6, height - 1.2, 3.0):
            for along in np.arange(-reach + 1.5, reach - 1.0, step):
                furniture.on_wall(b, wall, along, level, (1.2, 1.5), frame)
                furniture.on_wall(b, wall, along, level, (1.0, 1.3), glass)
                b.rows[-1][13 + (0 if wall < 2 else 2)] += 0.01
    for _ in range(int(rng.integers(2, 6))):
        furniture.tree(b, *_free_floor(b), rng.uniform(2, 6))
    for _ in range(int(rng.integers(0, 4))):
        furniture.car(b, *_free_floor(b), rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1))
    for _ in range(int(rng.integers(1, 5))):
        furniture.person(b, *_free_floor(b), rng.uniform(-np.pi, np.pi))
    for _ in range(int(rng.integers(2, 6))):
        x, y, z = _free_floor(b)
        b.box(x, y, z, rng.uniform(0.3, 1.6, 3), b.random_material(), rng.uniform(-np.pi, np.pi))


_LAYOUTS: dict[str, Callable[[SceneBuilder], None]] = {
    "office": _office,
    "living": _living,
    "corridor": _corridor,
    "desk": _desk,
    "bare": _bare,
    "clutter": _clutter,
    "tags": _tags,
    "hall": _hall,
    "people": _people,
    "attic": _attic,
    "yard": _yard,
}
SCENE_KINDS = tuple(_LAYOUTS)


def make_scene(
    kind: str, generator: torch.Generator, device: torch.device | str = "cpu", atlas: Atlas | None = None
) -> Scene:
    """A random scene.

    Args:
        kind: one of SCENE_KINDS.
        generator: on any device; one number is drawn from it.

    Raises:
        ConfigError: for an unknown kind.
    """
    if kind not in _LAYOUTS:
        raise ConfigError(f"no kind of scene '{kind}'; there are {', '.join(SCENE_KINDS)}")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    builder = SceneBuilder(np.random.default_rng(seed), atlas or default_atlas(str(device)))
    _LAYOUTS[kind](builder)
    return builder.finish(kind, device)

"""Things made of a few primitives each; all stand on height `y` (down is positive), turned about the vertical."""

import numpy as np

from slam.rendering.builder import SceneBuilder, random_rotation, yaw_matrix
from slam.rendering.primitives import BOX


def placed(x: float, z: float, yaw: float, dx: float, dz: float) -> tuple[float, float]:
    """World (x, z) of a point given in the turned frame of something standing at (x, z)."""
    c, s = np.cos(yaw), np.sin(yaw)
    return x + c * dx + s * dz, z - s * dx + c * dz


def table(b: SceneBuilder, x: float, y: float, z: float, size: tuple[float, float, float], yaw: float) -> float:
    """A table of (width, height, depth); returns the height of its top."""
    w, h, d = size
    rng = b.rng
    top = b.material(
        str(rng.choice(["wood", "plain", "clouds", "speckle"])), rng.uniform(0.5, 1.5), gloss=rng.choice([0, 0.3, 0.7])
    )
    b.box(x, y - h + 0.03, z, (w, 0.03, d), top, yaw)
    metal = b.material("plain", 1.0, np.full(3, rng.uniform(0.15, 0.9)), gloss=0.5)
    if rng.random() < 0.5:
        for sx in (-1, 1):
            for sz in (-1, 1):
                lx, lz = placed(x, z, yaw, sx * (w / 2 - 0.04), sz * (d / 2 - 0.04))
                b.rod((lx, y, lz), (lx, y - h + 0.03, lz), 0.022, metal)
    else:
        side = b.material(str(rng.choice(["wood", "plain"])), 0.8)
        for sx in (-1, 1):
            lx, lz = placed(x, z, yaw, sx * (w / 2 - 0.03), 0)
            b.box(lx, y, lz, (0.03, h - 0.03, d * 0.95), side, yaw)
        if rng.random() < 0.5:
            lx, lz = placed(x, z, yaw, w / 2 - 0.25, 0)
            drawers(b, lx, y, lz, (0.4, h - 0.06, d * 0.9), yaw, side)
    return y - h


def drawers(
    b: SceneBuilder, x: float, y: float, z: float, size: tuple[float, float, float], yaw: float, body: int | None = None
) -> None:
    """A block of drawers with handles on its -z side."""
    rng = b.rng
    w, h, d = size
    if body is None:
        body = b.material(str(rng.choice(["wood", "plain"])), 0.8, rng.uniform(0.4, 1.1, 3))
    b.box(x, y, z, size, body, yaw)
    handle = b.material("plain", 1.0, np.full(3, rng.uniform(0.3, 1.1)), gloss=0.8)
    n = max(2, int(h / 0.25))
    for i in range(n):
        hy = y - h * (i + 0.6) / n
        a = placed(x, z, yaw, -0.2 * w, -d / 2 - 0.02)
        c = placed(x, z, yaw, 0.2 * w, -d / 2 - 0.02)
        b.rod((a[0], hy, a[1]), (c[0], hy, c[1]), 0.008, handle)
        fx, fz = placed(x, z, yaw, 0, -d / 2)
        b.box(fx, y - h * (i + 0.04) / n, fz, (w * 0.96, h * 0.92 / n, 0.012), body, yaw)


def shelf(b: SceneBuilder, x: float, y: float, z: float, size: tuple[float, float, float], yaw: float) -> None:
    """An open shelf with boards, filled with books and boxes, open towards -z."""
    rng = b.rng
    w, h, d = size
    board = b.material(str(rng.choice(["wood", "plain"])), 0.9, np.full(3, rng.uniform(0.5, 1.1)))
    bx, bz = placed(x, z, yaw, 0, d / 2 - 0.01)
    b.box(bx, y, bz, (w, h, 0.02), board, yaw)
    for sx in (-1, 1):
        sxx, szz = placed(x, z, yaw, sx * (w / 2 - 0.01), 0)
        b.box(sxx, y, szz, (0.02, h, d), board, yaw)
    n = max(2, int(h / 0.38))
    for i in range(n):
        level = y - h * i / n - 0.02
        b.box(x, level + 0.02, z, (w, 0.02, d), board, yaw)
        room = h / n - 0.06
        left = -w / 2 + 0.03
        while left < w / 2 - 0.15:
            width = min(rng.uniform(0.12, 0.5), w / 2 - 0.03 - left)
            ox, oz = placed(x, z, yaw, left + width / 2, rng.uniform(-0.08, 0.02))
            kind = rng.random()
            if kind < 0.55:
                books = b.material("books", 0.0, rng.uniform(0.6, 1.1, 3))
                cover = b.material("text", 0.3, rng.uniform(0.5, 1.0, 3))
                b.box(ox, level, oz, (width, room * rng.uniform(0.7, 0.95), 0.2), [cover] * 4 + [books] * 2, yaw)
            elif kind < 0.8:
                b.box(ox, level, oz, (width * 0.9, room * rng.uniform(0.3, 0.8), 0.2), b.random_material(), yaw)
            left += width + rng.uniform(0.0, 0.1)
    b.box(x, y - h, z, (w, 0.02, d), board, yaw)


def monitor(b: SceneBuilder, x: float, y: float, z: float, yaw: float) -> None:
    """A screen on a foot, facing -z."""
    rng = b.rng
    w = rng.uniform(0.4, 0.65)
    h = w * rng.uniform(0.55, 0.65)
    dark = b.material("plain", 1.0, np.full(3, rng.uniform(0.05, 0.25)), gloss=0.6)
    face = b.material("screen", 0.0, gloss=0.25, emission=rng.uniform(0.2, 1.2))
    lift = rng.uniform(0.06, 0.15)
    b.box(x, y, z, (0.22, 0.015, 0.16), dark, yaw)
    b.box(*_offset(x, y, z, yaw, 0.03), (0.06, lift + 0.1, 0.02), dark, yaw)
    b.box(x, y - lift, z, (w, h, 0.03), [dark] * 4 + [face, dark], yaw)


def _offset(x: float, y: float, z: float, yaw: float, dz: float) -> tuple[float, float, float]:
    ox, oz = placed(x, z, yaw, 0, dz)
    return ox, y, oz


def chair(b: SceneBuilder, x: float, y: float, z: float, yaw: float) -> None:
    """A seat, a back, a leg or four."""
    rng = b.rng
    cloth = b.material(str(rng.choice(["weave", "carpet", "plain", "wood", "speckle"])), 0.4, rng.uniform(0.3, 1.1, 3))
    metal = b.material("plain", 1.0, np.full(3, rng.uniform(0.1, 0.8)), gloss=0.7)
    h = rng.uniform(0.42, 0.5)
    b.box(x, y - h, z, (0.45, 0.05, 0.45), cloth, yaw)
    bx, bz = placed(x, z, yaw, 0, 0.22)
    b.box(bx, y - h - rng.uniform(0.05, 0.2), bz, (0.42, 0.45, 0.04), cloth, yaw)
    if rng.random() < 0.5:
        b.rod((x, y - 0.06, z), (x, y - h, z), 0.03, metal)
        for k in range(5):
            a = yaw + 2 * np.pi * k / 5
            b.rod((x, y - 0.08, z), (x + 0.28 * np.cos(a), y - 0.03, z + 0.28 * np.sin(a)), 0.018, metal)
    else:
        for sx in (-0.2, 0.2):
            for sz in (-0.2, 0.2):
                lx, lz = placed(x, z, yaw, sx, sz)
                b.rod((lx, y, lz), (lx, y - h, lz), 0.015, metal)
        for sx in (-0.19, 0.19):
            lx, lz = placed(x, z, yaw, sx, 0.22)
            b.rod((lx, y - h, lz), (lx, y - h - 0.3, lz), 0.012, metal)


def sofa(b: SceneBuilder, x: float, y: float, z: float, yaw: float) -> None:
    """Seat, back, arms and cushions."""
    rng = b.rng
    w = rng.uniform(1.4, 2.1)
    cloth = b.material(
        str(rng.choice(["weave", "clouds", "stripes", "carpet"])), rng.uniform(0.2, 0.6), rng.uniform(0.4, 1.1, 3), 0.6
    )
    b.box(x, y, z, (w, 0.42, 0.85), cloth, yaw)
    bx, bz = placed(x, z, yaw, 0, 0.36)
    b.box(bx, y, bz, (w, 0.85, 0.2), cloth, yaw)
    for sx in (-1, 1):
        ax, az = placed(x, z, yaw, sx * (w / 2 + 0.08), 0)
        b.box(ax, y, az, (0.18, 0.6, 0.9), cloth, yaw)
    for _ in range(int(rng.integers(1, 4))):
        cx, cz = placed(x, z, yaw, rng.uniform(-0.4, 0.4) * w, 0.15)
        tilt = (
            yaw_matrix(yaw + rng.uniform(-0.4, 0.4)) @ random_rotation(rng) if rng.random() < 0.2 else yaw_matrix(yaw)
        )
        b.ellipsoid((cx, y - 0.56, cz), (0.22, 0.2, 0.11), b.random_material(), tilt)


def plant(b: SceneBuilder, x: float, y: float, z: float, scale: float = 1.0) -> None:
    """A pot, a stem, leaves."""
    rng = b.rng
    pot = b.random_material()
    r, h = 0.14 * scale, 0.26 * scale
    b.cylinder(x, y, z, r, h, pot)
    leaf = b.material("foliage", 0.25 * scale)
    top = np.array([x, y - h - rng.uniform(0.15, 0.6) * scale, z])
    b.rod((x, y - h, z), top, 0.012 * scale, leaf)
    for _ in range(int(rng.integers(5, 11))):
        offset = rng.normal(0, 0.13, 3) * scale
        half = np.array([0.13, 0.015, 0.06]) * scale * rng.uniform(0.7, 1.5)
        b.ellipsoid(top + offset, half, leaf, random_rotation(rng))


def lamp(b: SceneBuilder, x: float, y: float, z: float, height: float) -> None:
    """A floor or desk lamp."""
    metal = b.material("plain", 1.0, np.full(3, b.rng.uniform(0.1, 0.9)), gloss=0.6)
    shade = b.material("plain", 1.0, (1.0, 0.93, 0.8), emission=1.0)
    b.cylinder(x, y, z, 0.1 * height, 0.02, metal)
    b.rod((x, y, z), (x, y - height, z), 0.012, metal)
    b.cylinder(x, y - height + 0.02, z, 0.13 * height + 0.03, 0.17 * height, shade)


def small_thing(b: SceneBuilder, x: float, y: float, z: float, size: float) -> None:
    """Something of about `size` metres lying on height y: box, book, ball, mug, bottle, paper."""
    rng = b.rng
    yaw = rng.uniform(-np.pi, np.pi)
    pick = rng.random()
    if pick < 0.22:
        b.box(x, y, z, size * rng.uniform(0.4, 1.1, 3), b.random_material(), yaw)
    elif pick < 0.4:
        cover = b.material(str(rng.choice(["poster", "painting", "text"])), 0.0, rng.uniform(0.5, 1.1, 3))
        for k in range(int(rng.integers(1, 4))):
            t = 0.12 * size
            b.box(x, y - k * t, z, (size, t, 0.75 * size), [cover] * 6, yaw + rng.normal(0, 0.15))
    elif pick < 0.5:
        b.ellipsoid((x, y - size / 2, z), np.full(3, size / 2), b.random_material())
    elif pick < 0.7:
        b.cylinder(x, y, z, 0.4 * size, size * rng.uniform(0.6, 1.2), b.random_material())
    elif pick < 0.8:
        glass = b.material(str(rng.choice(["painting", "plain", "poster"])), 0.0, rng.uniform(0.3, 1.1, 3), gloss=0.9)
        b.cylinder(x, y, z, 0.25 * size, 1.2 * size, glass)
        b.cylinder(x, y - 1.2 * size, z, 0.1 * size, 0.5 * size, glass)
    else:
        page = b.material("text", 0.0, np.full(3, rng.uniform(0.8, 1.1)))
        for _ in range(int(rng.integers(1, 4))):
            px, pz = x + rng.normal(0, 0.3 * size), z + rng.normal(0, 0.3 * size)
            b.box(px, y, pz, (1.4 * size, 0.004 * rng.uniform(0.5, 2), 2 * size), page, yaw + rng.normal(0, 0.3))


def keyboard(b: SceneBuilder, x: float, y: float, z: float, yaw: float) -> None:
    """A keyboard and a mouse."""
    keys, dark = b.material("keyboard", 0.0), b.material("plain", 1.0, np.full(3, b.rng.uniform(0.1, 0.8)))
    b.box(x, y, z, (0.44, 0.025, 0.15), [dark] * 2 + [keys] * 2 + [dark] * 2, yaw)
    mx, mz = placed(x, z, yaw, 0.32, 0.0)
    b.ellipsoid((mx, y - 0.01, mz), (0.03, 0.02, 0.05), dark, yaw_matrix(yaw))


def on_wall(b: SceneBuilder, wall: int, along: float, height: float, size: tuple[float, float], material: int) -> None:
    """A thin panel (width, height) on wall 0 -x, 1 +x, 2 -z, 3 +z, its middle `height` above the floor."""
    centre, half = b.rows[0][10:13], b.rows[0][13:16]
    thick = 0.02
    if wall < 2:
        position = [centre[0] + (-1, 1)[wall] * (half[0] - thick / 2), -height, centre[2] + along]
        extent = [thick / 2, size[1] / 2, size[0] / 2]
    else:
        position = [centre[0] + along, -height, centre[2] + (-1, 1)[wall - 2] * (half[2] - thick / 2)]
        extent = [size[0] / 2, size[1] / 2, thick / 2]
    b.add(BOX, position, extent, np.eye(3), material)


# of a standing person's primitives, those that swing as one about the upper end of their first: leg, arm, leg, arm
LIMBS = ((0,), (1, 2), (3,), (4, 5))


def person(b: SceneBuilder, x: float, y: float, z: float, yaw: float, is_sitting: bool = False) -> None:
    """Somebody who stands, or sits on something 0.45 m high, facing -z."""
    rng = b.rng
    size = rng.uniform(0.9, 1.12)
    skin = b.material("plain", 1.0, rng.uniform(0.35, 1.0) * np.array([1.0, 0.78, 0.65]))
    hair = b.material("speckle", 0.2, rng.uniform(0.1, 0.7) * np.array([1.0, 0.8, 0.6]), 0.5)
    top, trousers = b.random_material(), b.random_material()
    hip, leg = (0.5 if is_sitting else 0.88 * size), 0.075 * size

    def at(dx: float, height: float, dz: float) -> tuple[float, float, float]:
        px, pz = placed(x, z, yaw, dx * size, dz * size)
        return px, y - height, pz

    for side in (-1, 1):
        if is_sitting:
            b.rod(at(0.1 * side, hip, 0), at(0.12 * side, hip, -0.45), leg, trousers)
            b.rod(at(0.12 * side, hip, -0.45), at(0.12 * side, 0, -0.45), leg, trousers)
        else:
            b.rod(at(0.09 * side, hip, 0), at(0.13 * side, 0, rng.uniform(-0.2, 0.2)), leg, trousers)
        shoulder = at(0.21 * side, hip + 0.5 * size, 0)
        elbow = at((0.27 + rng.uniform(0, 0.1)) * side, hip + rng.uniform(0.18, 0.3), rng.uniform(-0.15, 0.05))
        b.rod(shoulder, elbow, 0.05 * size, top)
        b.rod(elbow, at(0.25 * side, hip + rng.uniform(-0.05, 0.45), rng.uniform(-0.4, -0.1)), 0.04 * size, skin)
    half = np.array([0.22, 0.34, 0.14]) * size
    b.ellipsoid(at(0, hip + 0.28 * size, 0), half, top, yaw_matrix(yaw))
    head = np.array([0.085, 0.125, 0.1]) * size
    b.ellipsoid(at(0, hip + 0.74 * size, -0.02), head, skin, yaw_matrix(yaw))
    b.ellipsoid(at(0, hip + 0.79 * size, 0.01), head * (1.05, 0.75, 1.02), hair, yaw_matrix(yaw))


def tree(b: SceneBuilder, x: float, y: float, z: float, height: float) -> None:
    """A trunk and a crown of a few leafy lumps."""
    rng = b.rng
    bark = b.material("wood", 0.6, rng.uniform(0.4, 0.8, 3))
    leaves = b.material("foliage", rng.uniform(0.5, 1.2), (rng.uniform(0.5, 1.0), 1.0, rng.uniform(0.4, 0.8)))
    b.rod((x, y, z), (x + rng.normal(0, 0.1), y - 0.7 * height, z), 0.03 * height, bark)
    for _ in range(int(rng.integers(3, 7))):
        offset = rng.normal(0, 0.12, 3) * height
        b.ellipsoid((x + offset[0], y - 0.75 * height + offset[1], z + offset[2]),
                    rng.uniform(0.12, 0.24, 3) * height, leaves, random_rotation(rng))  # fmt: skip


def car(b: SceneBuilder, x: float, y: float, z: float, yaw: float) -> None:
    """A body, a cabin with windows, four wheels."""
    rng = b.rng
    paint = b.material("plain", 1.0, rng.uniform(0.1, 1.1, 3), gloss=0.8)
    glass = b.material("plain", 1.0, np.full(3, rng.uniform(0.1, 0.5)), gloss=0.9)
    tyre = b.material("plain", 1.0, np.full(3, 0.15))
    length, width = rng.uniform(3.6, 4.8), rng.uniform(1.6, 1.9)
    b.box(x, y - 0.3, z, (width, 0.55, length), paint, yaw)
    cx, cz = placed(x, z, yaw, 0, rng.uniform(-0.3, 0.5))
    b.box(cx, y - 0.85, cz, (0.88 * width, 0.55, 0.5 * length), [glass] * 2 + [paint] * 2 + [glass] * 2, yaw)
    for side in (-1, 1):
        for end in (-0.32, 0.32):
            a = placed(x, z, yaw, side * (width / 2 - 0.2), end * length)
            c = placed(x, z, yaw, side * (width / 2 + 0.02), end * length)
            b.rod((a[0], y - 0.32, a[1]), (c[0], y - 0.32, c[1]), 0.32, tyre)

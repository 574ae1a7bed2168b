"""Procedural patterns, (S, S, 3) float32 in [0, 1], that repeat without a seam. Pure numpy, drawn from a generator."""

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Array = np.ndarray


def octave_noise(rng: Rng, size: int, exponent: float = 1.0, stretch: float = 1.0) -> Array:
    """(S, S) noise of zero mean and unit variance whose amplitude falls as frequency^-exponent; periodic."""
    fy = np.fft.fftfreq(size)[:, None] * stretch
    fx = np.fft.rfftfreq(size)[None]
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * radius**-exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return (noise / (noise.std() + 1e-9)).astype(np.float32)


def _colour(rng: Rng, saturation: float = 0.25) -> Array:
    gray = rng.uniform(0.15, 0.95)
    return np.clip(gray + saturation * rng.uniform(-0.5, 0.5, 3), 0.02, 1.0).astype(np.float32)


def _two_tone(value: Array, low: Array, high: Array) -> Array:
    w = np.clip(value, 0, 1)[..., None]
    return low * (1 - w) + high * w


def plain(rng: Rng, size: int) -> Array:
    """Painted wall: almost nothing, a little grain and stains."""
    value = 0.8 + 0.006 * octave_noise(rng, size, 0.3) + 0.02 * octave_noise(rng, size, 1.8)
    return np.repeat(value[..., None], 3, -1)


def plaster(rng: Rng, size: int) -> Array:
    """Rough wall paper or ceiling tile."""
    value = 0.75 + rng.uniform(0.015, 0.05) * octave_noise(rng, size, 0.35) + 0.02 * octave_noise(rng, size, 1.5)
    return np.repeat(value[..., None], 3, -1)


def clouds(rng: Rng, size: int) -> Array:
    """Octave noise between two colours: stone, marble, stains."""
    value = 0.5 + 0.25 * octave_noise(rng, size, rng.uniform(0.8, 1.5))
    if rng.random() < 0.4:
        value = np.abs(2 * value - 1)  # veins
    return _two_tone(value, _colour(rng), _colour(rng))


def carpet(rng: Rng, size: int) -> Array:
    """High-frequency fibre noise with slow colour changes."""
    value = 0.5 + 0.13 * octave_noise(rng, size, 0.25) + 0.06 * octave_noise(rng, size, 1.2)
    return _two_tone(value, _colour(rng, 0.3) * 0.6, _colour(rng, 0.3))


def _discs(rng: Rng, size: int, count: int, exponent: float, square: float) -> tuple[Array, Array]:
    """Dead leaves: label map of shapes with power-law radii, later shapes on top, wrapped; and a shading ramp."""
    label = np.zeros((size, size), np.int32)
    ramp = np.zeros((size, size), np.float32)
    low, high = 1.5, 0.28 * size
    u = rng.random(count)
    radii = np.sort(
        (low ** (1 - exponent) + u * (high ** (1 - exponent) - low ** (1 - exponent))) ** (1 / (1 - exponent))
    )
    for i, r in enumerate(radii[::-1]):
        cx, cy = rng.integers(0, size, 2)
        n = int(r) + 1
        grid = np.arange(-n, n + 1)
        x, y = grid[None], grid[:, None]
        a = rng.uniform(0, np.pi)
        xr, yr = np.cos(a) * x + np.sin(a) * y, -np.sin(a) * x + np.cos(a) * y
        aspect = rng.uniform(0.3, 1)
        if rng.random() < square:
            inside = (np.abs(xr) < 0.8 * r) & (np.abs(yr) < 0.8 * r * aspect)
        else:
            inside = xr**2 + (yr / aspect) ** 2 < r * r
        iy, ix = np.nonzero(inside)
        rows, cols = (cy + grid[iy]) % size, (cx + grid[ix]) % size
        label[rows, cols] = i + 1
        ramp[rows, cols] = (xr[iy, ix] / r).astype(np.float32)
    return label, ramp


def dead_leaves(rng: Rng, size: int) -> Array:
    """Overlapping shaded shapes of all sizes: the statistics of natural images."""
    count = int(rng.uniform(250, 700))
    label, ramp = _discs(rng, size, count, rng.uniform(2.0, 2.8), rng.uniform(0, 0.8))
    spread, base = rng.uniform(0.2, 0.7), _colour(rng)
    tone = rng.random((count + 1, 1)) - 0.5
    hue = rng.random((count + 1, 3)) - 0.5
    colours = np.clip(base + spread * (tone + 0.5 * hue), 0.03, 1).astype(np.float32)
    image = colours[label] * (1 + 0.25 * ramp[..., None])
    return image + 0.03 * octave_noise(rng, size, 0.6)[..., None]


def foliage(rng: Rng, size: int) -> Array:
    """Dead leaves in greens."""
    image = dead_leaves(rng, size).mean(-1, keepdims=True)
    return image * np.array([0.6, 0.8, 0.5], np.float32) * rng.uniform(0.6, 1.1)


def wood(rng: Rng, size: int) -> Array:
    """Planks with grain along x."""
    warp = octave_noise(rng, size, 1.4, stretch=4.0)
    grain = 0.5 + 0.18 * octave_noise(rng, size, 0.6, stretch=0.08).T + 0.15 * np.sin(6 * warp)
    planks = int(rng.choice([1, 4, 8]))
    tint = rng.uniform(0.75, 1.1, planks).astype(np.float32)
    row = np.arange(size) * planks // size
    grain = np.roll(grain, int(rng.integers(size)), 1) * tint[row][:, None]
    dark = np.array([0.35, 0.22, 0.12], np.float32) * rng.uniform(0.6, 1.3)
    light = np.array([0.85, 0.65, 0.42], np.float32) * rng.uniform(0.7, 1.1)
    image = _two_tone(grain, dark, light)
    if planks > 1:
        image[np.diff(row, prepend=row[-1]) != 0] *= 0.5
    return image


def bricks(rng: Rng, size: int) -> Array:
    """Bricks or wall tiles with mortar, staggered or not."""
    rows, cols = int(rng.choice([4, 8, 16])), int(rng.choice([2, 4, 8]))
    y, x = np.mgrid[:size, :size]
    row = y * rows // size
    shifted = (x + (row % 2) * (size // (2 * cols)) * int(rng.random() < 0.6)) % size
    col = shifted * cols // size
    gap = rng.uniform(1.0, 3.0)
    mortar = ((y * rows % size) / rows < gap) | ((shifted * cols % size) / cols < gap)
    shade = rng.uniform(0.7, 1.1, (rows, cols)).astype(np.float32)[row, col]
    image = _colour(rng) * shade[..., None] * (1 + 0.06 * octave_noise(rng, size, 0.7)[..., None])
    image[mortar] = _colour(rng, 0.1) * 0.8
    return image


def stripes(rng: Rng, size: int) -> Array:
    """Repeated lines or a grid: blinds, textiles, graph paper, tiles."""
    n = int(rng.choice([4, 8, 16, 32]))
    phase = (np.arange(size) * n / size) % 1
    line = (phase < rng.uniform(0.1, 0.5)).astype(np.float32)
    value = np.broadcast_to(line[:, None], (size, size)).copy()
    if rng.random() < 0.6:
        value = np.maximum(value, line[None])
    value = (0.9 * value + 0.03 * octave_noise(rng, size, 0.8)).astype(np.float32)
    return _two_tone(value, _colour(rng), _colour(rng))


def weave(rng: Rng, size: int) -> Array:
    """Cloth."""
    n = int(rng.choice([16, 32, 64]))
    k = 2 * np.pi * n * np.arange(size) / size
    threads = np.sin(k)[:, None] * np.sin(k)[None]
    value: Array = 0.5 + 0.2 * threads + 0.08 * octave_noise(rng, size, 0.6) + 0.1 * octave_noise(rng, size, 1.6)
    return _two_tone(value, _colour(rng, 0.4) * 0.6, _colour(rng, 0.4))


def checker(rng: Rng, size: int) -> Array:
    """Chessboard."""
    n = 2 * int(rng.integers(2, 7))
    cell = np.arange(size) * n // size
    value = ((cell[:, None] + cell[None]) % 2).astype(np.float32)
    return _two_tone(value, np.full(3, 0.05, np.float32), np.full(3, 0.92, np.float32))


def tag(rng: Rng, size: int) -> Array:
    """Fiducial-like square of random bits in a black frame on white paper."""
    n = int(rng.integers(4, 8))
    bits = np.zeros((n + 4, n + 4), np.float32)
    bits[2:-2, 2:-2] = rng.random((n, n)) < 0.5
    bits[0], bits[-1], bits[:, 0], bits[:, -1] = 1, 1, 1, 1
    cell = np.arange(size) * (n + 4) // size
    return np.repeat((0.05 + 0.88 * bits[cell][:, cell])[..., None], 3, -1)


def _write_rows(rng: Rng, image: Array, box: tuple[int, int, int, int], ink: Array, pitch: int) -> None:
    """Fill a box (left, top, right, bottom) of the image with rows of words made of glyph-like strokes."""
    left, top, right, bottom = box
    for y in range(top, bottom - pitch, pitch):
        x, end = left, right - int(rng.uniform(0, 0.4) * (right - left))
        h = max(2, int(pitch * 0.6))
        while x < end - h:
            for _ in range(int(rng.integers(2, 9))):
                w = max(2, int(h * rng.uniform(0.4, 0.8)))
                if x + w >= end:
                    break
                glyph = rng.random((3, 3)) < 0.55
                rows, cols = np.arange(h) * 3 // h, np.arange(w) * 3 // w
                patch = image[y : y + h, x : x + w]
                patch[glyph[rows][:, cols][: patch.shape[0], : patch.shape[1]]] = ink
                x += w + max(1, h // 6)
            x += h // 2


def text(rng: Rng, size: int) -> Array:
    """A printed page."""
    image = np.full((size, size, 3), rng.uniform(0.8, 0.98), np.float32)
    margin = int(size * rng.uniform(0.05, 0.12))
    ink = (_colour(rng) * 0.3).astype(np.float32)
    top = margin
    if rng.random() < 0.6:
        _write_rows(rng, image, (margin, margin, size - margin, margin + size // 6), ink, size // 8)
        top = margin + size // 6
    _write_rows(rng, image, (margin, top, size - margin, size - margin), ink, int(rng.choice([7, 10, 14])))
    return image


def painting(rng: Rng, size: int) -> Array:
    """Something like a photograph: soft background, shapes in front."""
    sky, ground = _colour(rng, 0.45), _colour(rng, 0.45)
    horizon = rng.uniform(0.3, 0.7) * size + 0.04 * size * octave_noise(rng, size, 1.5)[0]
    mask = 1 / (1 + np.exp(-(np.arange(size)[:, None] - horizon) / 1.5))
    image = _two_tone(mask, sky, ground)
    image = image + 0.1 * octave_noise(rng, size, 1.3)[..., None] * mask[..., None]
    label, ramp = _discs(rng, size, 40, 2.0, 0.3)
    colours = rng.random((41, 3)).astype(np.float32)
    shapes = colours[label] * (1 + 0.4 * ramp[..., None])
    return np.where((label > 8)[..., None], shapes, image) + 0.02 * octave_noise(rng, size, 0.4)[..., None]


def poster(rng: Rng, size: int) -> Array:
    """Framed painting with a headline and some text."""
    image = np.broadcast_to(_colour(rng, 0.45), (size, size, 3)).copy()
    inset, split = size // 12, int(size * rng.uniform(0.5, 0.8))
    image[inset:split, inset:-inset] = np.clip(painting(rng, size), 0, 1)[inset:split, inset:-inset]
    ink = _colour(rng, 0.45)
    _write_rows(rng, image, (inset, split + 4, size - inset, split + 4 + size // 7), ink, size // 8)
    _write_rows(rng, image, (inset, split + size // 7, size - inset, size - inset // 2), ink, size // 22)
    border = max(2, size // 60)
    for edge in (np.s_[:border], np.s_[-border:], np.s_[:, :border], np.s_[:, -border:]):
        image[edge] = 0.1
    return image


def screen(rng: Rng, size: int) -> Array:
    """A monitor: windows with text and paintings, dark bezel."""
    dark = rng.random() < 0.5
    image = np.broadcast_to(_colour(rng, 0.4) * 0.6, (size, size, 3)).copy()
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.integers(8, size // 2, 2)
        w, h = rng.integers(size // 4, size // 2, 2)
        paper, ink = (0.12, 0.75) if dark else (0.92, 0.2)
        image[y : y + h, x : x + w] = paper
        image[y : y + size // 32, x : x + w] = _colour(rng, 0.4)
        if rng.random() < 0.3:
            image[y + size // 32 : y + h, x : x + w] = np.clip(painting(rng, size), 0, 1)[: h - size // 32, :w]
        else:
            box = (int(x) + 4, int(y) + size // 28, int(x + w) - 4, int(y + h))
            _write_rows(rng, image, box, np.clip(ink + 0.3 * (rng.random(3) - 0.5), 0, 1), int(rng.choice([6, 8, 11])))
    border = max(3, size // 40)
    for edge in (np.s_[:border], np.s_[-2 * border :], np.s_[:, :border], np.s_[:, -border:]):
        image[edge] = 0.06
    return image


def books(rng: Rng, size: int) -> Array:
    """A row of book spines."""
    image = np.full((size, size, 3), 0.08, np.float32)
    x = 0
    while x < size - 4:
        w = int(rng.integers(size // 24, size // 9))
        top = int(rng.uniform(0, 0.25) * size)
        colour = _colour(rng, 0.4)
        w = min(w, size - x)
        image[top:, x : x + w] = colour * np.linspace(1.1, 0.7, w, dtype=np.float32)[None, :, None]
        for y in range(top + size // 10, size - size // 10, max(5, size // 40)):
            if rng.random() < 0.65 and w > 6:
                image[y : y + 3, x + w // 4 : x + w - w // 4] = np.clip(colour + rng.choice([-0.5, 0.5]), 0, 1)
        image[:, x] *= 0.4
        x += w
    return image


def keyboard(rng: Rng, size: int) -> Array:
    """Rows of keys with small marks; also vents and button panels."""
    rows, cols = 5, int(rng.choice([10, 14]))
    y, x = np.mgrid[:size, :size] / size
    fy, fx = (y * rows) % 1, (x * cols) % 1
    key = (np.minimum(fx, 1 - fx) > 0.08) & (np.minimum(fy, 1 - fy) > 0.08)
    mark = key & (np.abs(fx - 0.4) < 0.13) & (np.abs(fy - 0.4) < 0.16) & (rng.random((size, size)) < 0.7)
    dark = rng.random() < 0.6
    value = np.where(key, 0.18 if dark else 0.85, 0.05 if dark else 0.55)
    value = np.where(mark, 0.8 if dark else 0.15, value)
    return np.repeat((value + 0.01 * octave_noise(rng, size, 0.3))[..., None], 3, -1)


def speckle(rng: Rng, size: int) -> Array:
    """Terrazzo: small chips on an even ground."""
    label, _ = _discs(rng, size, 500, 3.2, 0.5)
    colours = np.clip(_colour(rng) + 0.5 * (rng.random((501, 3)) - 0.5), 0, 1).astype(np.float32)
    ground = np.broadcast_to(_colour(rng, 0.2), (size, size, 3))
    return np.where((label > 120)[..., None], colours[label], ground) + 0.02 * octave_noise(rng, size, 0.5)[..., None]


# name: (pattern, how many variants the atlas holds)
PATTERNS: dict[str, tuple[Callable[[Rng, int], Array], int]] = {
    "plain": (plain, 2),
    "plaster": (plaster, 2),
    "clouds": (clouds, 4),
    "carpet": (carpet, 3),
    "dead_leaves": (dead_leaves, 6),
    "foliage": (foliage, 2),
    "wood": (wood, 5),
    "bricks": (bricks, 3),
    "stripes": (stripes, 3),
    "weave": (weave, 3),
    "checker": (checker, 1),
    "tag": (tag, 4),
    "text": (text, 4),
    "painting": (painting, 5),
    "poster": (poster, 5),
    "screen": (screen, 4),
    "books": (books, 4),
    "keyboard": (keyboard, 2),
    "speckle": (speckle, 2),
}

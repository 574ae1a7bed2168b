"""What the images of a recording have in common that is not the scene: their range, borders, and overlays.

All of it is judged on a few images spread over the recording, between which the scene has moved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

SAMPLES = 16
MIN_SAMPLES = 4
LOOKED_AT_PX = 800  # longer side; of larger images every second, third ... row and column is looked at
FULL_16_BIT = 0.5  # share of the range of 16 bits, from which on its upper 8 bits are enough
LOW_CONTRAST = 48.0  # gray levels of 8-bit images, below which they are stretched ...
MIN_RANGE = 4.0  # ... and below which there is nothing to see
MEAN_PX = 4  # side of the squares whose means show the range without the noise
NOISE_RANGE = 3.0  # range of such means over the mean step of the noise, about 1.2 where there is nothing else
RANGE_PERCENTILES = (0.5, 99.5)
RANGE_MARGIN = 0.1  # of the range, to both sides of it

BORDER_TOLERANCE = 6  # gray levels within which a border keeps its colour
MOVED_LEVELS = 20  # change of a pixel that is no noise
MIN_MOVED = 0.3  # share of the pixels inside that must have moved before anything is called a border
EDGE_LEVELS = 12  # step from a border to the image ...
MIN_EDGE = 0.6  # ... at this share of the pixels along it, in the median image
RING_PX = (2, 12)  # distance from a border at which the step is looked for: between lie the traces of compression
WHOLE = 0.98  # share of a row that makes the whole of it
MIN_BAR = 0.01  # of the side, for a bar to be cut off
MIN_AREA = 0.002  # of the image, for a region to be masked
MIN_LEFT = 0.2  # of each side, that cropping must leave

OVERLAY_WIDTH = 320  # pixels, at which overlays are looked for
EDGE_GRADIENT = 8.0  # gray levels per pixel, of an overlay ...
SCENE_GRADIENT = 3.0  # ... and of the scene
COHERENT = 0.92  # length of the mean gradient over the mean length: 1 of an edge that stays where it is
STILL_COHERENT = 0.75
STEADY_LEVELS = 8.0  # standard deviation over time of a pixel of an overlay ...
MIN_STEADY = 0.15  # ... of which this share of its edges is: others mix with the scene
MIN_ROUNDNESS = 0.03  # least over greatest eigenvalue of the gradients of an overlay
MAX_STILL = 0.35  # share of all edges that stay, from which on the camera does
CLOSING = 9  # pixels between the letters of an overlay
MIN_OVERLAY_EDGES = 12  # pixels
ROUND_PX = (12, 24, 48)  # how far round an overlay edges are looked for, until there are some
MIN_MOVING_ROUND = 0.7  # share of the edges round an overlay that must move ...
OPAQUE, MIN_MOVING_ROUND_OPAQUE = 0.6, 0.5  # ... and round one of which so much is steady: far edges move little


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found; None where images need nothing done."""

    levels: tuple[float, float] | None = None  # values that should become black and white
    crop: tuple[int, int, int, int] | None = None  # left, top, width, height within constant bars
    border: np.ndarray | None = None  # (H, W) bool of the cropped image: constant corners or frames
    overlay: np.ndarray | None = None  # (H, W) bool of the cropped image: does not move with the scene


def survey(images: Sequence[np.ndarray]) -> Survey:
    """Look at images (H, W, 3) of one size, uint8 or uint16, spread over a recording."""
    if not images:
        return Survey()
    step = math.ceil(max(images[0].shape[:2]) / LOOKED_AT_PX)
    if step > 1:
        return _enlarged(survey([image[::step, ::step] for image in images]), step, images[0].shape)
    same = [image for image in images if image.shape == images[0].shape and image.dtype == images[0].dtype]
    levels = found_levels(same)
    scale = levels or ((0.0, 255.0) if same[0].dtype == np.uint8 else (0.0, 65535.0))
    grays = np.stack([_gray(image, scale) for image in same])
    if len(grays) < MIN_SAMPLES:
        return Survey(levels)
    region = constant_border(grays)
    crop = bars(region)
    if crop is not None:
        left, top, width, height = crop
        grays = grays[:, top : top + height, left : left + width]
        region = region[top : top + height, left : left + width]
        levels = found_levels([image[top : top + height, left : left + width] for image in same])
    border = cv2.dilate(region.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    overlay = static_overlay(grays, border)
    return Survey(levels, crop, *(m if m.mean() > MIN_AREA else None for m in (border & (region.mean() > 0), overlay)))


def _enlarged(found: Survey, step: int, shape: tuple[int, ...]) -> Survey:
    """What was found in every `step`-th row and column of images of a shape."""
    H, W = shape[:2]
    crop = found.crop
    if crop is not None:
        left, top = step * crop[0], step * crop[1]
        right, bottom = (step * (crop[n] + crop[n + 2]) for n in (0, 1))
        right = W if right >= W else right - step + 1  # a bar may begin just after the last row that was looked at
        bottom = H if bottom >= H else bottom - step + 1
        crop = left, top, right - left, bottom - top
        W, H = crop[2:]
    masks = (
        None if m is None else cv2.resize(m.astype(np.uint8), (W, H), interpolation=cv2.INTER_NEAREST) > 0
        for m in (found.border, found.overlay)
    )
    return Survey(found.levels, crop, *masks)


def found_levels(images: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The values that should become black and white, where images use but a small part of their range."""
    ends = [e for e in map(_range, images) if e is not None]
    if not ends:
        return None
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    enough = LOW_CONTRAST if images[0].dtype == np.uint8 else FULL_16_BIT * 65535
    if high - low >= enough:
        return None
    margin = RANGE_MARGIN * (high - low)
    return max(float(low - margin), 0.0), float(high + margin)


def _range(image: np.ndarray) -> tuple[float, float] | None:
    """Lowest and highest value of an image without its noise; None if there is nothing to see."""
    h, w = (max(side // MEAN_PX, 1) for side in image.shape[:2])
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    means = cv2.resize(gray.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    low, high = np.percentile(means, RANGE_PERCENTILES)
    noise = np.abs(np.diff(gray[::2].astype(np.float32), axis=1)).mean()
    return (float(low), float(high)) if high - low >= max(MIN_RANGE, NOISE_RANGE * noise) else None


def constant_border(grays: np.ndarray) -> np.ndarray:
    """(H, W) bool: regions at the border of images (N, H, W) uint8 that keep one colour while the rest moves."""
    spread = grays.max(0) - grays.min(0)
    constant = spread <= BORDER_TOLERANCE
    nothing = np.zeros(constant.shape, bool)
    if constant.all() or (spread[~constant] > MOVED_LEVELS).mean() < MIN_MOVED:
        return nothing
    flat = _flat(constant, np.median(grays, 0).astype(np.uint8))
    found = straight_bars(flat, grays)
    _, labels = cv2.connectedComponents(flat.astype(np.uint8), connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    for label in np.unique(edge[edge > 0]):
        region = labels == label
        if region.mean() > MIN_AREA and _is_sharp(region, grays):
            found |= region
    return found


def straight_bars(flat: np.ndarray, grays: np.ndarray) -> np.ndarray:
    """(H, W) bool: whole rows and columns at the border that are flat, beside which images (N, H, W) move and mostly
    have another colour; it may be close to the bar's."""
    found = np.zeros(flat.shape, bool)
    for turn in range(4):
        f, g = np.rot90(flat, turn), np.rot90(grays, turn, (1, 2))
        bar = int(np.argmax(np.append(f.mean(1) < WHOLE, True)))
        if not _cut(bar, len(f)) or bar == len(f):
            continue
        beside = g[:, bar + RING_PX[0] : bar + RING_PX[1]].astype(np.int16)
        moved = (beside.max(0) - beside.min(0) > MOVED_LEVELS).any(0)
        differs = (np.median(np.abs(beside - np.int16(np.median(g[:, :bar]))), 0) > BORDER_TOLERANCE).any(0)
        if (moved & differs).mean() >= MIN_EDGE:
            np.rot90(found, turn)[:bar] = True
    return found


def _flat(constant: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """Constant pixels (H, W) whose neighbours have the same colour."""
    square = np.ones((3, 3), np.uint8)
    step = cv2.subtract(cv2.dilate(gray, square), cv2.erode(gray, square))
    calm = cv2.dilate((step <= BORDER_TOLERANCE).astype(np.uint8), square) > 0
    return constant & calm


def _is_sharp(region: np.ndarray, grays: np.ndarray) -> bool:
    """True if there is a step at the edge of a region in most of the images: a dark wall's edge moves."""
    near, far = (cv2.dilate(region.astype(np.uint8), _disc(radius)) > 0 for radius in RING_PX)
    ring = far & ~near
    if not ring.any():
        return False
    step = np.abs(grays[:, ring].astype(np.int16) - np.int16(np.median(grays[:, region])))
    return bool((np.median(step, 0) > EDGE_LEVELS).mean() >= MIN_EDGE)


def _disc(radius: int) -> np.ndarray:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def bars(region: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of what whole rows and columns of a region (H, W) bool leave; None if nothing is to
    be cut off."""
    H, W = region.shape
    rows, columns = (np.flatnonzero(region.mean(axis) < WHOLE) for axis in (1, 0))
    if len(rows) < MIN_LEFT * H or len(columns) < MIN_LEFT * W:
        return None
    top, bottom = _cut(int(rows[0]), H), _cut(H - 1 - int(rows[-1]), H)
    left, right = _cut(int(columns[0]), W), _cut(W - 1 - int(columns[-1]), W)
    if not (top or bottom or left or right):
        return None
    return left, top, W - left - right, H - top - bottom


def _cut(bar: int, side: int) -> int:
    """What is cut off for a bar, pixels: it and the row that it shares with the image."""
    return bar + 1 if bar >= MIN_BAR * side and bar >= 2 else 0


def static_overlay(grays: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """(H, W) bool: what stays where it is in images (N, H, W) uint8 while the scene moves; nothing where too much does.

    An overlay is known by its edges: their gradient is the same in all images, and that of the scene round them is not.
    """
    N, H, W = grays.shape
    scale = min(1.0, OVERLAY_WIDTH / W)
    size = (max(round(scale * W), 1), max(round(scale * H), 1))
    small = np.stack([cv2.resize(gray, size, interpolation=cv2.INTER_AREA) for gray in grays]).astype(np.float32)
    hidden = cv2.resize(ignored.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    gradients = np.stack(
        [np.stack([cv2.Sobel(s, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0)], -1) for s in small]
    )
    mean = gradients.mean(0)
    strength = np.linalg.norm(gradients, axis=-1).mean(0)
    coherence = np.linalg.norm(mean, axis=-1) / np.maximum(strength, 1e-6)
    inside = ~(cv2.dilate(hidden.astype(np.uint8), _disc(3)) > 0)
    edge = (strength > SCENE_GRADIENT) & inside
    steady = small.std(0) < STEADY_LEVELS
    nothing = np.zeros((H, W), bool)
    if edge.sum() < MIN_OVERLAY_EDGES or (coherence[edge] > STILL_COHERENT).mean() > MAX_STILL:
        return nothing
    seeds = (strength > EDGE_GRADIENT) & (coherence > COHERENT) & inside
    moving = edge & (coherence < STILL_COHERENT)
    _, labels = cv2.connectedComponents(cv2.morphologyEx(seeds.astype(np.uint8), cv2.MORPH_CLOSE, _disc(CLOSING // 2)))
    found = np.zeros(seeds.shape, np.uint8)
    for label in range(1, int(labels.max()) + 1):
        blob = (labels == label).astype(np.uint8)
        own = seeds & (blob > 0)
        if own.sum() < MIN_OVERLAY_EDGES or steady[own].mean() < MIN_STEADY or _is_straight(mean[own]):
            continue
        is_opaque = steady[own].mean() >= OPAQUE
        if _moves_round(blob, edge, moving, seeds, MIN_MOVING_ROUND_OPAQUE if is_opaque else MIN_MOVING_ROUND):
            found |= blob
            if is_opaque:  # what lies between its edges belongs to it
                x, y, w, h = cv2.boundingRect(blob)
                found[y : y + h, x : x + w] |= steady[y : y + h, x : x + w]
    if not found.any():
        return nothing
    found = cv2.dilate(_to_border(found, steady), _disc(2))
    return cv2.resize(found, (W, H), interpolation=cv2.INTER_NEAREST) > 0


def _is_straight(gradients: np.ndarray) -> bool:
    """True if gradients (n, 2) have one direction only: the camera may move along such an edge of the scene."""
    low, high = np.linalg.eigvalsh(gradients.T @ gradients)
    return bool(low < MIN_ROUNDNESS * high)


def _moves_round(blob: np.ndarray, edge: np.ndarray, moving: np.ndarray, seeds: np.ndarray, needed: float) -> bool:
    """True if the needed share of the edges close to a blob moves."""
    near = cv2.dilate(blob, _disc(2)) > 0
    for radius in ROUND_PX:
        ring = (cv2.dilate(blob, _disc(radius)) > 0) & ~near & edge & ~seeds
        if ring.sum() >= MIN_OVERLAY_EDGES:
            return bool(moving[ring].mean() >= needed)
    return False


def _to_border(found: np.ndarray, steady: np.ndarray) -> np.ndarray:
    """An overlay (h, w) uint8 and what lies steady between it and the border of the image."""
    filled = found.copy()
    for turn in range(4):
        a, s = np.rot90(found, turn), np.rot90(steady, turn)
        calm = np.logical_and.accumulate(s | (a > 0), axis=0)  # from the top down to here, everything is steady
        reach = np.maximum.accumulate((calm & (a > 0))[::-1], axis=0)[::-1]
        filled |= np.rot90((calm & reach).astype(np.uint8), -turn)
    return filled


def _gray(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """(H, W) uint8 with `levels` as black and white."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if levels == (0.0, 255.0):
        return gray
    low, high = levels
    return np.clip((gray.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)

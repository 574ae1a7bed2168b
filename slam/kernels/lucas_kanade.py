"""Per-pixel loops of the photometric alignment: the warp of an image, and the Lucas-Kanade step of every cell.

Arrays are float32 and C-contiguous; the kernels release the GIL and use one core. Sums run along whole rows first,
so that the compiler turns them into vector instructions.
"""

import numpy as np

from slam.kernels.compile import FINITE, compiled

FLOOR_ENERGY = np.float32(1.3)  # squared gradient added for a stable solution, gray levels^2
FLOOR_CONTRAST = np.float32(6.5)  # variance of a patch below which its gain is not fitted, gray levels^2
MIN_COVER = 0.25  # share of a patch that must be seen in view j
UNKNOWN = np.float32(1e4)  # pixels^2: variance of what was not measured
CHANNELS = 4  # gradient along x and y, difference, brightness
PAIRS = CHANNELS * (CHANNELS + 1) // 2
GX, GY, DIFFERENCE, LEVEL = 0, 1, 2, 3


@compiled(FINITE)
def warp(gray_j: np.ndarray, offset: np.ndarray, warped: np.ndarray, seen: np.ndarray) -> None:
    """View j as seen from view i.

    Args:
        gray_j: (H, W).
        offset: (h, w, 2) how far the centres of the cells move, pixels; bilinear between them, constant beyond them.
        warped: (H, W) output, bilinear.
        seen: (H, W) output, 1 where the pixel lies inside j with all its neighbours, else 0.
    """
    H, W = gray_j.shape
    h, w = offset.shape[:2]
    one, zero, last = np.float32(1), np.float32(0), np.float32(1.001)
    right, bottom = np.float32(W), np.float32(H)
    along, share = _between(W, w)
    across, part = _between(H, h)
    row = np.empty((w, 2), np.float32)
    for y in range(H):
        a, b, t = across[y], min(across[y] + 1, h - 1), part[y]
        for i in range(w):
            row[i, 0] = offset[a, i, 0] + t * (offset[b, i, 0] - offset[a, i, 0])
            row[i, 1] = offset[a, i, 1] + t * (offset[b, i, 1] - offset[a, i, 1])
        fy = np.float32(y)
        for x in range(W):
            a, b, t = along[x], min(along[x] + 1, w - 1), share[x]
            u = np.float32(x) + row[a, 0] + t * (row[b, 0] - row[a, 0])
            v = fy + row[a, 1] + t * (row[b, 1] - row[a, 1])
            inside = (u >= one) & (v >= one) & (u <= right - 2) & (v <= bottom - 2)
            seen[y, x] = one if inside else zero
            u, v = min(max(u, zero), right - last), min(max(v, zero), bottom - last)
            m, n = int(v), int(u)
            fu, fv = u - np.float32(n), v - np.float32(m)
            above = gray_j[m, n] + fu * (gray_j[m, n + 1] - gray_j[m, n])
            below = gray_j[m + 1, n] + fu * (gray_j[m + 1, n + 1] - gray_j[m + 1, n])
            warped[y, x] = above + fv * (below - above)


@compiled(FINITE)
def _between(pixels: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of a side the cell centre before it, and how far it is from that to the next one."""
    before, share = np.empty(pixels, np.int64), np.empty(pixels, np.float32)
    for x in range(pixels):
        c = min(max((x + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
        before[x] = min(int(c), max(cells - 2, 0))
        share[x] = c - before[x]
    return before, share


@compiled(FINITE)
def steps(
    gray_i: np.ndarray,
    warped: np.ndarray,
    seen: np.ndarray,
    patch_px: int,
    noise: float,
    shift: np.ndarray,
    variance: np.ndarray,
) -> None:
    """One Lucas-Kanade step of every cell, the gain and offset of its patch eliminated.

    Args:
        gray_i, warped, seen: (H, W), the latter two from `warp`.
        patch_px: side of a patch, centred on its cell.
        noise: least deviation of a pixel's brightness.
        shift: (h, w, 2) output, how much farther the patch lies in j, pixels.
        variance: (h, w, 2) output, of what one pixel of the patch says about it, pixels^2.
    """
    H, W = gray_i.shape
    h, w = shift.shape[:2]
    stride = H // h
    margin = (patch_px - stride) // 2
    row = np.empty((CHANNELS, W), np.float32)
    total = np.empty((1 + CHANNELS + PAIRS, W), np.float32)
    sums = np.empty(1 + CHANNELS + PAIRS, np.float32)
    cov = np.empty((CHANNELS, CHANNELS), np.float32)
    for j in range(h):
        total[:] = 0
        for y in range(max(stride * j - margin, 1), min(stride * j - margin + patch_px, H - 1)):
            _channels(gray_i, warped, seen, y, row)
            _add(total[0], seen[y], seen[y])
            k = 1 + CHANNELS
            for a in range(CHANNELS):
                _add(total[1 + a], row[a], seen[y])
                for b in range(a, CHANNELS):
                    _add(total[k], row[a], row[b])
                    k += 1
        for i in range(w):
            left, right = max(stride * i - margin, 1), min(stride * i - margin + patch_px, W - 1)
            for k in range(len(sums)):
                s = np.float32(0)
                for x in range(left, right):
                    s += total[k, x]
                sums[k] = s
            if sums[0] < MIN_COVER * patch_px * patch_px:
                shift[j, i] = 0
                variance[j, i] = UNKNOWN
                continue
            _covariances(sums, cov)
            _solve(cov, noise, shift[j, i], variance[j, i])


@compiled(FINITE)
def _channels(gray_i: np.ndarray, warped: np.ndarray, seen: np.ndarray, y: int, row: np.ndarray) -> None:
    """The channels of one row, 0 where view j does not see it; the gradients are means of both images'."""
    half, quarter, middle = np.float32(0.5), np.float32(0.25), np.float32(127.5)
    gx, gy, difference, level = row[GX], row[GY], row[DIFFERENCE], row[LEVEL]
    for x in range(1, gray_i.shape[1] - 1):
        m = seen[y, x]
        gx[x] = m * quarter * (gray_i[y, x + 1] - gray_i[y, x - 1] + warped[y, x + 1] - warped[y, x - 1])
        gy[x] = m * quarter * (gray_i[y + 1, x] - gray_i[y - 1, x] + warped[y + 1, x] - warped[y - 1, x])
        difference[x] = m * (gray_i[y, x] - warped[y, x])
        level[x] = m * (half * (gray_i[y, x] + warped[y, x]) - middle)


@compiled(FINITE)
def _add(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    for x in range(1, len(total) - 1):
        total[x] += a[x] * b[x]


@compiled(FINITE)
def _covariances(sums: np.ndarray, cov: np.ndarray) -> None:
    """From the number of pixels, the sums of the channels and of their products."""
    per_pixel = np.float32(1) / sums[0]
    k = 1 + CHANNELS
    for a in range(CHANNELS):
        for b in range(a, CHANNELS):
            cov[a, b] = sums[k] * per_pixel - sums[1 + a] * per_pixel * sums[1 + b] * per_pixel
            cov[b, a] = cov[a, b]
            k += 1


@compiled(FINITE)
def _solve(cov: np.ndarray, noise: float, shift: np.ndarray, variance: np.ndarray) -> None:
    """The 2x2 system of one patch, and how well it fits."""
    per_gain = np.float32(1) / (cov[LEVEL, LEVEL] + FLOOR_CONTRAST)
    for a in range(LEVEL):
        for b in range(LEVEL):
            cov[a, b] -= cov[a, LEVEL] * cov[b, LEVEL] * per_gain
    xx, yy, xy = cov[GX, GX] + FLOOR_ENERGY, cov[GY, GY] + FLOOR_ENERGY, cov[GX, GY]
    rx, ry = cov[GX, DIFFERENCE], cov[GY, DIFFERENCE]
    determinant = xx * yy - xy * xy
    dx, dy = (yy * rx - xy * ry) / determinant, (xx * ry - xy * rx) / determinant
    misfit = max(cov[DIFFERENCE, DIFFERENCE] - dx * rx - dy * ry, np.float32(0)) + np.float32(noise * noise)
    shift[0], shift[1] = dx, dy
    floor = np.float32(0.05) * FLOOR_ENERGY
    variance[0] = misfit / (max(cov[GX, GX], np.float32(0)) + floor)
    variance[1] = misfit / (max(cov[GY, GY], np.float32(0)) + floor)

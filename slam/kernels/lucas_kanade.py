"""Photometric alignment of cells: the warp of an image, and the Lucas-Kanade step of every cell.

Loops, for float32 on the CPU without gradients: their arrays are C-contiguous, and sums run along whole rows first, so
that the compiler turns them into vector instructions. Tensors elsewhere: the sums of a patch are those of a pooling.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.camera import pixel_grid, sample
from slam.geometry.flow import in_image
from slam.kernels.compile import FINITE, compiled, runs_as_loop

FLOOR_ENERGY = np.float32(1.3)  # squared gradient added for a stable solution, gray levels^2
LEAST_ENERGY = np.float32(0.065)  # the same for the covariance
FLOOR_CONTRAST = np.float32(6.5)  # variance of a patch below which its gain is not fitted, gray levels^2
MIN_COVER = 0.25  # share of a patch that must be seen in view j
UNKNOWN = np.float32(1e4)  # pixels^2: variance of what was not measured
CHANNELS = 4  # gradient along x and y, difference, brightness
PAIRS = CHANNELS * (CHANNELS + 1) // 2
GX, GY, DIFFERENCE, LEVEL = 0, 1, 2, 3
MIDDLE = np.float32(127.5)  # gray level


def photometric_step(gray_i: Tensor, gray_j: Tensor, uv: Tensor, patch_px: int, noise: float) -> tuple[Tensor, Tensor]:
    """One Lucas-Kanade step of every cell of E edges (i, j), with gain and offset of its patch fitted too.

    Args:
        gray_i, gray_j: (E, H, W) gray levels.
        uv: (E, h, w, 2) where the cells of i lie in j, cells; j is warped by it, interpolated between cells.
        patch_px: side of a patch, even, at least that of a cell.
        noise: least deviation of a pixel's brightness.

    Returns:
        shift_px (E, h, w, 2), how much farther the patches lie in j, pixels; covariance (E, h, w, 3) of what one pixel
        of the patch says about it, pixels^2: variances of u and v, and what they share, by which a slanted edge still
        tells of the motion across it.
    """
    E, h, w, _ = uv.shape
    stride, far = gray_i.shape[1] // h, 2.0 * max(gray_i.shape[1:])
    offset = ((uv - pixel_grid(h, w, like=uv)) * stride).nan_to_num(0.0).clamp(-far, far)
    if not runs_as_loop(gray_i, gray_i, gray_j, uv):
        return _steps_by_tensors(gray_i, *_warp_by_tensors(gray_j, offset), stride, patch_px, noise)
    shift_px, covariance = torch.empty_like(offset), offset.new_empty(E, h, w, 3)
    for e in range(E):
        first, second, cells = (x[e].float().contiguous().numpy() for x in (gray_i, gray_j, offset))
        warped, seen = np.empty_like(first), np.empty_like(first)
        warp(second, cells, warped, seen)
        steps(first, warped, seen, patch_px, noise, shift_px[e].numpy(), covariance[e].numpy())
    return shift_px, covariance


def _warp_by_tensors(gray_j: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """As `warp`, of E images (E, H, W) by (E, h, w, 2)."""
    H, W = gray_j.shape[1:]
    offset = F.interpolate(offset.permute(0, 3, 1, 2), (H, W), mode="bilinear", align_corners=False)
    position = offset.permute(0, 2, 3, 1) + pixel_grid(H, W, like=offset)
    warped = sample(gray_j[:, None], position, padding="border")[:, 0]
    return warped, in_image(position, H, W, margin=1).to(warped)


def _steps_by_tensors(
    gray_i: Tensor, warped: Tensor, seen: Tensor, stride: int, patch_px: int, noise: float
) -> tuple[Tensor, Tensor]:
    """As `steps`, of E pairs of images (E, H, W)."""
    m = seen[:, 1:-1, 1:-1]
    both = 0.5 * (gray_i + warped)
    gx = 0.5 * m * (both[:, 1:-1, 2:] - both[:, 1:-1, :-2])
    gy = 0.5 * m * (both[:, 2:, 1:-1] - both[:, :-2, 1:-1])
    difference, level = m * (gray_i - warped)[:, 1:-1, 1:-1], m * (both[:, 1:-1, 1:-1] - float(MIDDLE))
    rows = torch.stack([m, gx, gy, difference, level], 1)  # (E, 1 + CHANNELS, H - 2, W - 2)
    products = F.pad((rows[:, :, None] * rows[:, None]).flatten(1, 2), (1, 1, 1, 1))
    margin = (patch_px - stride) // 2
    sums = F.avg_pool2d(products, patch_px, stride, margin, divisor_override=1)
    sums = sums.unflatten(1, (1 + CHANNELS, 1 + CHANNELS))
    count = sums[:, 0, 0]
    moments = sums / count.clamp_min(1)[:, None, None]  # a product with m is the channel itself
    cov = moments[:, 1:, 1:] - moments[:, 1:, :1] * moments[:, :1, 1:]  # (E, CHANNELS, CHANNELS, h, w)
    by_level = cov[:, :LEVEL, LEVEL:] / (cov[:, LEVEL:, LEVEL:] + float(FLOOR_CONTRAST))
    cov = cov[:, :LEVEL, :LEVEL] - by_level * cov[:, LEVEL:, :LEVEL]
    xx, yy = cov[:, GX, GX] + float(FLOOR_ENERGY), cov[:, GY, GY] + float(FLOOR_ENERGY)
    xy, rx, ry = cov[:, GX, GY], cov[:, GX, DIFFERENCE], cov[:, GY, DIFFERENCE]
    determinant = xx * yy - xy * xy
    dx, dy = (yy * rx - xy * ry) / determinant, (xx * ry - xy * rx) / determinant
    misfit = (cov[:, DIFFERENCE, DIFFERENCE] - dx * rx - dy * ry).clamp_min(0) + noise**2
    unknown = (count < MIN_COVER * patch_px**2)[..., None]
    shift_px = torch.stack([dx, dy], -1)
    least = float(LEAST_ENERGY)
    xx, yy = (cov[:, n, n].clamp_min(0) + least for n in (GX, GY))
    determinant = (xx * yy - xy * xy).clamp_min(least**2)
    covariance = (misfit / determinant)[..., None] * torch.stack([yy, xx, -xy], -1)
    return shift_px.masked_fill(unknown, 0.0), unmeasured(covariance, unknown)


def unmeasured(covariance: Tensor, where: Tensor) -> Tensor:
    """Covariances (..., 3) of which nothing is known where (..., 1) is True."""
    variance, shared = covariance.tensor_split([2], -1)
    return torch.cat([variance.masked_fill(where, float(UNKNOWN)), shared.masked_fill(where, 0.0)], -1)


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
    flat = gray_j.reshape(-1)
    rows, index = np.empty((8, W), np.float32), np.empty(W, np.int32)
    u, v, fu, fv, a, b, c, d = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    for y in range(H):  # each step in a loop of its own: the compiler cannot tell that reads and writes do not overlap
        _spread_row(offset, y, H, 0, u)
        _spread_row(offset, y, H, 1, v)
        _locate(u, v, y, H, index, fu, fv, seen[y])
        _read(flat, index, W, a, b, c, d)
        _blend(a, b, c, d, fu, fv, warped[y])


@compiled(FINITE, part=True)
def _spread_row(offset: np.ndarray, y: int, H: int, axis: int, out: np.ndarray) -> None:
    """One component of offset (h, w, 2) at the pixels (W,) of row y, bilinear."""
    h, w = offset.shape[:2]
    stride = len(out) // w
    across = min(max((y + 0.5) * h / H - 0.5, 0.0), h - 1.0)
    a = min(int(across), max(h - 2, 0))
    b, t = min(a + 1, h - 1), np.float32(across - a)
    before = offset[a, 0, axis] + t * (offset[b, 0, axis] - offset[a, 0, axis])
    out[: stride // 2] = before
    for i in range(w - 1):
        after = offset[a, i + 1, axis] + t * (offset[b, i + 1, axis] - offset[a, i + 1, axis])
        step = (after - before) / np.float32(stride)
        first, at = before + np.float32(0.5) * step, stride // 2 + i * stride
        for k in range(stride):
            out[at + k] = first + np.float32(k) * step
        before = after
    out[stride // 2 + (w - 1) * stride :] = before


@compiled(FINITE, part=True)
def _locate(
    u: np.ndarray, v: np.ndarray, y: int, H: int, index: np.ndarray, fu: np.ndarray, fv: np.ndarray, seen: np.ndarray
) -> None:
    """Where row y, moved by (u, v), is read: its upper left pixels, and how far from these it lies."""
    W = len(u)
    one, zero, last = np.float32(1), np.float32(0), np.float32(1.001)
    right, bottom = np.float32(W), np.float32(H)
    for x in range(W):
        a, b = np.float32(x) + u[x], np.float32(y) + v[x]
        seen[x] = one if (a >= one) & (b >= one) & (a <= right - 2) & (b <= bottom - 2) else zero
        a, b = min(max(a, zero), right - last), min(max(b, zero), bottom - last)
        m, n = np.int32(b), np.int32(a)
        fu[x], fv[x] = a - np.float32(n), b - np.float32(m)
        index[x] = m * np.int32(W) + n


@compiled(FINITE, part=True)
def _read(
    flat: np.ndarray, index: np.ndarray, W: int, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray
) -> None:
    """The four pixels around each place: upper left, upper right, lower left, lower right."""
    for x in range(len(index)):
        n = index[x]
        a[x] = flat[n]
        b[x] = flat[n + 1]
        c[x] = flat[n + W]
        d[x] = flat[n + W + 1]


@compiled(FINITE, part=True)
def _blend(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, fu: np.ndarray, fv: np.ndarray, out: np.ndarray
) -> None:
    for x in range(len(out)):
        above = a[x] + fu[x] * (b[x] - a[x])
        below = c[x] + fu[x] * (d[x] - c[x])
        out[x] = above + fv[x] * (below - above)


@compiled(FINITE)
def steps(
    gray_i: np.ndarray,
    warped: np.ndarray,
    seen: np.ndarray,
    patch_px: int,
    noise: float,
    shift: np.ndarray,
    covariance: np.ndarray,
) -> None:
    """One Lucas-Kanade step of every cell, the gain and offset of its patch eliminated.

    Args:
        gray_i, warped, seen: (H, W), the latter two from `warp`.
        patch_px: side of a patch, centred on its cell.
        noise: least deviation of a pixel's brightness.
        shift: (h, w, 2) output, how much farther the patch lies in j, pixels.
        covariance: (h, w, 3) output, of what one pixel of the patch says about it, pixels^2.
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
                covariance[j, i, 0], covariance[j, i, 1], covariance[j, i, 2] = UNKNOWN, UNKNOWN, 0
                continue
            _covariances(sums, cov)
            _solve(cov, noise, shift[j, i], covariance[j, i])


@compiled(FINITE, part=True)
def _channels(gray_i: np.ndarray, warped: np.ndarray, seen: np.ndarray, y: int, row: np.ndarray) -> None:
    """The channels of one row, 0 where view j does not see it; the gradients are means of both images'."""
    half, quarter, middle = np.float32(0.5), np.float32(0.25), MIDDLE
    gx, gy, difference, level = row[GX], row[GY], row[DIFFERENCE], row[LEVEL]
    for x in range(1, gray_i.shape[1] - 1):
        m = seen[y, x]
        gx[x] = m * quarter * (gray_i[y, x + 1] - gray_i[y, x - 1] + warped[y, x + 1] - warped[y, x - 1])
        gy[x] = m * quarter * (gray_i[y + 1, x] - gray_i[y - 1, x] + warped[y + 1, x] - warped[y - 1, x])
        difference[x] = m * (gray_i[y, x] - warped[y, x])
        level[x] = m * (half * (gray_i[y, x] + warped[y, x]) - middle)


@compiled(FINITE, part=True)
def _add(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    for x in range(1, len(total) - 1):
        total[x] += a[x] * b[x]


@compiled(FINITE, part=True)
def _covariances(sums: np.ndarray, cov: np.ndarray) -> None:
    """From the number of pixels, the sums of the channels and of their products."""
    per_pixel = np.float32(1) / sums[0]
    k = 1 + CHANNELS
    for a in range(CHANNELS):
        for b in range(a, CHANNELS):
            cov[a, b] = sums[k] * per_pixel - sums[1 + a] * per_pixel * sums[1 + b] * per_pixel
            cov[b, a] = cov[a, b]
            k += 1


@compiled(FINITE, part=True)
def _solve(cov: np.ndarray, noise: float, shift: np.ndarray, covariance: np.ndarray) -> None:
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
    xx, yy = max(cov[GX, GX], np.float32(0)) + LEAST_ENERGY, max(cov[GY, GY], np.float32(0)) + LEAST_ENERGY
    share = misfit / max(xx * yy - xy * xy, LEAST_ENERGY * LEAST_ENERGY)
    covariance[0], covariance[1], covariance[2] = share * yy, share * xx, -share * xy

"""Zero-mean normalised cross-correlation (ZNCC) of two images at each depth hypothesis, at full resolution.

The features of the stereo network have a quarter of the resolution. After a small camera motion a tenth of the depth is
a tenth of a pixel and only a fortieth of a cell; windows of the full image still resolve it.

Loops, for float32 on the CPU without gradients, take one small step at a time along whole rows: the compiler turns a
loop into vector instructions only if few arrays are in it and no place that it writes could be one that it reads.

Reference: zero-mean normalised cross correlation (Scharstein & Szeliski, A taxonomy and evaluation of dense two-frame
stereo correspondence algorithms, IJCV 2002); its logarithm is that of Gaussian noise.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.camera import sample
from slam.geometry.flow import MIN_DEPTH_RATIO, in_image
from slam.kernels.compile import REASSOCIATED, compiled, runs_as_loop

STRIDE = 4  # pixels: side of a cell, and of the smaller window
MIDDLE = (STRIDE - 1) / 2  # of a cell, pixels from its first one
WINDOWS = 2  # a cell alone, and with its eight neighbours
MOMENTS = 3  # of a window: means of view j, of its square and of its product with the keyframe
NOISE = 3e-4  # variance of the noise of standardised images: a window with less contrast correlates with nothing
MIN_DISSIMILARITY = 0.01  # added to 1 - correlation: a match better than this hardly gains
NEAR = np.float32(MIN_DEPTH_RATIO)


def zncc_volume(gray_k: Tensor, grays_j: Sequence[Tensor], T_jk: Tensor, K: Tensor, hypotheses: Tensor) -> Tensor:
    """Log-likelihood of every hypothesis, averaged over the views that see the point.

    Args:
        gray_k: (B, 1, H, W) brightness of the keyframes, standardised, sides multiples of 4.
        grays_j: M tensors (B, 1, H, W) of the neighbours.
        T_jk: (B, M, 4, 4) neighbour from keyframe.
        K: (B, 3, 3) intrinsics at H x W.
        hypotheses: (B, D, H/4 or 1, W/4 or 1) inverse depths.

    Returns:
        (B, D, H/4, W/4, 2): of windows of 4 and of 12 pixels; up to 2.3, about 0 without contrast or match.
    """
    h, w = gray_k.shape[-2] // STRIDE, gray_k.shape[-1] // STRIDE
    K, d = K.to(hypotheses), hypotheses.expand(-1, -1, h, w).contiguous()
    by_loops = runs_as_loop(gray_k, gray_k, *grays_j, T_jk, K, d)
    dissimilarity = _dissimilarity_by_loops if by_loops else _dissimilarity
    cells = torch.cat([F.avg_pool2d(gray_k, STRIDE), F.avg_pool2d(gray_k.square(), STRIDE)], 1)
    windows_k = torch.stack(_windows(cells), 1)  # (B, WINDOWS, 2, h, w)
    total, count = d.new_zeros(*d.shape, WINDOWS), torch.zeros_like(d)
    K_inv = torch.linalg.inv(K)
    for m, gray_j in enumerate(grays_j):
        T = T_jk[:, m].to(hypotheses)
        A, b = K @ T[:, :3, :3] @ K_inv, (K @ T[:, :3, 3:])[..., 0]
        unlike, seen = dissimilarity(gray_k, gray_j, windows_k, A, b, d)
        total = total - 0.5 * unlike.log()
        count = count + seen
    return total / count.clamp_min(1)[..., None]


def _dissimilarity(
    gray_k: Tensor, gray_j: Tensor, windows_k: Tensor, A: Tensor, b: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """How little the windows of one neighbour resemble those of the keyframe.

    Args:
        gray_k, gray_j: (B, 1, H, W) keyframes and neighbours.
        windows_k: (B, WINDOWS, 2, h, w) means of the keyframes and of their squares.
        A, b: (B, 3, 3) K R K^-1 and (B, 3) K t, neighbour from keyframe.
        d: (B, D, h, w) hypotheses, constant over a cell.

    Returns:
        1 - ZNCC + MIN_DISSIMILARITY (B, D, h, w, WINDOWS), and whether the neighbour sees the middle of the cell (B,
        D, h, w), 1 or 0; where it does not the first is 1.
    """
    seen = in_image(_place(A, b, d, MIDDLE, MIDDLE), *gray_k.shape[-2:])
    B, D, h, w = d.shape
    windows_j = _windows(_moments(gray_k, gray_j, A, b, d).view(B, MOMENTS * D, h, w))
    unlike = []
    for window_k, window_j in zip(windows_k.unbind(1), windows_j, strict=True):
        a, aa = window_k.split(1, 1)  # (B, 1, h, w)
        mean, square, product = window_j.view(B, MOMENTS, D, h, w).unbind(1)
        spread = ((aa - a * a).clamp_min(0) + NOISE) * ((square - mean * mean).clamp_min(0) + NOISE)
        correlation = (product - a * mean) * spread.rsqrt()
        unlike.append(torch.where(seen, (1 - correlation).clamp_min(0) + MIN_DISSIMILARITY, 1))
    return torch.stack(unlike, -1), seen.to(d)


def _place(A: Tensor, b: Tensor, d: Tensor, du: float, dv: float) -> Tensor:
    """Where the neighbour sees the pixels (du, dv) of the cells, (B, D, h, w, 2), by A = K R K^-1 and b = K t."""
    B, _, h, w = d.shape
    rows, columns = (STRIDE * torch.arange(n, dtype=d.dtype, device=d.device) for n in (h, w))
    v, u = torch.meshgrid(rows + dv, columns + du, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)  # (3, h w)
    x, b = (A @ pixels).view(B, 3, 1, h, w), b[..., None, None, None]
    z = 1 / (x[:, 2] + d * b[:, 2]).clamp_min(MIN_DEPTH_RATIO)
    return torch.stack([(x[:, 0] + d * b[:, 0]) * z, (x[:, 1] + d * b[:, 1]) * z], -1)


def _moments(gray_k: Tensor, gray_j: Tensor, A: Tensor, b: Tensor, d: Tensor) -> Tensor:
    """Moments (B, MOMENTS, D, h, w) of the cells."""
    pixels_k = F.pixel_unshuffle(gray_k, STRIDE)  # (B, 16, h, w)
    mean, square, product = (torch.zeros_like(d) for _ in range(MOMENTS))
    for n in range(STRIDE**2):
        uv = _place(A, b, d, float(n % STRIDE), float(n // STRIDE))
        warped = sample(gray_j, uv.flatten(1, 2), padding="border").view(d.shape)
        mean += warped
        square.addcmul_(warped, warped)
        product.addcmul_(warped, pixels_k[:, n : n + 1])
    return torch.stack([mean, square, product], 1) / STRIDE**2


def _windows(cells: Tensor) -> list[Tensor]:
    """Means (B, C, h, w) of cells, and of 3x3 of them, fewer at the border."""
    return [cells, F.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)]


def _dissimilarity_by_loops(
    gray_k: Tensor, gray_j: Tensor, windows_k: Tensor, A: Tensor, b: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_dissimilarity`."""
    unlike, seen = torch.empty(*d.shape, WINDOWS), torch.empty(d.shape)
    given = gray_k[:, 0], gray_j[:, 0], windows_k.transpose(2, 3), A, b, d
    _compare(*(x.detach().float().contiguous().numpy() for x in given), unlike.numpy(), seen.numpy())
    return unlike, seen


@compiled(REASSOCIATED)
def _compare(
    gray_k: np.ndarray,
    gray_j: np.ndarray,
    windows_k: np.ndarray,
    A: np.ndarray,
    b: np.ndarray,
    inv_depth: np.ndarray,
    unlike: np.ndarray,
    seen: np.ndarray,
) -> None:
    """As `_dissimilarity`.

    Args:
        gray_k, gray_j: (B, H, W).
        windows_k: (B, WINDOWS, h, 2, w), by rows.
        A, b: (B, 3, 3) and (B, 3).
        inv_depth: (B, D, h, w) hypotheses.
        unlike, seen: (B, D, h, w, WINDOWS) and (B, D, h, w) outputs.
    """
    B, D, h, w = inv_depth.shape
    moments, around = np.empty((h, MOMENTS, w), np.float32), np.empty((MOMENTS, w), np.float32)
    score = np.empty((WINDOWS, w), np.float32)
    for e in range(B):
        for d in range(D):
            _cell_moments(gray_k[e], gray_j[e], A[e], b[e], inv_depth[e, d], moments)
            for y in range(h):
                _see(A[e], b[e], inv_depth[e, d, y], y, gray_j.shape[1:], seen[e, d, y])
                _mean_around(moments, y, around)
                _score(windows_k[e, 0, y], moments[y], score[0])
                _score(windows_k[e, 1, y], around, score[1])
                for x in range(w):
                    for n in range(WINDOWS):
                        unlike[e, d, y, x, n] = score[n, x] if seen[e, d, y, x] > 0 else np.float32(1)


@compiled(REASSOCIATED, part=True)
def _see(A: np.ndarray, b: np.ndarray, inv_depth: np.ndarray, y: int, size: tuple[int, int], seen: np.ndarray) -> None:
    """Whether the middles of a row of cells lie inside the neighbour."""
    zero, one, right, bottom = np.float32(0), np.float32(1), np.float32(size[1] - 1), np.float32(size[0] - 1)
    stride, middle = np.float32(STRIDE), np.float32(MIDDLE)
    fy = stride * np.float32(y) + middle
    rx, ry, rz = A[0, 1] * fy + A[0, 2], A[1, 1] * fy + A[1, 2], A[2, 1] * fy + A[2, 2]
    for x in range(len(seen)):
        fx, d = stride * np.float32(x) + middle, inv_depth[x]
        z = A[2, 0] * fx + rz + d * b[2]
        z = one / (z if z > NEAR else NEAR)
        u, v = (A[0, 0] * fx + rx + d * b[0]) * z, (A[1, 0] * fx + ry + d * b[1]) * z
        seen[x] = one if (u >= zero) & (u <= right) & (v >= zero) & (v <= bottom) else zero


@compiled(REASSOCIATED, part=True)
def _cell_moments(
    gray_k: np.ndarray, gray_j: np.ndarray, A: np.ndarray, b: np.ndarray, inv_depth: np.ndarray, moments: np.ndarray
) -> None:
    """Moments (h, MOMENTS, w) of the cells, for one hypothesis (h, w)."""
    h, w = inv_depth.shape
    W = gray_j.shape[1]
    depth, total = np.empty(w * STRIDE, np.float32), np.empty((MOMENTS, w * STRIDE), np.float32)
    warped, index = np.empty((STRIDE, w * STRIDE), np.float32), np.empty(w * STRIDE, np.int32)
    fu, fv = np.empty(w * STRIDE, np.float32), np.empty(w * STRIDE, np.float32)
    share = np.float32(1 / STRIDE**2)
    for y in range(h):
        for x in range(w):
            for k in range(STRIDE):
                depth[STRIDE * x + k] = inv_depth[y, x]
        for k in range(STRIDE):
            _places(A, b, depth, STRIDE * y + k, gray_j.shape, index, fu, fv)
            _read(gray_j.reshape(-1), W, index, fu, fv, warped[k])
        _sums(warped, gray_k[STRIDE * y : STRIDE * (y + 1)], total)
        for c in range(MOMENTS):
            for x in range(w):
                a, p, q, r = STRIDE * x, STRIDE * x + 1, STRIDE * x + 2, STRIDE * x + 3
                moments[y, c, x] = share * (total[c, a] + total[c, p] + total[c, q] + total[c, r])


@compiled(REASSOCIATED, part=True)
def _places(
    A: np.ndarray,
    b: np.ndarray,
    inv_depth: np.ndarray,
    y: int,
    size: tuple[int, int],
    index: np.ndarray,
    fu: np.ndarray,
    fv: np.ndarray,
) -> None:
    """Where the neighbour sees the pixels of row y: the first of four pixels around each place, and what is beyond it.

    Args:
        A, b: (3, 3) K R K^-1 and (3,) K t, neighbour from keyframe.
        inv_depth: (W,); what is nearer to the neighbour than NEAR of its depth is taken as this.
        size: (H, W) of the neighbour; what is outside, or no number, is taken to its border.
        index: (W,) output, of the flattened image.
        fu, fv: (W,) outputs, pixels, 0 to 1.
    """
    zero, one, right, bottom = np.float32(0), np.float32(1), np.float32(size[1] - 1), np.float32(size[0] - 1)
    left, lower, width = np.float32(size[1] - 2), np.float32(size[0] - 2), np.int32(size[1])
    fy = np.float32(y)
    rx, ry, rz = A[0, 1] * fy + A[0, 2], A[1, 1] * fy + A[1, 2], A[2, 1] * fy + A[2, 2]
    for x in range(len(inv_depth)):
        fx, d = np.float32(np.int32(x)), inv_depth[x]
        z = A[2, 0] * fx + rz + d * b[2]
        z = one / (z if z > NEAR else NEAR)
        u, v = (A[0, 0] * fx + rx + d * b[0]) * z, (A[1, 0] * fx + ry + d * b[1]) * z
        u, v = u if u > zero else zero, v if v > zero else zero  # also NaN
        u, v = u if u < right else right, v if v < bottom else bottom
        m, n = np.int32(v if v < lower else lower), np.int32(u if u < left else left)
        index[x] = m * width + n
        fu[x], fv[x] = u - np.float32(n), v - np.float32(m)


@compiled(REASSOCIATED, part=True)
def _read(image: np.ndarray, W: int, index: np.ndarray, fu: np.ndarray, fv: np.ndarray, warped: np.ndarray) -> None:
    """Flattened image at the places of `_places`, bilinear."""
    step, row = np.uint32(1), np.uint32(W)  # unsigned: no index counts from the end
    for x in range(len(warped)):
        i = np.uint32(index[x])
        above = image[i] + fu[x] * (image[i + step] - image[i])
        below = image[i + row] + fu[x] * (image[i + row + step] - image[i + row])
        warped[x] = above + fv[x] * (below - above)


@compiled(REASSOCIATED, part=True)
def _sums(warped: np.ndarray, gray_k: np.ndarray, total: np.ndarray) -> None:
    """Sums (MOMENTS, W) over the STRIDE rows of view j, its square and its product with the keyframe."""
    W = warped.shape[1]
    for x in range(W):
        total[0, x] = warped[0, x] + warped[1, x] + warped[2, x] + warped[3, x]
    for x in range(W):
        p, q, r, s = warped[0, x], warped[1, x], warped[2, x], warped[3, x]
        total[1, x] = p * p + q * q + r * r + s * s
    for x in range(W):
        p, q, r, s = gray_k[0, x], gray_k[1, x], gray_k[2, x], gray_k[3, x]
        total[2, x] = p * warped[0, x] + q * warped[1, x] + r * warped[2, x] + s * warped[3, x]


@compiled(REASSOCIATED, part=True)
def _mean_around(cells: np.ndarray, y: int, mean: np.ndarray) -> None:
    """Means (C, w) over 3x3 cells (h, C, w) around row y, fewer at the border."""
    h, C, w = cells.shape
    first, last = max(y - 1, 0), min(y + 1, h - 1)
    rows = np.float32(last - first + 1)
    inner, edge = np.float32(1) / (np.float32(3) * rows), np.float32(1) / (np.float32(min(w, 2)) * rows)
    column = np.zeros(w + 2, np.float32)
    for c in range(C):
        for x in range(w):
            column[x + 1] = cells[y, c, x]
        for row in range(first, last + 1):
            if row != y:
                for x in range(w):
                    column[x + 1] += cells[row, c, x]
        for x in range(w):
            mean[c, x] = inner * (column[x] + column[x + 1] + column[x + 2])
        mean[c, 0], mean[c, w - 1] = edge * (column[1] + column[2]), edge * (column[w - 1] + column[w])


@compiled(REASSOCIATED, part=True)
def _score(window_k: np.ndarray, moments: np.ndarray, score: np.ndarray) -> None:
    """1 - ZNCC + MIN_DISSIMILARITY of a row of windows: (2, w) of the keyframe, (MOMENTS, w) of the neighbour."""
    zero, one, noise, least = np.float32(0), np.float32(1), np.float32(NOISE), np.float32(MIN_DISSIMILARITY)
    for x in range(len(score)):
        a, mean = window_k[0, x], moments[0, x]
        variance_k = max(window_k[1, x] - a * a, zero) + noise
        variance_j = max(moments[1, x] - mean * mean, zero) + noise
        correlation = (moments[2, x] - a * mean) / np.sqrt(variance_k * variance_j)
        score[x] = max(one - correlation, zero) + least

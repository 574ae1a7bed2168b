"""Per-pixel loops of the plane sweep: matching cost, semi-global smoothing, the winner and its parallax.

All arrays are float32 and C-contiguous; the kernels release the GIL and use one core. Inner loops run along rows or
along hypotheses without branches, so that the compiler turns them into vector instructions.
"""

import math

import numpy as np

from slam.kernels.compile import FINITE, compiled

FAR = np.float32(1e6)  # larger than any cost: pads the ends of a path
INT_MAX = np.int32(2**31 - 1)


@compiled(FINITE)
def window_means(image: np.ndarray, means: np.ndarray) -> None:
    """Means (H, W) over 5x5 windows; pixels beyond the border repeat those on it."""
    H, W = image.shape
    n = np.float32(1.0 / 25.0)
    columns = np.empty(W + 4, np.float32)
    for y in range(H):
        a, b, d, e = max(y - 2, 0), max(y - 1, 0), min(y + 1, H - 1), min(y + 2, H - 1)
        for x in range(W):
            columns[x + 2] = image[a, x] + image[b, x] + image[y, x] + image[d, x] + image[e, x]
        _repeat_ends(columns)
        for x in range(W):
            means[y, x] = (columns[x] + columns[x + 1] + columns[x + 2] + columns[x + 3] + columns[x + 4]) * n


@compiled(FINITE, part=True)
def _repeat_ends(columns: np.ndarray) -> None:
    n = columns.shape[0]
    columns[0], columns[1] = columns[2], columns[2]
    columns[n - 2], columns[n - 1] = columns[n - 3], columns[n - 3]


@compiled(FINITE)
def project(A: np.ndarray, b: np.ndarray, inv_depth: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Where a neighbour sees the keyframe's pixels at their inverse depths; -1e4 behind its camera.

    Args:
        A: (3, 3) float32 K R K^-1.
        b: (3,) float32 K t.
        inv_depth: (H, W).
        u, v: (H, W) output, pixels.
    """
    H, W = inv_depth.shape
    near, behind, one = np.float32(1e-6), np.float32(-1e4), np.float32(1.0)
    for y in range(H):
        fy = np.float32(y)
        ru, rv, rz = A[0, 1] * fy + A[0, 2], A[1, 1] * fy + A[1, 2], A[2, 1] * fy + A[2, 2]
        for x in range(W):
            fx, d = np.float32(x), inv_depth[y, x]
            z = A[2, 0] * fx + rz + d * b[2]
            inverse = one / max(z, near)
            u[y, x] = (A[0, 0] * fx + ru + d * b[0]) * inverse if z > near else behind
            v[y, x] = (A[1, 0] * fx + rv + d * b[1]) * inverse if z > near else behind


@compiled(FINITE)
def zncc_cost(
    gray_k: np.ndarray,
    mean_k: np.ndarray,
    variance_k: np.ndarray,
    warped: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    noise: float,
    cost: np.ndarray,
) -> None:
    """Matching cost of one view over 5x5 windows: (1 - ZNCC) / 2 in [0, 1], or -1 where it does not see the pixel.

    ZNCC = cov(k, w) / sqrt((var k + noise) (var w + noise)): with the variance of the noise in the denominator, a
    window without texture scores near 0 at all hypotheses rather than at random. The window is written out, not a
    parameter: five times faster.

    Args:
        gray_k, mean_k, variance_k: (H, W) keyframe, and mean and variance of its windows.
        warped: (H, W) the neighbour's gray at u, v.
        u, v: (H, W) pixels of the neighbour, of the same size.
        noise: variance of the noise, squared gray levels.
        cost: (H, W) output.
    """
    H, W = gray_k.shape
    n, floor = np.float32(1.0 / 25.0), np.float32(noise)
    half, zero, one = np.float32(0.5), np.float32(0.0), np.float32(1.0)
    right, bottom = np.float32(W - 1), np.float32(H - 1)
    s, ss, sk = np.empty(W + 4, np.float32), np.empty(W + 4, np.float32), np.empty(W + 4, np.float32)
    for y in range(H):
        a, b, d, e = max(y - 2, 0), max(y - 1, 0), min(y + 1, H - 1), min(y + 2, H - 1)
        for x in range(W):
            p, q, r, t, w = warped[a, x], warped[b, x], warped[y, x], warped[d, x], warped[e, x]
            s[x + 2] = p + q + r + t + w
            ss[x + 2] = p * p + q * q + r * r + t * t + w * w
            sk[x + 2] = p * gray_k[a, x] + q * gray_k[b, x] + r * gray_k[y, x] + t * gray_k[d, x] + w * gray_k[e, x]
        _repeat_ends(s)
        _repeat_ends(ss)
        _repeat_ends(sk)
        for x in range(W):
            mean = (s[x] + s[x + 1] + s[x + 2] + s[x + 3] + s[x + 4]) * n
            square = (ss[x] + ss[x + 1] + ss[x + 2] + ss[x + 3] + ss[x + 4]) * n
            product = (sk[x] + sk[x + 1] + sk[x + 2] + sk[x + 3] + sk[x + 4]) * n
            variance = max(square - mean * mean, zero)
            zncc = (product - mean * mean_k[y, x]) / math.sqrt((variance_k[y, x] + floor) * (variance + floor))
            seen = (u[y, x] >= zero) & (u[y, x] <= right) & (v[y, x] >= zero) & (v[y, x] <= bottom)
            cost[y, x] = max(half * (one - zncc), zero) if seen else -one


@compiled(FINITE)
def fuse_views(costs: np.ndarray, dropped: int, unseen: float, fused: np.ndarray) -> None:
    """Robust mean over views: up to `dropped` (0..2) worst ones are left out where more than half remain.

    Args:
        costs: (N, H, W) of one hypothesis, negative where unseen.
        unseen: cost where no view sees the hypothesis.
        fused: (H, W) output.
    """
    N, H, W = costs.shape
    zero, one = np.float32(0.0), np.float32(1.0)
    total = np.empty(W, np.float32)
    count = np.empty(W, np.float32)
    worst = np.empty(W, np.float32)
    second = np.empty(W, np.float32)
    for y in range(H):
        for x in range(W):
            total[x] = zero
            count[x] = zero
            worst[x] = zero
            second[x] = zero
        for j in range(N):
            for x in range(W):
                c = costs[j, y, x]
                count[x] += one if c >= zero else zero
                c = max(c, zero)
                total[x] += c
                second[x] = max(second[x], min(worst[x], c))
                worst[x] = max(worst[x], c)
        for x in range(W):
            drop1 = (dropped >= 1) & (count[x] >= 3)
            drop2 = (dropped >= 2) & (count[x] >= 5)
            s = total[x] - (worst[x] if drop1 else zero) - (second[x] if drop2 else zero)
            n = count[x] - (one if drop1 else zero) - (one if drop2 else zero)
            fused[y, x] = s / max(n, one) if n > zero else np.float32(unseen)


@compiled(FINITE, part=True)
def _step(
    volume: np.ndarray,
    y: int,
    x: int,
    before: np.ndarray,
    xb: int,
    p1: np.float32,
    p2: np.float32,
    now: np.ndarray,
    now_bits: np.ndarray,
    total: np.ndarray,
) -> None:
    """One pixel of one path, whose last pixel is in column `xb` of `before`.

    `before` and `now` (W + 2, D + 3) hold D costs from 1 on, padded, and last their minimum. It is taken over
    `now_bits`, the same memory as int32: floats above 0 are ordered as their bits are, and the compiler turns only the
    minimum of integers into vector instructions (the whole is 2.5 times faster).
    """
    D = volume.shape[2]
    lowest = before[xb, D + 2]
    jump = lowest + p2
    for d in range(D):
        best = min(min(before[xb, d + 1], jump), min(before[xb, d], before[xb, d + 2]) + p1)
        value = volume[y, x, d] + (best - lowest)
        now[x + 1, d + 1] = value
        total[x, d] += value
    least = INT_MAX
    for d in range(D):
        bits = now_bits[x + 1, d + 1]
        least = bits if bits < least else least
    now_bits[x + 1, D + 2] = least


@compiled(FINITE, part=True)
def _penalty(gray: np.ndarray, y: int, x: int, yb: int, xb: int, p1: float, p2: float, edge: float) -> np.float32:
    H, W = gray.shape
    if yb < 0 or yb >= H or xb < 0 or xb >= W:
        return np.float32(0.0)
    step = abs(gray[y, x] - gray[yb, xb])
    return np.float32(max(p1, p2 / (1.0 + step / edge)))


@compiled(FINITE)
def semi_global(volume: np.ndarray, gray: np.ndarray, p1: float, p2: float, edge: float) -> np.ndarray:
    """Semi-global smoothing over eight paths.

    Args:
        volume: (H, W, D) costs, not negative.
        gray: (H, W) keyframe; a step of `edge` gray levels halves the price of a jump.
        p1, p2: price of a change by one hypothesis, and by more.

    Returns:
        (H, W, D) sum over the paths, divided by their number.

    Reference: Hirschmüller, Stereo processing by semiglobal matching and mutual information, PAMI 2008.
    """
    H, W, D = volume.shape
    total = np.zeros((H, W, D), np.float32)
    q1 = np.float32(p1)
    rows = np.empty((2, 3, W + 2, D + 3), np.float32)  # last row and this one, of the paths from its three pixels
    line = np.empty((W + 2, D + 3), np.float32)  # the path along the row
    rows_bits, line_bits = rows.view(np.int32), line.view(np.int32)
    for sweep in range(2):
        s = 1 - 2 * sweep  # downwards, then upwards
        rows[:] = 0.0
        line[:] = 0.0
        rows[..., 0], rows[..., D + 1] = FAR, FAR
        line[:, 0], line[:, D + 1] = FAR, FAR
        for k in range(H):
            y = k if sweep == 0 else H - 1 - k
            last, this = k % 2, 1 - k % 2
            sums = total[y]
            for e in range(3):
                before, now, now_bits = rows[last, e], rows[this, e], rows_bits[this, e]
                for x in range(W):
                    jump = _penalty(gray, y, x, y - s, x + e - 1, p1, p2, edge)
                    _step(volume, y, x, before, x + e, q1, jump, now, now_bits, sums)
            for i in range(W):
                x = i if sweep == 0 else W - 1 - i
                jump = _penalty(gray, y, x, y, x - s, p1, p2, edge)
                _step(volume, y, x, line, x + 1 - s, q1, jump, line, line_bits, sums)
    for y in range(H):
        for x in range(W):
            for d in range(D):
                total[y, x, d] *= np.float32(0.125)
    return total


@compiled(FINITE)
def winners(
    volume: np.ndarray, smooth: np.ndarray, position: np.ndarray, cost: np.ndarray, curvature: np.ndarray
) -> None:
    """The best hypothesis of each pixel, refined by a parabola, and how sharply it stands out.

    Args:
        volume: (H, W, D) matching costs.
        smooth: (H, W, D) costs after smoothing, whose minimum is sought.
        position: (H, W) output, fractional index of the hypothesis.
        cost: (H, W) output, matching cost of the nearest one.
        curvature: (H, W) output, second difference of the smoothed costs; 0 at the ends of the range.
    """
    H, W, D = volume.shape
    for y in range(H):
        for x in range(W):
            s = smooth[y, x]
            best, lowest = 0, s[0]
            for d in range(1, D):
                if s[d] < lowest:
                    best, lowest = d, s[d]
            bend, offset = np.float32(0.0), np.float32(0.0)
            if 0 < best < D - 1:
                bend = s[best - 1] + s[best + 1] - np.float32(2.0) * lowest
                if bend > np.float32(1e-7):
                    offset = np.float32(0.5) * (s[best - 1] - s[best + 1]) / bend
            position[y, x] = np.float32(best) + offset
            cost[y, x] = volume[y, x, best]
            curvature[y, x] = max(bend, np.float32(0.0))


@compiled(FINITE)
def parallax(A: np.ndarray, b: np.ndarray, inv_depth: np.ndarray, gain: np.ndarray, seen: np.ndarray) -> None:
    """How far pixels move in the neighbours per unit of inverse depth.

    Args:
        A, b: (N, 3, 3) and (N, 3) float32, as for `project`.
        inv_depth: (H, W).
        gain: (H, W) output, root mean square over the views that see the pixel; 0 where none does.
        seen: (H, W) output, number of those views.
    """
    N, (H, W) = b.shape[0], inv_depth.shape
    near, zero, one = np.float32(1e-6), np.float32(0.0), np.float32(1.0)
    right, bottom = np.float32(W - 1), np.float32(H - 1)
    gain[:] = 0.0
    seen[:] = 0.0
    for j in range(N):
        P, q = A[j], b[j]
        for y in range(H):
            fy = np.float32(y)
            for x in range(W):
                fx, d = np.float32(x), inv_depth[y, x]
                z = P[2, 0] * fx + P[2, 1] * fy + P[2, 2] + d * q[2]
                inverse = one / max(z, near)
                u = (P[0, 0] * fx + P[0, 1] * fy + P[0, 2] + d * q[0]) * inverse
                v = (P[1, 0] * fx + P[1, 1] * fy + P[1, 2] + d * q[1]) * inverse
                du, dv = (q[0] - u * q[2]) * inverse, (q[1] - v * q[2]) * inverse
                visible = (z > near) & (u >= zero) & (u <= right) & (v >= zero) & (v <= bottom)
                gain[y, x] += du * du + dv * dv if visible else zero
                seen[y, x] += one if visible else zero
    for y in range(H):
        for x in range(W):
            gain[y, x] = math.sqrt(gain[y, x] / max(seen[y, x], one))

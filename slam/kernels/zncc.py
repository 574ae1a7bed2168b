"""Zero-mean normalised cross-correlation (ZNCC) of two images at each depth hypothesis, at full resolution.

The features of the stereo network have a quarter of the resolution. After a small camera motion a tenth of the depth is
a tenth of a pixel and only a fortieth of a cell; windows of the full image still resolve it.

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
from slam.kernels.compile import REASSOCIATED, compiled

STRIDE = 4  # pixels: side of a cell, and of the smaller window
WINDOWS = 2  # a cell alone, and with its eight neighbours
NOISE = 3e-4  # variance of the noise of standardised images: a window with less contrast correlates with nothing
MIN_DISSIMILARITY = 0.01  # added to 1 - correlation: a match better than this hardly gains


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
    K, d = K.to(hypotheses), hypotheses.expand(-1, -1, h, w)
    windows_k = _windows([F.avg_pool2d(gray_k, STRIDE), F.avg_pool2d(gray_k.square(), STRIDE)])
    total = [torch.zeros_like(d) for _ in range(WINDOWS)]
    count = torch.zeros_like(d)
    for m, gray_j in enumerate(grays_j):
        T = T_jk[:, m].to(hypotheses)
        A, b = K @ T[:, :3, :3] @ torch.linalg.inv(K), (K @ T[:, :3, 3:])[..., 0]
        middle = (STRIDE - 1) / 2
        seen = in_image(_place(A, b, d, middle, middle), *gray_k.shape[-2:]).to(d)
        count = count + seen
        windows_j = _windows((moments_by_loops if d.device.type == "cpu" else moments)(gray_k, gray_j, A, b, d))
        for n, ((a, aa), (mean, square, product)) in enumerate(zip(windows_k, windows_j, strict=True)):
            spread = ((aa - a * a).clamp_min(0) + NOISE) * ((square - mean * mean).clamp_min(0) + NOISE)
            correlation = (product - a * mean) * spread.rsqrt()
            total[n] = total[n] - 0.5 * seen * ((1 - correlation).clamp_min(0) + MIN_DISSIMILARITY).log()
    return torch.stack(total, -1) / count.clamp_min(1)[..., None]


def _place(A: Tensor, b: Tensor, d: Tensor, du: float, dv: float) -> Tensor:
    """Where the neighbour sees the pixels (du, dv) of the cells, (B, D, h, w, 2), by A = K R K^-1 and b = K t."""
    B, _, h, w = d.shape
    v, u = torch.meshgrid(STRIDE * torch.arange(h) + dv, STRIDE * torch.arange(w) + du, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1).to(d)  # (3, h w)
    x, b = (A @ pixels).view(B, 3, 1, h, w), b[..., None, None, None]
    z = 1 / (x[:, 2] + d * b[:, 2]).clamp_min(MIN_DEPTH_RATIO)
    return torch.stack([(x[:, 0] + d * b[:, 0]) * z, (x[:, 1] + d * b[:, 1]) * z], -1)


def moments(gray_k: Tensor, gray_j: Tensor, A: Tensor, b: Tensor, d: Tensor) -> list[Tensor]:
    """Per cell and hypothesis (B, D, h, w): the means of view j, of its square and of its product with the keyframe."""
    pixels_k = F.pixel_unshuffle(gray_k, STRIDE)  # (B, 16, h, w)
    mean, square, product = (torch.zeros_like(d) for _ in range(3))
    for n in range(STRIDE**2):
        uv = _place(A, b, d, float(n % STRIDE), float(n // STRIDE))
        warped = sample(gray_j, uv.flatten(1, 2), padding="border").view(d.shape)
        mean += warped
        square.addcmul_(warped, warped)
        product.addcmul_(warped, pixels_k[:, n : n + 1])
    return [x / STRIDE**2 for x in (mean, square, product)]


def moments_by_loops(gray_k: Tensor, gray_j: Tensor, A: Tensor, b: Tensor, d: Tensor) -> list[Tensor]:
    """As `moments`."""
    mean, square, product = (torch.empty(d.shape) for _ in range(3))
    pixels_k, pixels_j, P, q, depths = (x.detach().float().contiguous().numpy() for x in (gray_k, gray_j, A, b, d))
    outputs = mean.numpy(), square.numpy(), product.numpy()
    _moments_loop(pixels_k[:, 0], pixels_j[:, 0], P, q, depths, MIN_DEPTH_RATIO, *outputs)
    return [mean, square, product]


@compiled(REASSOCIATED)
def _moments_loop(
    gray_k: np.ndarray,
    gray_j: np.ndarray,
    A: np.ndarray,
    b: np.ndarray,
    inv_depth: np.ndarray,
    nearest: float,
    mean: np.ndarray,
    square: np.ndarray,
    product: np.ndarray,
) -> None:
    """Means over the pixels of each cell, for every hypothesis.

    Args:
        gray_k, gray_j: (B, H, W) keyframes and neighbours.
        A, b: (B, 3, 3) K R K^-1 and (B, 3) K t, neighbour from keyframe.
        inv_depth: (B, D, h, w) hypotheses, constant over a cell.
        nearest: least depth in j as a share of that in k; what is nearer is taken as this.
        mean, square, product: (B, D, h, w) outputs: of the warped neighbour, its square, its product with the keyframe.
    """
    B, D, h, w = inv_depth.shape
    H, W = gray_j.shape[1:]
    stride = H // h
    right, bottom, zero, one = np.float32(W - 1), np.float32(H - 1), np.float32(0), np.float32(1)
    left, lower = np.float32(W - 2), np.float32(H - 2)  # of the last 2x2 pixels
    step = np.uint32(1)  # unsigned: no index counts from the end
    near, share = np.float32(nearest), one / np.float32(stride * stride)
    for e in range(B):
        P, q, image = A[e], b[e], gray_j[e]
        for d in range(D):
            for y in range(h):
                for x in range(w):
                    depth = inv_depth[e, d, y, x]
                    s1, s2, s12 = zero, zero, zero
                    for row in range(stride * y, stride * y + stride):
                        fy = np.float32(row)
                        rx = P[0, 1] * fy + P[0, 2] + depth * q[0]
                        ry = P[1, 1] * fy + P[1, 2] + depth * q[1]
                        rz = P[2, 1] * fy + P[2, 2] + depth * q[2]
                        for column in range(stride * x, stride * x + stride):
                            fx = np.float32(column)
                            z = one / max(P[2, 0] * fx + rz, near)
                            u, v = (P[0, 0] * fx + rx) * z, (P[1, 0] * fx + ry) * z
                            u, v = u if u > zero else zero, v if v > zero else zero  # also NaN
                            u, v = min(u, right), min(v, bottom)
                            m, n = np.uint32(min(v, lower)), np.uint32(min(u, left))
                            fu, fv = u - np.float32(n), v - np.float32(m)
                            above = image[m, n] + fu * (image[m, n + step] - image[m, n])
                            below = image[m + step, n] + fu * (image[m + step, n + step] - image[m + step, n])
                            value = above + fv * (below - above)
                            s1 += value
                            s2 += value * value
                            s12 += value * gray_k[e, row, column]
                    mean[e, d, y, x] = s1 * share
                    square[e, d, y, x] = s2 * share
                    product[e, d, y, x] = s12 * share


def _windows(means: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Means (B, C, h, w) of cells, and of 3x3 of them, fewer at the border."""
    return means, [F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) for x in means]

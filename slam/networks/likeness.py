"""How alike the pictures themselves are at each hypothesis: the fraction of a pixel that features at 1/4 cannot tell.

Where a camera has moved little, a tenth of the depth is a tenth of a pixel of the picture and a fortieth of a cell.
Windows of the full picture, matched by correlation, still tell it.

Reference: zero-mean normalised cross correlation (Scharstein & Szeliski, A taxonomy and evaluation of dense two-frame
stereo correspondence algorithms, IJCV 2002); its logarithm is that of Gaussian noise.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.camera import sample
from slam.geometry.flow import MIN_DEPTH_RATIO, in_image

STRIDE = 4  # pixels: side of a cell, and of the smaller window
WINDOWS = 2  # a cell alone, and with its eight neighbours
NOISE = 3e-4  # variance of noise in standardised pictures: windows plainer than this are like anything
UNLIKE = 0.01  # 1 - correlation of the best match that pays


def likeness(grey_k: Tensor, greys_j: Sequence[Tensor], T_jk: Tensor, K: Tensor, hypotheses: Tensor) -> Tensor:
    """Log-likelihood of every hypothesis, averaged over the views that see the point.

    Args:
        grey_k: (B, 1, H, W) brightness of the keyframes, standardised, sides multiples of 4.
        greys_j: M tensors (B, 1, H, W) of the neighbours.
        T_jk: (B, M, 4, 4) neighbour from keyframe.
        K: (B, 3, 3) intrinsics at H x W.
        hypotheses: (B, D, H/4 or 1, W/4 or 1) inverse depths.

    Returns:
        (B, D, H/4, W/4, 2): of windows of 4 and of 12 pixels; about 0 where they are plain or unlike, up to 2.3.
    """
    B, _, H, W = grey_k.shape
    h, w = H // STRIDE, W // STRIDE
    K, d = K.to(hypotheses), hypotheses.expand(B, -1, h, w)
    pixels_k = F.pixel_unshuffle(grey_k, STRIDE)  # (B, 16, h, w)
    mean_k, square_k = pixels_k.mean(1, keepdim=True), pixels_k.square().mean(1, keepdim=True)
    total = [torch.zeros_like(d) for _ in range(WINDOWS)]
    count = torch.zeros_like(d)
    for m, grey_j in enumerate(greys_j):
        mean, square, product, seen = _warped_moments(pixels_k, grey_j, T_jk[:, m].to(hypotheses), K, d)
        count = count + seen
        for n in range(WINDOWS):
            if n:
                mean, square, product = (_with_neighbours(x) for x in (mean, square, product))
            a, aa = (_with_neighbours(x) for x in (mean_k, square_k)) if n else (mean_k, square_k)
            spread = ((aa - a * a).clamp_min(0) + NOISE) * ((square - mean * mean).clamp_min(0) + NOISE)
            correlation = (product - a * mean) * spread.rsqrt()
            total[n] = total[n] - 0.5 * seen * ((1 - correlation).clamp_min(0) + UNLIKE).log()
    return torch.stack(total, -1) / count.clamp_min(1)[..., None]


def _warped_moments(
    pixels_k: Tensor, grey_j: Tensor, T_jk: Tensor, K: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per cell and hypothesis (B, D, h, w): the means of view j, of its square and of its product with the keyframe,
    and whether view j has the middle of the cell."""
    B, D, h, w = d.shape
    H, W = grey_j.shape[-2:]
    A = K @ T_jk[:, :3, :3] @ torch.linalg.inv(K)
    b = (K @ T_jk[:, :3, 3:])[..., None, None]  # (B, 3, 1, 1, 1)
    v, u = torch.meshgrid(STRIDE * torch.arange(h), STRIDE * torch.arange(w), indexing="ij")
    corners = torch.stack([u, v, torch.ones_like(u)]).flatten(1).to(d)  # (3, h w)
    offsets = [(float(n % STRIDE), float(n // STRIDE)) for n in range(STRIDE**2)]

    def place(du: float, dv: float) -> Tensor:
        offset = torch.tensor([[du], [dv], [0.0]], dtype=d.dtype, device=d.device)
        x = (A @ (corners + offset)).view(B, 3, 1, h, w)
        z = 1 / (x[:, 2] + d * b[:, 2]).clamp_min(MIN_DEPTH_RATIO)
        return torch.stack([(x[:, 0] + d * b[:, 0]) * z, (x[:, 1] + d * b[:, 1]) * z], -1)  # (B, D, h, w, 2)

    mean, square, product = (torch.zeros_like(d) for _ in range(3))
    for n, (du, dv) in enumerate(offsets):
        warped = sample(grey_j, place(du, dv).flatten(1, 2), padding="border").view(B, D, h, w)
        mean += warped
        square.addcmul_(warped, warped)
        product.addcmul_(warped, pixels_k[:, n : n + 1])
    middle = (STRIDE - 1) / 2
    seen = in_image(place(middle, middle), H, W).to(d)
    return mean / STRIDE**2, square / STRIDE**2, product / STRIDE**2, seen


def _with_neighbours(means: Tensor) -> Tensor:
    """Means (B, C, h, w) of cells -> means over 3x3 of them, fewer at the border."""
    return F.avg_pool2d(means, 3, 1, 1, count_include_pad=False)

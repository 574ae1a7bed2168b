"""What JPEG does to an image: block DCT, quantisation, chroma at half size; entropy coding loses nothing.

Reference: ITU-T T.81 annex K for the tables and the cosine transform; the quality scale of libjpeg.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMA = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
] + [[99] * 8] * 4
_YCC_FROM_RGB = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


def _dct_matrix(like: Tensor) -> Tensor:
    """(8, 8) orthonormal DCT-II, rows are frequencies."""
    k = torch.arange(8, dtype=like.dtype, device=like.device)
    matrix = torch.cos(torch.pi * k[:, None] * (2 * k + 1) / 16) / 2
    matrix[0] /= 2**0.5
    return matrix


def _quantised(plane: Tensor, table: Tensor) -> Tensor:
    """Planes (B, C, H, W), sides multiples of 8, in 0..255 about zero, through tables (B, 8, 8)."""
    B, C, H, W = plane.shape
    D = _dct_matrix(plane)
    blocks = plane.view(B, C, H // 8, 8, W // 8, 8).transpose(3, 4)
    q = table.view(B, 1, 1, 1, 8, 8)
    blocks = D.mT @ (torch.round(D @ blocks @ D.mT / q) * q) @ D
    return blocks.transpose(3, 4).reshape(B, C, H, W)


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """Compress and expand.

    Args:
        image: (B, 3, H, W) RGB in [0, 1].
        quality: (B,) in 1..100 as of libjpeg.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    B, _, H, W = image.shape
    quality = quality.to(image).clamp(1, 100)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None] / 100
    to_ycc = image.new_tensor(_YCC_FROM_RGB)
    padded = F.pad(image, (0, -W % 16, 0, -H % 16), mode="replicate")
    ycc = 255 * torch.einsum("ij,bjhw->bihw", to_ycc, padded)
    luma = _quantised(ycc[:, :1] - 128, (image.new_tensor(_LUMA) * scale).round().clamp(1, 255)) + 128
    half = F.avg_pool2d(ycc[:, 1:], 2)
    half = _quantised(half, (image.new_tensor(_CHROMA) * scale).round().clamp(1, 255))
    chroma = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), torch.cat([luma, chroma], 1)) / 255
    return rgb[..., :H, :W].clamp(0, 1)

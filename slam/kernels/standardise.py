"""Images as a network reads them: of zero mean and unit variance each, blocks of 2x2 pixels stacked as channels.

A loop for one byte a channel on the CPU, without gradients; tensors elsewhere.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.kernels.compile import FINITE, compiled, has_loops

MIN_CONTRAST = 0.02  # an image flatter than this (a covered lens) is not amplified further
FULL_SCALE = 255


def standardise(images: Tensor) -> Tensor:
    """Images (N, 3, H, W), uint8 or float in [0, 1] -> float, zero mean and unit variance each: takes exposure and
    contrast out."""
    images = images.float() / FULL_SCALE if images.dtype == torch.uint8 else images
    centred = images - images.mean((1, 2, 3), keepdim=True)
    std = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
    return centred / std.clamp_min(MIN_CONTRAST)


def standardised_blocks(images: Tensor) -> Tensor:
    """Images (N, 3, H, W), uint8 or float in [0, 1] -> (N, 12, H/2, W/2) float, channels last, as `pixel_unshuffle`
    orders them."""
    if images.dtype == torch.uint8 and has_loops(images):
        N, _, H, W = images.shape
        blocks = torch.empty(N, H // 2, W // 2, 12)
        _blocks_loop(images.permute(0, 2, 3, 1).numpy(), blocks.numpy())
        return blocks.permute(0, 3, 1, 2)
    return F.pixel_unshuffle(standardise(images), 2).contiguous(memory_format=torch.channels_last)


@compiled(FINITE)
def _blocks_loop(images: np.ndarray, blocks: np.ndarray) -> None:
    """images (N, H, W, 3) uint8 -> blocks (N, H/2, W/2, 12) float32."""
    N, H, W, C = images.shape
    for n in range(N):
        image, total, squares = images[n], np.int64(0), np.int64(0)
        for y in range(H):
            for x in range(W):
                for c in range(C):
                    value = np.int64(image[y, x, c])
                    total += value
                    squares += value * value
        mean = total / image.size
        std = np.sqrt(max(squares / image.size - mean * mean, 0.0))
        scale = np.float32(1 / max(std, MIN_CONTRAST * FULL_SCALE))
        offset = np.float32(mean)
        for y in range(H // 2):
            for x in range(W // 2):
                block = blocks[n, y, x]
                for c in range(C):
                    for k in range(4):
                        block[4 * c + k] = scale * (np.float32(image[2 * y + k // 2, 2 * x + k % 2, c]) - offset)

"""Network for the motion between two pictures, for videos that the system cannot track; training alone uses it.

It sees how alike the cells of one image are to those about the same place in the other, by the features that the motion
network matches, and how the first image looks; no gradient goes into the encoder. Its unit of length is that of the
depth which is trained beside it.

References: Zhou et al., Unsupervised learning of depth and ego-motion from video, CVPR 2017; Dosovitskiy et al.,
FlowNet: learning optical flow with convolutional networks, ICCV 2015 (correlation with a neighbourhood).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slam.geometry import se3
from slam.networks.encoder import EncoderConfig, FeatureMaps
from slam.networks.precision import conv_relu

WIDTH = 64  # channels
RADIUS = 3  # cells of 8 pixels
OUTPUT_SCALE = 0.01  # a small motion before any training
FIRST_WEIGHT = 0.1  # standard deviation of the last layer's first weights: not zero, so that all layers learn at once


class RelativePoseNet(nn.Module):
    """Motion from one picture to another."""

    def __init__(self, encoder_config: EncoderConfig = EncoderConfig()) -> None:
        super().__init__()
        self.first = nn.Conv2d((2 * RADIUS + 1) ** 2 + encoder_config.width_8, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.third = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.twist = nn.Conv2d(WIDTH, 6, 1, bias=False)
        nn.init.normal_(self.twist.weight, 0, FIRST_WEIGHT)

    def forward(self, maps_a: FeatureMaps, maps_b: FeatureMaps) -> Tensor:
        """(B, 4, 4) float64 T_ba, view b from view a, of B pairs of images."""
        alike = correlation(maps_a.matching.detach().float(), maps_b.matching.detach().float())
        x = torch.cat([alike, maps_a.trunk.detach().float()], 1)
        x = conv_relu(self.third, conv_relu(self.second, conv_relu(self.first, x)))
        return se3.exp(OUTPUT_SCALE * self.twist(x).mean((2, 3)).double())


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean products of features (B, C, h, w) of a with those of b up to RADIUS cells away: (B, (2 RADIUS + 1)^2, h, w),
    row by row of the shifts; 0 beyond the border."""
    h, w = a.shape[-2:]
    b = F.pad(b, (RADIUS,) * 4)
    shifts = range(2 * RADIUS + 1)
    return torch.stack([(a * b[..., y : y + h, x : x + w]).mean(1) for y in shifts for x in shifts], 1)

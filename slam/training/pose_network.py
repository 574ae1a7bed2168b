"""Network for the motion between two pictures, for videos that the system cannot track; training alone uses it.

Reads the maps of the motion network's encoder, without a gradient into them. Its unit of length is that of the depth
which is trained beside it.

Reference: Zhou et al., Unsupervised learning of depth and ego-motion from video, CVPR 2017.
"""

import torch
from torch import Tensor, nn

from slam.geometry import se3
from slam.networks.encoder import EncoderConfig, FeatureMaps
from slam.networks.precision import conv_relu

WIDTH = 96  # channels
OUTPUT_SCALE = 0.01  # a small motion before any training
FIRST_WEIGHT = 0.1  # standard deviation of the last layer's first weights: not zero, so that all layers learn at once


class RelativePoseNet(nn.Module):
    """Motion from one picture to another."""

    def __init__(self, encoder_config: EncoderConfig = EncoderConfig()) -> None:
        super().__init__()
        self.compare = nn.Conv2d(2 * encoder_config.width_8, WIDTH, 3, stride=2, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.third = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.twist = nn.Conv2d(WIDTH, 6, 1, bias=False)
        nn.init.normal_(self.twist.weight, 0, FIRST_WEIGHT)

    def forward(self, maps_a: FeatureMaps, maps_b: FeatureMaps) -> Tensor:
        """(B, 4, 4) float64 T_ba, view b from view a, of B pairs of images."""
        x = torch.cat([maps_a.trunk.detach(), maps_b.trunk.detach()], 1).float()
        x = conv_relu(self.third, conv_relu(self.second, conv_relu(self.compare, x)))
        return se3.exp(OUTPUT_SCALE * self.twist(x).mean((2, 3)).double())

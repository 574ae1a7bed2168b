"""Prior network: inverse depth of one picture, by what rooms and streets usually look like.

It reads the maps of the motion network's encoder, without a gradient into them: training it cannot change tracking.
Two more levels, at 1/16 and 1/32, see the whole picture; a decoder with skips brings it back to 1/4. The shape (log
inverse depth of zero mean) and the scale (one number for the picture) are separate outputs, as the scale is the harder
one. The directions of the pixels enter as an image, because a near thing through a wide lens looks like a far one
through a narrow lens.

References: Ronneberger et al., U-Net, MICCAI 2015 (skips); Eigen, Puhrsch & Fergus, Depth map prediction from a single
image, NIPS 2014 (the global scale is a large part of the error); Facil et al., CAM-Convs, CVPR 2019 (directions as
input); Ji et al., MonoIndoor, ICCV 2021 (scale and shape apart).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slam.errors import check_range
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import rays
from slam.networks.encoder import MAX_WIDTH, EncoderConfig, FeatureMaps, ResidualBlock
from slam.networks.precision import channels_last, conv_relu, half_precision

FIRST_SIGMA = 0.5  # relative standard deviation before any training
STRIDE = 4  # pixels, side of a cell of the result
MAX_LOG = 6.0  # of the inverse depth to both sides of 1: no depth is further off in any unit


@dataclass(frozen=True)
class PriorNetConfig:
    """Widths of the prior network, channels."""

    width_4: int = 48  # at 1/4 of the image's sides
    width_8: int = 80
    width_16: int = 112
    width_32: int = 160

    def __post_init__(self) -> None:
        check_range(self, 1, MAX_WIDTH, *vars(self))


@dataclass(frozen=True, eq=False)
class PriorOutput:
    """What N pictures of size H x W show, at cells of STRIDE pixels."""

    log_inv_depth: Tensor  # (N, H/4, W/4) float32 log of inverse z-depth, 1 / metre as far as the scale can be seen
    log_sigma: Tensor  # (N, H/4, W/4) log of the relative standard deviation, without the scale's part

    def full_size(self) -> Tensor:
        """(N, H, W) inverse depth, interpolated."""
        return enlarged(self.log_inv_depth[:, None], STRIDE).exp()[:, 0]


class PriorNet(nn.Module):
    """Depth of single pictures on features of the encoder that `FlowSE3` owns."""

    def __init__(
        self, encoder_config: EncoderConfig = EncoderConfig(), config: PriorNetConfig = PriorNetConfig()
    ) -> None:
        super().__init__()
        self.config = c = config
        self.to_16 = nn.Conv2d(encoder_config.width_8 + 2, c.width_16, 3, stride=2, padding=1)
        self.blocks_16 = nn.Sequential(ResidualBlock(c.width_16), ResidualBlock(c.width_16))
        self.to_32 = nn.Conv2d(c.width_16, c.width_32, 3, stride=2, padding=1)
        self.blocks_32 = nn.Sequential(ResidualBlock(c.width_32), ResidualBlock(c.width_32))
        self.whole = nn.Linear(c.width_32, c.width_32)  # of the mean over the picture
        self.scale = nn.Linear(c.width_32, 1)
        self.up_16 = nn.Conv2d(c.width_32, c.width_16, 1)
        self.merge_16 = ResidualBlock(c.width_16)
        self.up_8 = nn.Conv2d(c.width_16, c.width_8, 1)
        self.skip_8 = nn.Conv2d(encoder_config.width_8 + 2, c.width_8, 1)
        self.merge_8 = ResidualBlock(c.width_8)
        self.up_4 = nn.Conv2d(c.width_8, c.width_4, 1)
        self.skip_4 = nn.Conv2d(encoder_config.width_4, c.width_4, 1)
        self.merge_4 = ResidualBlock(c.width_4)
        self.head = nn.Conv2d(c.width_4, 32, 3, padding=1)
        self.shape = nn.Conv2d(32, 2, 1)  # log inverse depth, log sigma
        for parameter in (*self.scale.parameters(), *self.shape.parameters()):  # a constant depth of 1 at first
            nn.init.zeros_(parameter)
        channels_last(self)

    def forward(self, maps: FeatureMaps, K: Tensor) -> PriorOutput:
        """Depth of N pictures.

        Args:
            maps: of N images, from `FlowSE3.encode`.
            K: (N, 3, 3) intrinsics at image size.
        """
        x4, x8 = maps.trunk_4.detach(), maps.trunk.detach()
        directions = rays(scaled_intrinsics(K, 1 / 8).float(), *x8.shape[-2:])[..., :2].permute(0, 3, 1, 2)
        x8 = torch.cat([x8, directions.to(x8)], 1)
        with half_precision(self, x8.device):
            x16 = self.blocks_16(conv_relu(self.to_16, x8))
            x32 = self.blocks_32(conv_relu(self.to_32, x16))
            whole = F.relu(self.whole(x32.mean((2, 3))))
            x32 = F.relu(x32 + whole[..., None, None])
            x16 = self.merge_16(F.relu(x16 + enlarged(self.up_16(x32), 2, x16.shape[-2:])))
            x8 = self.merge_8(F.relu(self.skip_8(x8) + enlarged(self.up_8(x16), 2, x8.shape[-2:])))
            x4 = self.merge_4(F.relu(self.skip_4(x4) + enlarged(self.up_4(x8), 2)))
            shape = self.shape(conv_relu(self.head, x4))
        log_inv_depth, log_sigma = shape.float().unbind(1)
        log_scale = self.scale(whole.float())[:, 0]
        log_inv_depth = log_inv_depth - log_inv_depth.mean((1, 2), keepdim=True) + log_scale[:, None, None]
        log_sigma = log_sigma + math.log(FIRST_SIGMA)
        return PriorOutput(log_inv_depth.clamp(-MAX_LOG, MAX_LOG), log_sigma.clamp(-MAX_LOG, MAX_LOG))


def enlarged(x: Tensor, factor: int, size: torch.Size | None = None) -> Tensor:
    """Maps (N, C, h, w) enlarged smoothly, to `size` where that is not quite the factor times theirs."""
    size = size or torch.Size([factor * side for side in x.shape[-2:]])
    return F.interpolate(x, size, mode="bilinear", align_corners=False)

"""Image encoder shared by motion and stereo: one convolutional trunk of stride 2, 4 and 8.

There are no normalisation layers inside: on a CPU each costs more than the convolution beside it. Every image is
standardised before it enters, and every channel to be matched when it leaves, so that scalar products of even random
features single out the same place. Residual branches start at zero: the untrained trunk is well scaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slam.errors import check_range
from slam.kernels.standardise import standardise, standardised_blocks
from slam.networks.precision import conv_relu

MAX_WIDTH = 512  # channels of any layer: a weights file states them, and memory is taken before its data are read
MAX_BLOCKS = 16


@dataclass(frozen=True)
class EncoderConfig:
    """Widths of the encoder, channels."""

    width_2: int = 32  # at 1/2 of the image's sides
    width_4: int = 48  # at 1/4
    width_8: int = 80  # at 1/8
    blocks_4: int = 1  # residual blocks at 1/4
    blocks_8: int = 2  # residual blocks at 1/8
    matching: int = 64  # matching features at 1/8, for motion
    fine: int = 32  # matching features at 1/4 that motion looks up for the last fraction of a pixel
    stereo: int = 16  # matching features at 1/4, for stereo
    image: int = 16  # appearance features at 1/4, for stereo's context

    def __post_init__(self) -> None:
        check_range(self, 1, MAX_BLOCKS, "blocks_4", "blocks_8")
        check_range(self, 1, MAX_WIDTH, *(vars(self).keys() - {"blocks_4", "blocks_8"}))


def standardise_channels(features: Tensor) -> Tensor:
    """Features (N, C, h, w) -> float32 of zero mean and unit variance in each channel of each image."""
    features = features.float()
    mean = features.mean((2, 3), keepdim=True)
    variance = (features - mean).square().mean((2, 3), keepdim=True)
    return (features - mean) * (variance + 1e-4).rsqrt()


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), then relu; the branch starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        return F.relu(x + self.second(conv_relu(self.first, x)))


Maps = TypeVar("Maps", bound="ImageMaps")


class ImageMaps:
    """Tensors whose first axis counts the images."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self: Maps, index: Tensor | slice) -> Maps:
        return type(self)(**{name: maps[index] for name, maps in vars(self).items()})

    @classmethod
    def stack(cls: type[Maps], maps: Sequence[Maps]) -> Maps:
        """Maps of several images as one batch."""
        if len(maps) == 1:
            return maps[0]
        return cls(**{name: torch.cat([getattr(m, name) for m in maps]) for name in vars(maps[0])})


@dataclass(frozen=True, eq=False)
class FeatureMaps(ImageMaps):
    """What motion needs of N images of size H x W, and what the maps of stereo are made of."""

    matching: Tensor  # (N, matching, H/8, W/8)
    trunk: Tensor  # (N, width_8, H/8, W/8)
    trunk_4: Tensor  # (N, width_4, H/4, W/4)
    fine_i: Tensor  # (N, fine, H/8, W/8) what a cell looks for in the fine map of another image
    fine_j: Tensor  # (N, fine, H/4, W/4) that map


@dataclass(frozen=True, eq=False)
class StereoMaps(ImageMaps):
    """What stereo needs of N images of size H x W: only keyframes have such maps."""

    stereo: Tensor  # (N, stereo, H/4, W/4)
    image: Tensor  # (N, image, H/4, W/4)
    gray: Tensor  # (N, 1, H, W) brightness, standardised


class Encoder(nn.Module):
    """Images -> feature maps at 1/8 and 1/4."""

    def __init__(self, config: EncoderConfig = EncoderConfig()) -> None:
        super().__init__()
        self.config = config
        c = config
        self.to_2 = nn.Conv2d(12, c.width_2, 3, padding=1)  # on 2x2 pixels stacked: a stride of 2 at no cost
        self.to_4 = nn.Conv2d(c.width_2, c.width_4, 3, stride=2, padding=1)
        self.blocks_4 = nn.Sequential(*[ResidualBlock(c.width_4) for _ in range(c.blocks_4)])
        self.to_8 = nn.Conv2d(c.width_4, c.width_8, 3, stride=2, padding=1)
        self.blocks_8 = nn.Sequential(*[ResidualBlock(c.width_8) for _ in range(c.blocks_8)])
        self.matching = nn.Conv2d(c.width_8, c.matching, 1)
        self.fine_i = nn.Conv2d(c.width_4, c.fine, 4, stride=2, padding=1)  # centred on the cell
        self.fine_j = nn.Conv2d(c.width_4, c.fine, 1)
        self.from_8 = nn.Conv2d(c.width_8, c.stereo + c.image, 1)
        self.stereo = nn.Conv2d(c.width_4, c.stereo + c.image, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        for layer in (self.to_2, self.to_4, self.to_8):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> FeatureMaps:
        """Encode images.

        Args:
            images: (N, 3, H, W) RGB, uint8 or float in [0, 1], H and W multiples of 8.

        Returns:
            FeatureMaps of N images.

        Raises:
            ValueError: if a side is no multiple of 8.
        """
        if images.shape[-2] % 8 or images.shape[-1] % 8:
            raise ValueError(f"image sides must be multiples of 8, got {tuple(images.shape)}")
        x = conv_relu(self.to_2, standardised_blocks(images))
        x4 = self.blocks_4(conv_relu(self.to_4, x))
        x8 = self.blocks_8(conv_relu(self.to_8, x4))
        matching, fine_i, fine_j = self.matching(x8), self.fine_i(x4), self.fine_j(x4)
        matching, fine_i, fine_j = (standardise_channels(f) for f in (matching, fine_i, fine_j))
        return FeatureMaps(matching, x8, x4, fine_i, fine_j)

    def for_stereo(self, maps: FeatureMaps, images: Tensor) -> StereoMaps:
        """The maps of stereo.

        Args:
            maps: of N images, from `forward`.
            images: (N, 3, H, W) as given there.
        """
        wide = F.interpolate(self.from_8(maps.trunk), scale_factor=2.0, mode="nearest")
        stereo, image = (self.stereo(maps.trunk_4) + wide).split([self.config.stereo, self.config.image], 1)
        gray = standardise(images).float().mean(1, keepdim=True)
        return StereoMaps(standardise_channels(stereo), F.relu(image), gray)

"""Stereo network: inverse depth of a keyframe by two plane sweeps through neighbouring views.

The first sweep covers the whole range, the second a few standard deviations around what the first has found.

References: Teed & Deng, DeepV2D, ICLR 2020, sec. 3.1 (volume pooled over views, 3D regulariser, soft-argmax); Guo et
al., Group-wise correlation stereo network, CVPR 2019; Gu et al., Cascade cost volume, CVPR 2020 (two sweeps); RAFT
(convex upsampling). Deviations from DeepV2D: hypotheses are uniform in inverse depth, the volume holds correlations of
features and the similarity (ZNCC) of the images, and each 3D convolution is split into one over the image and one over
the hypotheses, so that all are 2D convolutions on the same memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slam.errors import ConfigError, check_range
from slam.geometry.camera import scaled_intrinsics
from slam.kernels.feature_sweep import correlation_volume
from slam.kernels.zncc import STRIDE, WINDOWS, zncc_volume
from slam.networks.encoder import EncoderConfig, StereoMaps
from slam.networks.precision import channels_last, conv_relu, half_precision

REACH = 3.0  # standard deviations from the first sweep's depth to the ends of the second
MIN_REACH = 0.03  # and at least this share of the depth, at most ...
MAX_REACH = 0.8
MIN_INV_DEPTH = 1e-6


@dataclass(frozen=True)
class StereoNetConfig:
    """Sizes of the stereo network."""

    groups: int = 8  # correlations per hypothesis and pixel
    width: int = 16  # channels of the volume at its finest; twice and three times that further down
    planes: int = 32  # hypotheses of the first sweep, a multiple of 4
    near_planes: int = 16  # of the second, likewise

    def __post_init__(self) -> None:
        if self.planes % 4 or self.near_planes % 4:
            raise ConfigError(f"both counts of planes must be a multiple of 4, got {self.planes}, {self.near_planes}")
        check_range(self, 4, 256, "planes", "near_planes")
        check_range(self, 1, 128, "groups", "width")


def wide_hypotheses(low: Tensor, high: Tensor, planes: int) -> Tensor:
    """Inverse depths (B, planes, 1, 1), uniform from low to high, (B,) each."""
    share = torch.linspace(0, 1, planes, device=low.device, dtype=low.dtype)[None, :]
    return (low[:, None] + (high - low)[:, None] * share)[..., None, None]


def near_hypotheses(inv_depth: Tensor, sigma: Tensor, planes: int) -> Tensor:
    """Inverse depths (B, planes, h, w) around (B, h, w) ones, uniform over REACH standard deviations to both sides."""
    reach = (REACH * sigma).clamp(min=MIN_REACH * inv_depth, max=MAX_REACH * inv_depth)
    share = torch.linspace(-1, 1, planes, device=inv_depth.device, dtype=inv_depth.dtype)
    return (inv_depth[:, None] + reach[:, None] * share[:, None, None]).clamp_min(MIN_INV_DEPTH)


def add_relu(x: Tensor, y: Tensor) -> Tensor:
    """relu(x + y) of equal shapes, or y broadcast; without gradients in the memory of x."""
    return F.relu(x + y) if torch.is_grad_enabled() else x.add_(y).relu_()


class VolumeConv(nn.Module):
    """A 3x3x3 convolution split into 3x3 over the image and 3 over the hypotheses, with a relu between.

    Volumes are (B, D, h, w, C) in memory; both convolutions read that memory as images in channels_last.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.space = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.planes = nn.Conv2d(outputs, outputs, (3, 1), stride=(stride, 1), padding=(1, 0))

    def forward(self, volume: Tensor) -> Tensor:
        """(B, D, h, w, C) -> (B, D / stride, h / stride, w / stride, C_out)."""
        B, D = volume.shape[:2]
        x = conv_relu(self.space, volume.flatten(0, 1).permute(0, 3, 1, 2))
        h, w = x.shape[-2:]
        x = x.permute(0, 2, 3, 1).reshape(B, D, h * w, -1)
        x = self.planes(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x.unflatten(2, (h, w))


def upsample_nearest(volume: Tensor, like: Tensor) -> Tensor:
    """Repeat (B, D, h, w, C) to twice its size, cut to that of `like` (odd sides)."""
    fine = F.interpolate(volume.permute(0, 4, 1, 2, 3), like.shape[1:4], mode="nearest")
    return fine.permute(0, 2, 3, 4, 1)


class Hourglass(nn.Module):
    """Light 3D hourglass, two levels down, with additive skips."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.stem = VolumeConv(inputs, width)
        self.down_2 = VolumeConv(width, 2 * width, 2)
        self.keep_2 = VolumeConv(2 * width, 2 * width)
        self.down_4 = VolumeConv(2 * width, 3 * width, 2)
        self.keep_4 = VolumeConv(3 * width, 3 * width)
        self.up_2 = nn.Linear(3 * width, 2 * width)
        self.merge_2 = VolumeConv(2 * width, 2 * width)
        self.up_1 = nn.Linear(2 * width, width)
        self.merge_1 = VolumeConv(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, volume: Tensor, context: Tensor) -> Tensor:
        """Volume (B, D, h, w, C) and keyframe context (B, 1, h, w, width) -> logits (B, D, h, w)."""
        x1 = add_relu(self.stem(volume), context)
        x2 = F.relu(self.down_2(x1))
        x2 = add_relu(self.keep_2(x2), x2)
        x4 = F.relu(self.down_4(x2))
        x4 = add_relu(self.keep_4(x4), x4)
        x2 = add_relu(upsample_nearest(self.up_2(x4), x2), x2)
        x2 = add_relu(self.merge_2(x2), x2)
        x1 = add_relu(upsample_nearest(self.up_1(x2), x1), x1)
        x1 = add_relu(self.merge_1(x1), x1)
        return self.head(x1).squeeze(-1)


def convex_upsample(values: Tensor, logits: Tensor) -> Tensor:
    """Enlarge (B, C, h, w) four times: fine pixels are convex mixtures of 3x3 coarse ones, logits (B, 144, h, w)."""
    B, C, h, w = values.shape
    mixture = logits.float().view(B, 1, 9, STRIDE, STRIDE, h, w).softmax(2)
    patches = F.unfold(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3).view(B, C, 9, 1, 1, h, w)
    fine = (mixture * patches).sum(2)  # (B, C, 4, 4, h, w)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(B, C, STRIDE * h, STRIDE * w)


class Sweep(nn.Module):
    """One sweep: regularised volume -> inverse depth and its standard deviation, at 1/4."""

    def __init__(self, encoder_config: EncoderConfig, config: StereoNetConfig) -> None:
        super().__init__()
        self.groups = config.groups
        self.context = nn.Conv2d(encoder_config.image, config.width, 3, padding=1)
        self.hourglass = Hourglass(config.groups + 1 + WINDOWS, config.width)
        self.sigma_head = nn.Sequential(
            nn.Conv2d(encoder_config.image + 2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1)
        )

    def forward(
        self, maps_k: StereoMaps, maps_j: Sequence[StereoMaps], T_jk: Tensor, K: Tensor, hypotheses: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Hypotheses (B, D, h or 1, w or 1) -> inverse depth (B, h, w) and sigma (B, h, w); others as `StereoNet`."""
        K_4, device = scaled_intrinsics(K, 1 / STRIDE), maps_k.image.device
        volume = correlation_volume(maps_k.stereo, [m.stereo for m in maps_j], T_jk, K_4, hypotheses, self.groups)
        with torch.no_grad():
            alike = zncc_volume(maps_k.gray, [m.gray for m in maps_j], T_jk, K, hypotheses)
        with half_precision(self, device):
            context = self.context(maps_k.image).permute(0, 2, 3, 1)[:, None]
            logits = self.hourglass(torch.cat([volume, alike], -1), context)
        share = logits.float().softmax(1)
        inv_depth = (share * hypotheses).sum(1)
        spread = (share * (hypotheses - inv_depth[:, None]).square()).sum(1).clamp_min(1e-12).sqrt().detach()
        spacing = (hypotheses[:, -1] - hypotheses[:, 0]) / (hypotheses.shape[1] - 1)
        cues = [(spread / spacing).log()[:, None], share.amax(1, keepdim=True).detach()]
        with half_precision(self, device):
            log_factor = self.sigma_head(torch.cat([maps_k.image.detach(), *cues], 1)).float()[:, 0]
        return inv_depth, (spread + 0.1 * spacing) * log_factor.clamp(-5, 5).exp()


@dataclass(frozen=True, eq=False)
class StereoOutput:
    """Inverse depth of B keyframes and its standard deviation, in inverse depth."""

    inv_depth: Tensor  # (B, H, W) float32
    sigma: Tensor  # (B, H, W)
    first_inv_depth: Tensor  # (B, H/4, W/4) of the first sweep
    first_sigma: Tensor  # (B, H/4, W/4)


class StereoNet(nn.Module):
    """Plane-sweep stereo on features of the encoder that `FlowSE3` owns."""

    def __init__(
        self, encoder_config: EncoderConfig = EncoderConfig(), config: StereoNetConfig = StereoNetConfig()
    ) -> None:
        super().__init__()
        if encoder_config.stereo % config.groups:
            raise ConfigError(f"stereo.groups must divide encoder.stereo={encoder_config.stereo}, got {config.groups}")
        self.config = config
        self.wide = Sweep(encoder_config, config)
        self.near = Sweep(encoder_config, config)
        self.mask = nn.Sequential(
            nn.Conv2d(encoder_config.image + 1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 9 * STRIDE**2, 1)
        )
        channels_last(self)

    def forward(
        self, maps_k: StereoMaps, maps_j: Sequence[StereoMaps], T_jk: Tensor, K: Tensor, low: Tensor, high: Tensor
    ) -> StereoOutput:
        """Inverse depth of B keyframes from M neighbours each.

        Args:
            maps_k: of B keyframes, from `FlowSE3.encode_for_stereo`.
            maps_j: M times of B images: the m-th neighbours of all keyframes.
            T_jk: (B, M, 4, 4) neighbour from keyframe.
            K: (B, 3, 3) intrinsics at network size.
            low, high: (B,) range of inverse depths to search.
        """
        views = (maps_k, maps_j, T_jk, K)
        first, first_sigma = self.wide(*views, wide_hypotheses(low, high, self.config.planes))
        hypotheses = near_hypotheses(first.detach(), first_sigma.detach(), self.config.near_planes)
        coarse, sigma = self.near(*views, hypotheses)
        relative = coarse.detach() / coarse.detach().mean((1, 2), keepdim=True)
        with half_precision(self, coarse.device):
            mask = self.mask(torch.cat([maps_k.image, relative[:, None]], 1))
        fine = convex_upsample(torch.stack([coarse, sigma], 1), mask)
        return StereoOutput(fine[:, 0], fine[:, 1], first, first_sigma)

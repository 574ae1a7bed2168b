"""Flow-SE3's network: a recurrent unit that finds residual flow and confidence around the current reprojection.

References: Teed & Deng, DeepV2D, ICLR 2020, sec. 3.2; RAFT, ECCV 2020; DROID-SLAM, NeurIPS 2021 (global context of
the gates). Deviations: a recurrent unit on correlations in place of DeepV2D's encoder-decoder on warped features; one
level of the pyramid is finer than the flow (cells of 1/8 looked up in a map of 1/4), for the last fraction of a pixel.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slam.errors import check_range
from slam.geometry.camera import pixel_grid
from slam.kernels.correlation import FeaturePyramid, Pyramid, pooled_levels, pyramid_of
from slam.networks.encoder import MAX_WIDTH, Encoder, EncoderConfig, FeatureMaps, StereoMaps
from slam.networks.precision import channels_last, conv_relu, half_precision
from slam.solvers.flow_se3 import MotionStep, flow_se3

FLOW_UNIT = 4.0  # flow enters the network in units of this many pixels at 1/8 ...
MAX_FLOW = 16.0  # ... clipped to this many pixels


@dataclass(frozen=True)
class MotionNetConfig:
    """Sizes of the recurrent unit."""

    hidden: int = 64  # channels of the hidden state
    motion: int = 48  # channels made of correlation and flow
    levels: int = 3  # of the correlation pyramid at 1/8 and coarser; one more at 1/4
    radius: int = 3  # of the lookup, pixels of each level

    def __post_init__(self) -> None:
        check_range(self, 1, MAX_WIDTH, "hidden", "motion")
        check_range(self, 1, 8, "levels", "radius")


@dataclass(frozen=True, eq=False)
class Context:
    """What view i brings to an edge: computed once for each keyframe."""

    hidden: Tensor  # (N, hidden, h, w) first hidden state
    gates: Tensor  # (N, 3 * hidden, h, w) its share of the gates


@dataclass(frozen=True, eq=False)
class MotionState:
    """State of E edges between iterations."""

    pyramid: Pyramid | FeaturePyramid
    context_gates: Tensor  # (E, 3 * hidden, h, w)
    hidden: Tensor  # (E, hidden, h, w)
    target_uv: Tensor | None = None  # (E, h, w, 2) where the last iteration wanted the pixels


class RecurrentUnit(nn.Module):
    """Convolutional GRU whose gates see motion features, a fixed context and the global mean of the hidden state."""

    def __init__(self, hidden: int, motion: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(hidden + motion, 2 * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(hidden + motion, hidden, 3, padding=1)
        self.attention = nn.Conv2d(hidden, hidden, 1)
        self.global_context = nn.Conv2d(hidden, 3 * hidden, 1)

    def forward(self, hidden: Tensor, motion: Tensor, context_gates: Tensor) -> Tensor:
        """hidden (E, n, h, w), motion (E, m, h, w), context_gates (E, 3 n, h, w) -> new hidden state (E, n, h, w)."""
        n = hidden.shape[1]
        attended = (self.attention(hidden).sigmoid() * hidden).mean((2, 3), keepdim=True)
        bias = context_gates + self.global_context(attended)
        update, reset = (self.gates(torch.cat([hidden, motion], 1)) + bias[:, : 2 * n]).sigmoid().chunk(2, 1)
        candidate = (self.candidate(torch.cat([reset * hidden, motion], 1)) + bias[:, 2 * n :]).tanh()
        return torch.lerp(hidden, candidate, update)


class FlowSE3(nn.Module):
    """Motion network: `encode`, `context`, `start` and `update`; `forward` unrolls it with the solver for training."""

    stride = 8

    def __init__(
        self, encoder_config: EncoderConfig = EncoderConfig(), config: MotionNetConfig = MotionNetConfig()
    ) -> None:
        super().__init__()
        self.config = config
        n, m = config.hidden, config.motion
        self.encoder = Encoder(encoder_config)
        self.context_head = nn.Conv2d(encoder_config.width_8, 4 * n, 3, padding=1)
        self.from_correlation = nn.Conv2d((1 + config.levels) * (2 * config.radius + 1) ** 2, 64, 1)
        self.from_flow = nn.Conv2d(5, 32, 3, padding=1)
        self.to_motion = nn.Conv2d(96, m, 3, padding=1)
        self.unit = RecurrentUnit(n, m)
        self.head = nn.Conv2d(n, 64, 3, padding=1)
        self.flow = nn.Conv2d(64, 4, 3, padding=1)  # residual u, v and logits of their confidence
        with torch.no_grad():
            self.flow.weight *= 0.1
        channels_last(self)

    def encode(self, images: Tensor) -> FeatureMaps:
        """Images (N, 3, H, W) RGB, uint8 or float in [0, 1] -> feature maps of all."""
        with half_precision(self, images.device):
            return self.encoder(images)

    def encode_for_stereo(self, maps: FeatureMaps, images: Tensor) -> StereoMaps:
        """The maps of stereo, of images that were encoded."""
        with half_precision(self, images.device):
            return self.encoder.for_stereo(maps, images)

    def context(self, maps: FeatureMaps) -> Context:
        """What views i (N of them) bring to their edges."""
        n = self.config.hidden
        with half_precision(self, maps.trunk.device):
            hidden, gates = self.context_head(maps.trunk).split([n, 3 * n], 1)
            return Context(hidden.tanh(), gates)

    def start(self, context: Context, maps_i: FeatureMaps, maps_j: FeatureMaps) -> MotionState:
        """State of E edges from the context of views i and the feature maps of both."""
        with half_precision(self, maps_i.matching.device):
            pairs = [(maps_i.matching, pooled) for pooled in pooled_levels(maps_j.matching, self.config.levels)]
            pyramid = pyramid_of([(maps_i.fine_i, maps_j.fine_j), *pairs], self.config.radius, first=-1)
        return MotionState(pyramid, context.gates, context.hidden)

    def update(self, state: MotionState, uv: Tensor) -> tuple[MotionState, Tensor, Tensor]:
        """One look around the current reprojection.

        Args:
            state: from `start` or the last `update`.
            uv: (E, h, w, 2) reprojection of the pixels of i in j, at 1/8 of the image.

        Returns:
            state, residual_uv (E, h, w, 2) float32 to be added to uv, weight (E, h, w, 2) float32 in [0, 1].
        """
        _, h, w, _ = uv.shape
        uv = uv.detach().float()
        flow = uv - pixel_grid(h, w, like=uv)
        unexplained = torch.zeros_like(uv) if state.target_uv is None else state.target_uv - uv
        seen = torch.full_like(uv[..., :1], 0.0 if state.target_uv is None else 1.0)
        motion = torch.cat([flow.clamp(-MAX_FLOW, MAX_FLOW) / FLOW_UNIT, unexplained.clamp(-4, 4), seen], -1)
        correlation = state.pyramid.lookup(uv, self.config.radius)
        missing = self.from_correlation.in_channels - correlation.shape[1]  # tiny images have fewer levels
        if missing:
            correlation = F.pad(correlation, (0, 0, 0, 0, 0, missing))
        with half_precision(self, uv.device):
            x = torch.cat([self.from_correlation(correlation), self.from_flow(motion.permute(0, 3, 1, 2))], 1)
            x = conv_relu(self.to_motion, F.relu(x, inplace=True))
            hidden = self.unit(state.hidden, x, state.context_gates)
            out = self.flow(conv_relu(self.head, hidden))
        residual_uv, logits = out.float().permute(0, 2, 3, 1).split(2, -1)
        state = replace(state, hidden=hidden, target_uv=(uv + residual_uv).detach())
        return state, residual_uv, logits.sigmoid()

    def forward(
        self,
        maps: FeatureMaps,
        edges: Tensor,
        inv_depth: Tensor,
        T_ji: Tensor,
        K: Tensor,
        iters: int = 4,
        gn_steps: int = 2,
    ) -> list[MotionStep]:
        """Unrolled Flow-SE3 on edges of N encoded images.

        Args:
            maps: of N images, from `encode`.
            edges: (E, 2) int64 indices (i, j) of the images.
            inv_depth: (E, h, w) of views i at 1/8.
            T_ji: (E, 4, 4) start.
            K: (E, 3, 3) intrinsics at 1/8.
            iters, gn_steps: as `flow_se3`.

        Returns:
            The iterations, as `flow_se3`.
        """
        i, j = edges.unbind(-1)
        views, where = torch.unique(i, return_inverse=True)
        context = self.context(maps[views])
        context = Context(context.hidden[where], context.gates[where])
        state = self.start(context, maps[i], maps[j])
        return flow_se3(self.update, state, inv_depth, T_ji, K, iters, gn_steps)

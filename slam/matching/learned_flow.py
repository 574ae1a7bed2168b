"""The flow of the motion network as a correspondence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import Image
from slam.matching.correspondence import KEPT_IMAGES
from slam.networks.encoder import FeatureMaps, StereoMaps
from slam.networks.motion import Context, FlowSE3, MotionState


@dataclass(frozen=True)
class LearnedFlowConfig:
    """How the motion network is run."""

    updates: int = 3  # of the recurrent unit, where no photometric refinement follows

    def __post_init__(self) -> None:
        check_range(self, 1, 100, "updates")


class LearnedFlow:
    """A correspondence; its features are those of the encoder, which the stereo network reads too."""

    def __init__(
        self, network: FlowSE3, config: LearnedFlowConfig = LearnedFlowConfig(), kept_for_stereo: int = KEPT_IMAGES
    ) -> None:
        """`kept_for_stereo`: images whose maps for stereo, 0.6 MB each at 256x192, are kept."""
        self.network = network
        self.stride = network.stride
        self.max_updates = config.updates
        self.device = next(network.parameters()).device
        self._maps = lru_cache(KEPT_IMAGES)(self._encoded)
        self._stereo_maps = lru_cache(kept_for_stereo)(self._encoded_for_stereo)
        self._context = lru_cache(KEPT_IMAGES)(network.context)

    def encode(self, images: Sequence[Image]) -> list[FeatureMaps]:
        """Feature maps of each image."""
        return [self._maps(image) for image in images]

    def encode_for_stereo(self, images: Sequence[Image]) -> list[StereoMaps]:
        """The maps that the stereo network reads, of each image."""
        return [self._stereo_maps(image) for image in images]

    def forget(self) -> None:
        """Let go of the maps that are kept."""
        for kept in (self._maps, self._stereo_maps, self._context):
            kept.cache_clear()

    def _encoded(self, image: Image) -> FeatureMaps:
        return self.network.encode(image.channels[None].to(self.device))

    def _encoded_for_stereo(self, image: Image) -> StereoMaps:
        return self.network.encode_for_stereo(self._maps(image), image.channels[None].to(self.device))

    def start(self, features_i: Sequence[FeatureMaps], features_j: Sequence[FeatureMaps]) -> MotionState:
        """See `Correspondence`."""
        contexts = [self._context(maps) for maps in features_i]
        context = Context(torch.cat([c.hidden for c in contexts]), torch.cat([c.gates for c in contexts]))
        return self.network.start(context, FeatureMaps.stack(features_i), FeatureMaps.stack(features_j))

    def update(self, state: MotionState, uv: Tensor) -> tuple[MotionState, Tensor, Tensor]:
        """See `Correspondence`."""
        return self.network.update(state, uv)

    def finished(self, state: MotionState) -> bool:
        """Never: each update may improve the flow."""
        return False

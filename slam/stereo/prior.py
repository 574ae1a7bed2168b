"""Depth of a single view by the prior network: a guess for where geometry has nothing to say."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from slam.errors import check_range
from slam.frames import Image, View
from slam.inv_depth import InvDepth
from slam.matching.correspondence import KEPT_IMAGES
from slam.matching.learned_flow import LearnedFlow
from slam.networks.prior import STRIDE, PriorNet, PriorOutput


@dataclass(frozen=True)
class PriorConfig:
    """Depth of single views by a network: a start of the first map, and the depth of what shows no parallax."""

    enabled: bool = True  # where networks are used at all
    min_deviation: float = 0.3  # least relative standard deviation: never sure enough for the map

    def __post_init__(self) -> None:
        check_range(self, 0.15, 10, "min_deviation")


# prior(view): inverse depth (hc, wc) at the cells of the correspondence, in metres as far as a picture shows the scale
Prior = Callable[[View], InvDepth]


class LearnedPrior:
    """The prior network, on the features of the motion network's encoder."""

    def __init__(self, flow: LearnedFlow, network: PriorNet, stride: int, config: PriorConfig = PriorConfig()) -> None:
        """`stride`: side of the cells of the result, pixels, a multiple of the network's."""
        self.flow = flow
        self.network = network
        self.stride = stride
        self.config = config
        self._outputs = lru_cache(KEPT_IMAGES)(self._output)

    def __call__(self, view: View) -> InvDepth:
        """See `Prior`."""
        with torch.inference_mode():
            output = self._outputs(view.image, *view.K.flatten().tolist())
            both = torch.stack([output.log_inv_depth, output.log_sigma], 1)
            log_value, log_sigma = F.avg_pool2d(both, self.stride // STRIDE)[0]
            value = log_value.exp()
            return InvDepth(value, log_sigma.clamp_min(math.log(self.config.min_deviation)).exp() * value)

    def _output(self, image: Image, *K: float) -> PriorOutput:
        maps = self.flow.encode([image])[0]
        return self.network(maps, torch.tensor(K, dtype=torch.float64).view(1, 3, 3).to(self.flow.device))


def build_prior(config: PriorConfig, flow: LearnedFlow | None, network: PriorNet | None, stride: int) -> Prior | None:
    """The prior of the settings; None without networks, or where it is switched off."""
    if not config.enabled or flow is None or network is None:
        return None
    return LearnedPrior(flow, network, stride, config)

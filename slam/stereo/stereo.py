"""Dense depth of a keyframe from its neighbours: plane sweep or stereo network behind one call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from slam.frames import Keyframe, View
from slam.inv_depth import InvDepth
from slam.matching.learned_flow import LearnedFlow
from slam.networks.stereo import StereoNet
from slam.stereo.plane_sweep import PlaneSweepConfig, plane_sweep

RANGE_MARGIN = 0.6  # of inverse depth, beyond the range seen at the cells: new surfaces come into view
MIN_CONFIDENCE = 0.3  # of the cells whose depths span the range
UNKNOWN_RANGE = 4.0  # factor to both sides of the median depth where fewer cells are confident
MIN_CELLS = 30  # confident cells that a range needs


@dataclass(frozen=True)
class DepthConfig:
    """Where the dense depth of keyframes comes from."""

    stereo: Literal["learned", "plane_sweep", "none"] = "learned"
    plane_sweep: PlaneSweepConfig = PlaneSweepConfig()


# stereo(keyframe, neighbours, T_jk (4, 4) of each)
Stereo = Callable[[Keyframe, list[View], list[Tensor]], InvDepth]


def inv_depth_range(keyframe: Keyframe) -> tuple[float, float]:
    """Inverse depths to search, from the certain cells of the keyframe."""
    certain = keyframe.coarse.value[keyframe.coarse.confidence > MIN_CONFIDENCE]
    if len(certain) < MIN_CELLS:
        middle = float(keyframe.coarse.value.median())
        return middle / UNKNOWN_RANGE, middle * UNKNOWN_RANGE
    low, high = float(certain.quantile(0.01)), float(certain.quantile(0.99))
    return low * (1 - RANGE_MARGIN), high * (1 + RANGE_MARGIN)


class PlaneSweepStereo:
    """Plane sweep without training."""

    def __init__(self, config: PlaneSweepConfig = PlaneSweepConfig()) -> None:
        self.config = config

    def __call__(self, keyframe: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> InvDepth:
        """See `Stereo`."""
        result = plane_sweep(
            keyframe.view.image.gray,
            [view.image.gray for view in neighbours],
            keyframe.view.K.numpy(),
            [T.numpy() for T in T_jk],
            inv_depth_range(keyframe),
            config=self.config,
        )
        found = InvDepth.from_confidence(torch.from_numpy(result.inv_depth), torch.from_numpy(result.confidence))
        return found.to(keyframe.coarse.device)


class LearnedStereo:
    """The stereo network, on the features of the motion network's encoder."""

    def __init__(self, flow: LearnedFlow, network: StereoNet) -> None:
        self.flow = flow
        self.network = network

    def __call__(self, keyframe: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> InvDepth:
        """See `Stereo`."""
        device = self.flow.device
        low, high = (torch.full((1,), d, device=device) for d in inv_depth_range(keyframe))
        maps_k, *maps_j = self.flow.encode_for_stereo([keyframe.view.image, *(view.image for view in neighbours)])
        T, K = torch.stack(T_jk)[None].to(device), keyframe.view.K[None].to(device)
        found = self.network(maps_k, maps_j, T, K, low, high)
        return InvDepth(found.inv_depth[0].float(), found.sigma[0].float())


def build_stereo(config: DepthConfig, flow: LearnedFlow | None, network: StereoNet | None) -> Stereo | None:
    """What makes dense depth; None where nothing does. The learned one needs flow and network."""
    if config.stereo == "learned":
        assert flow is not None and network is not None
        return LearnedStereo(flow, network)
    return PlaneSweepStereo(config.plane_sweep) if config.stereo == "plane_sweep" else None

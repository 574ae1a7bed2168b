"""Which flow tracks and which one maps, as the settings say."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from slam.errors import UsageError
from slam.matching.correspondence import Correspondence
from slam.matching.dis import DisConfig, DisFlow
from slam.matching.learned_flow import LearnedFlow, LearnedFlowConfig
from slam.matching.matcher import Matcher, MatcherConfig
from slam.matching.photometric import PhotometricAlignment, PhotometricRefinement, RefinementConfig

Flow = Literal["learned", "learned_photometric", "dis", "dis_photometric"]


@dataclass(frozen=True)
class CorrespondenceConfig:
    """Where the flow between two views comes from; `_photometric`: refined on the images afterwards."""

    tracking: Flow = "learned_photometric"  # of a frame against the reference keyframe, whose depth is known
    mapping: Flow = "dis"  # at the start and between keyframes, where depth is sought
    learned: LearnedFlowConfig = LearnedFlowConfig()
    dis: DisConfig = DisConfig()
    photometric: RefinementConfig = RefinementConfig()

    @property
    def flows(self) -> set[str]:
        """Both kinds."""
        return {self.tracking, self.mapping}

    @property
    def is_learned(self) -> bool:
        """True if either is the network's."""
        return any(flow.startswith("learned") for flow in self.flows)


def build_matchers(
    config: CorrespondenceConfig,
    matcher: MatcherConfig,
    learned: LearnedFlow | None,
    device: torch.device = torch.device("cpu"),
) -> tuple[Matcher, Matcher]:
    """Matchers of tracking and of mapping.

    Args:
        learned: the network's flow; needed if either `is_learned`.
        device: of the maps, and of the network.

    Raises:
        UsageError: if their cells are not of one size.
    """
    tracking, mapping = (
        build_correspondence(flow, config, learned, device) for flow in (config.tracking, config.mapping)
    )
    if tracking.stride != mapping.stride:
        raise UsageError(
            f"correspondence.tracking={config.tracking} has cells of {tracking.stride} pixels, "
            f"correspondence.mapping={config.mapping} of {mapping.stride}: both must have the same"
        )
    return Matcher(tracking, matcher), Matcher(mapping, matcher)


def build_aligning(
    config: CorrespondenceConfig, matcher: MatcherConfig, device: torch.device = torch.device("cpu")
) -> Matcher[Tensor, tuple[Tensor, Tensor]]:
    """The matcher of views that are nearly in their places."""
    return Matcher(PhotometricAlignment(config.photometric, device), matcher)


def build_correspondence(
    flow: Flow, config: CorrespondenceConfig, learned: LearnedFlow | None, device: torch.device = torch.device("cpu")
) -> Correspondence[Any, Any]:
    """The correspondence of a name in the settings."""
    base: LearnedFlow | DisFlow
    if flow.startswith("learned"):
        assert learned is not None
        base = learned
    else:
        base = DisFlow(config.dis)
    return PhotometricRefinement(base, config.photometric, device) if flow.endswith("_photometric") else base

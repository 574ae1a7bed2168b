"""When a frame becomes a keyframe: by flow and overlap, never by translation, whose unit is unknown."""

from dataclasses import dataclass

from slam.frames import Estimate, Status


@dataclass(frozen=True)
class KeyframingConfig:
    """Thresholds; pixels are of the network size."""

    flow_px: float = 16.0  # mean flow from the reference keyframe
    min_visible_ratio: float = 0.7  # part of the reference keyframe still in view


def wants_keyframe(estimate: Estimate, config: KeyframingConfig) -> bool:
    """True if a tracked frame should become a keyframe."""
    return estimate.status is Status.TRACKING and (
        estimate.mean_flow_px > config.flow_px or estimate.visible_ratio < config.min_visible_ratio
    )

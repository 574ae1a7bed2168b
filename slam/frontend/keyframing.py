"""When a frame becomes a keyframe: by flow, overlap and match, never by translation, whose unit is unknown."""

from dataclasses import dataclass

from slam.errors import check_range
from slam.frames import Estimate, Status
from slam.frontend.preparation import NEVER

LAST_FLOW = 0.25  # of the flow at which a frame becomes a keyframe: enough at the end of a run
DEPTH_WAIT = 5  # frames that a new keyframe waits for one with sensor depth


@dataclass(frozen=True)
class KeyframingConfig:
    """Thresholds; pixels are of the network size."""

    flow_px: float = 16.0  # mean flow from the reference keyframe
    min_visible_ratio: float = 0.7  # part of the reference keyframe still in view
    min_confidence_ratio: float = 0.45  # mean confidence, of the best seen against this reference
    exhausted_flow_px: float = 24.0  # flow from the reference at which frames cannot wait for the next one any more
    exhausted_visible_ratio: float = 0.5  # likewise
    patience_frames: int = 4  # of a recording, tracked against the old reference before the new keyframe is waited for

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "flow_px", "exhausted_flow_px")
        check_range(self, 1, 100_000, "patience_frames")
        check_range(self, 0, 1, "min_visible_ratio", "min_confidence_ratio", "exhausted_visible_ratio")


class Keyframing:
    """Watches the estimates against the present reference keyframe."""

    def __init__(self, config: KeyframingConfig = KeyframingConfig()) -> None:
        self.config = config
        self._reference_id = -1
        self._best_confidence = 0.0

    def wants(self, estimate: Estimate, depth_frame_id: int = NEVER) -> bool:
        """True if this frame, the latest, should become a keyframe; where some frames have depth, one of those.

        Args:
            depth_frame_id: of the last frame with sensor depth.
        """
        return self._needs(estimate) and (self.exhausted(estimate) or not _is_depth_due(estimate, depth_frame_id))

    def _needs(self, estimate: Estimate) -> bool:
        """True if the reference keyframe should be replaced."""
        if estimate.status is not Status.TRACKING:
            return False
        if estimate.keyframe_id != self._reference_id:
            self._reference_id, self._best_confidence = estimate.keyframe_id, 0.0
        self._best_confidence = max(self._best_confidence, estimate.mean_confidence)
        return (
            estimate.mean_flow_px > self.config.flow_px
            or estimate.visible_ratio < self.config.min_visible_ratio
            or estimate.mean_confidence < self.config.min_confidence_ratio * self._best_confidence
        )

    def wants_last(self, estimate: Estimate, depth_frame_id: int = NEVER) -> bool:
        """As `wants`, of the last frame of a run: what lies before it is then between two keyframes."""
        is_far = estimate.status is Status.TRACKING and estimate.mean_flow_px > LAST_FLOW * self.config.flow_px
        return is_far and not _is_depth_due(estimate, depth_frame_id)

    def exhausted(self, estimate: Estimate) -> bool:
        """True if the reference keyframe should not be used for another frame."""
        return (
            estimate.mean_flow_px > self.config.exhausted_flow_px
            or estimate.visible_ratio < self.config.exhausted_visible_ratio
        )


def _is_depth_due(estimate: Estimate, depth_frame_id: int) -> bool:
    """True if a frame has no depth, and one before or after it has."""
    return estimate.metric and 0 < estimate.frame_id - depth_frame_id < DEPTH_WAIT

"""Where a view is: tracked against the reference keyframe, and looked for among all keyframes where that fails."""

import logging
from collections.abc import Callable

from slam.frames import Estimate, Status, View
from slam.frontend.motion_model import MotionModel
from slam.frontend.relocaliser import Relocaliser
from slam.frontend.tracker import track
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher

log = logging.getLogger(__name__)

GAP_S, GAP_FRAMES = 0.5, 5  # without images for longer than both, the camera may be anywhere


class Localiser:
    """Knows the reference keyframe and the one that is to follow it, the motion, and the times of the frames."""

    def __init__(self, matcher: Matcher, motion_model: MotionModel, relocaliser: Relocaliser) -> None:
        self.matcher = matcher
        self.motion_model = motion_model
        self.relocaliser = relocaliser
        self.gaps = GapDetector()
        self.reference_id = -1  # keyframe that frames are tracked against
        self.pending_id: int | None = None  # the next one, while the backend works on it
        self._is_lost = False

    def begin(self, keyframe_id: int, lost: bool = False) -> None:
        """Start at a keyframe; `lost`: the camera may be anywhere in the map."""
        self.reference_id, self.pending_id, self._is_lost = keyframe_id, None, lost

    def switch(self) -> None:
        """Track against the pending keyframe from now on, if there is one."""
        if self.pending_id is not None:
            self.reference_id, self.pending_id = self.pending_id, None

    def locate(self, view: View, store: KeyframeStore, switch: Callable[[], None]) -> Estimate:
        """Track against the reference keyframe; where that fails, look for the place among all keyframes.

        Args:
            switch: called where the pending keyframe is needed at once; it calls `self.switch`, and may wait for the
                backend before.
        """
        is_gap = self.gaps.is_after_gap(view.time_ns)
        if not self._is_lost and not is_gap:
            estimate = self._track(view, store)
            if estimate.status is Status.LOST and self.pending_id is not None:
                switch()
                estimate = self._track(view, store)
            if estimate.status is Status.TRACKING:
                return estimate
        self.motion_model.forget()
        estimate = self.relocaliser.find(view, store)
        if estimate.status is Status.TRACKING:
            log.info("frame %d found again at keyframe %d", view.frame_id, estimate.keyframe_id)
            self.reference_id, self.pending_id = estimate.keyframe_id, None  # what was pending may be far from here
        elif not self._is_lost:
            log.warning("tracking lost at frame %d", view.frame_id)
        return estimate

    def observe(self, estimate: Estimate, store: KeyframeStore) -> None:
        """Take the estimate of a frame as the latest."""
        self._is_lost = estimate.status is not Status.TRACKING
        if not self._is_lost:
            self.motion_model.observe(estimate, store)

    def _track(self, view: View, store: KeyframeStore) -> Estimate:
        reference = store[self.reference_id]
        return track(self.matcher, view, reference, self.motion_model.guesses(reference, store))


class GapDetector:
    """Tells a gap in the frames from a slow source."""

    def __init__(self) -> None:
        self._last_ns = 0  # time of the last frame ...
        self._interval_ns = 0.0  # ... and of late between frames

    def is_after_gap(self, time_ns: int) -> bool:
        """True for the first frame after a time without images, in which one motion cannot be told from another."""
        step_ns = time_ns - self._last_ns if self._last_ns else 0
        self._last_ns = time_ns
        if not self._interval_ns:
            self._interval_ns = float(step_ns)
            return False
        is_gap = step_ns > max(1e9 * GAP_S, GAP_FRAMES * self._interval_ns)
        self._interval_ns += 0.1 * (step_ns - self._interval_ns)
        return is_gap

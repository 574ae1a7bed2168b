"""Where the next frame will be: damped constant velocity, relative to whichever keyframe is the reference."""

from dataclasses import dataclass

from torch import Tensor

from slam.errors import check_range
from slam.frames import Estimate, Keyframe
from slam.geometry import se3
from slam.mapping.store import KeyframeStore


@dataclass(frozen=True)
class MotionModelConfig:
    """The guess for the next frame."""

    damping: float = 0.5  # part of the last step that is expected again: 0 standing still, 1 constant velocity

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "damping")


class MotionModel:
    """Remembers the last pose and step; positions follow their keyframe when the backend moves it."""

    def __init__(self, config: MotionModelConfig = MotionModelConfig()) -> None:
        self.config = config
        self._last: Estimate | None = None
        self._step = se3.identity()  # T of the last camera from the one before

    def forget(self) -> None:
        """Tracking was lost: no velocity, and none from the step over the gap."""
        self._last, self._step = None, se3.identity()

    def observe(self, estimate: Estimate, store: KeyframeStore) -> None:
        """Take a believed estimate as the latest."""
        if self._last is not None and self._last.keyframe_id in store:
            T_cw = se3.inverse(store.pose_of(estimate))
            self._step = se3.orthonormalised(T_cw @ store.pose_of(self._last))
        self._last = estimate

    def guesses(self, reference: Keyframe, store: KeyframeStore) -> list[Tensor]:
        """First guesses T_ck (4, 4) for the next frame: with velocity, then standing still."""
        if self._last is None or self._last.keyframe_id not in store:
            return [se3.identity()]
        last = self._last
        if last.keyframe_id == reference.id:
            T_ck = se3.scaled_translation(last.T_ck, reference.scale / last.scale)
        else:
            T_ck = se3.orthonormalised(se3.inverse(store.pose_of(last)) @ reference.T_wc)
        return [se3.exp(self.config.damping * se3.log(self._step)) @ T_ck, T_ck]

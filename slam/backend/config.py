"""Settings of the backend's adjustment and stereo."""

from dataclasses import dataclass
from typing import Literal

from slam.errors import check_range


@dataclass(frozen=True)
class BackendConfig:
    """The window and its weights; pixels are of the network size."""

    adjust: Literal["joint", "poses", "off"] = "joint"  # with depth; without, cells take their depth from stereo
    window: int = 7  # keyframes adjusted together
    first_window: int = 12  # keyframes of a map that are adjusted together as long as it has no more
    held: int = 2  # oldest of a window whose poses are held: they carry place and scale; of a whole map the first alone
    reach: int = 3  # keyframes matched to each, in both directions of time
    steps: int = 4  # Gauss-Newton steps of an adjustment
    huber_px: float = 0.5
    consensus: float = 3.0  # standard deviations at which a flow that contradicts the map weighs a quarter; 0: off
    flow_sigma_px: float = 0.3  # standard deviation of a good flow
    prior_deviation: float = 1.0  # relative standard deviation of depth that was only carried over or inpainted
    neighbours: int = 3  # views in the stereo of a keyframe

    def __post_init__(self) -> None:
        check_range(self, 2, 100, "window")
        check_range(self, 0, 1000, "consensus")
        check_range(self, 1, self.window - 1, "held")
        check_range(self, 1, 100, "first_window", "reach", "steps", "neighbours")
        check_range(self, 0.01, 100, "huber_px", "flow_sigma_px", "prior_deviation")

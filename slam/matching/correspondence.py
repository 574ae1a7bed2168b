"""What every flow between two views has in common, learned or not."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from slam.frames import Image

Features = TypeVar("Features")
State = TypeVar("State")

KEPT_IMAGES = (
    16  # used last, whose features are kept: those of a network take two megabytes, and keyframes are hundreds
)


class Correspondence(Protocol[Features, State]):
    """Finds where the cells of view i lie in view j, around their present reprojection.

    A cell is a square of `stride` x `stride` pixels; its position is that of its centre, in cells. Flow-SE3 asks
    `update` and solves for the pose in turn (`slam.solvers.flow_se3`).
    """

    @property
    def stride(self) -> int:
        """Side of a cell, pixels of the network size."""
        ...

    @property
    def max_updates(self) -> int:
        """Most updates of a state that are worth their time."""
        ...

    def encode(self, images: Sequence[Image]) -> list[Features]:
        """Features of each image; of the KEPT_IMAGES used last they are not computed again. Any thread may ask."""
        ...

    def start(self, features_i: Sequence[Features], features_j: Sequence[Features]) -> State:
        """State of the E edges (i, j), one for each pair of the two lists."""
        ...

    def update(self, state: State, uv: Tensor) -> tuple[State, Tensor, Tensor]:
        """One look around the present reprojection.

        Args:
            state: of `start` or of the last update.
            uv: (E, h, w, 2) float32 present reprojection of the cells, cells of view j.

        Returns:
            state, residual flow (E, h, w, 2) to be added to `uv`, cells, and confidence of u and v (E, h, w, 2) in
            [0, 1], or (E, h, w, 3) with what couples them, where an edge tells of the motion across it alone.
        """
        ...

    def finished(self, state: State) -> bool:
        """True if further updates of a state change nothing."""
        ...

"""What there is to see at one moment, of a run under way and of a finished one alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from slam.frames import Keyframe


@dataclass(frozen=True, eq=False)
class ViewState:
    """A moment of a run; the window draws nothing else. Another moment is another object."""

    keyframes: tuple[
        Keyframe, ...
    ]  # with depth that can be believed, oldest first; those to come of a finished run too
    count: int  # the first so many are drawn
    path: np.ndarray  # (N, 3) float64 positions of the camera, world frame
    T_wc: np.ndarray | None  # (4, 4) float64, of the camera now; None while it has no place
    image: np.ndarray | None  # (H, W, 3) uint8 RGB, what it sees
    words: str  # state, in lines

    @property
    def drawn(self) -> tuple[Keyframe, ...]:
        """The keyframes that are drawn."""
        return self.keyframes[: self.count]


class Feed(Protocol):
    """Where a window has from what it shows."""

    title: str
    folder: Path  # where points and screenshots go
    is_live: bool  # tracking goes on meanwhile, and has precedence

    def shown(self) -> ViewState:
        """The present moment; the same object again while nothing changes. Does not wait."""
        ...

    def play(self) -> None:
        """Play, or pause."""
        ...

    def step(self) -> None:
        """Pause, one step later."""
        ...

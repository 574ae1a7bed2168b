"""The keyframe store: the map. The tracking thread alone changes it."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from slam.frames import Estimate, Keyframe, Snapshot, Status, Trajectory, Update, View, Window
from slam.geometry import se3


class KeyframeStore:
    """Keyframes in order of time, and every frame's pose relative to its reference keyframe."""

    def __init__(self) -> None:
        self._keyframes: dict[int, Keyframe] = {}
        self._estimates: list[Estimate] = []
        self._next_id = 0

    def __len__(self) -> int:
        return len(self._keyframes)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._keyframes

    def __getitem__(self, keyframe_id: int) -> Keyframe:
        return self._keyframes[keyframe_id]

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """All keyframes, oldest first."""
        return tuple(self._keyframes.values())

    def add(
        self,
        view: View,
        T_wc: Tensor,
        depth: tuple[Tensor, Tensor],
        cells: tuple[Tensor, Tensor],
        parent_id: int = -1,
        metric: bool = False,
    ) -> Keyframe:
        """Insert a keyframe; `depth` is (inv_depth, confidence), `cells` (cell_inv_depth, cell_sigma)."""
        keyframe = Keyframe(self._next_id, view, T_wc, *depth, *cells, parent_id=parent_id, metric=metric)
        self._keyframes[keyframe.id] = keyframe
        self._next_id += 1
        return keyframe

    def record(self, estimate: Estimate) -> None:
        """Remember a frame's pose relative to its keyframe."""
        self._estimates.append(estimate)

    def last_estimate(self) -> Estimate | None:
        """What the tracker said of the last frame."""
        return self._estimates[-1] if self._estimates else None

    def window(self, keyframe_id: int, size: int) -> Window:
        """A keyframe and those it was tracked from, up to `size`, itself last."""
        chain: list[Keyframe] = []
        while keyframe_id in self._keyframes and len(chain) < size:
            chain.append(self._keyframes[keyframe_id])
            keyframe_id = chain[-1].parent_id
        return Window(tuple(reversed(chain)))

    def apply(self, update: Update) -> None:
        """Take over refined keyframes. Younger ones that the backend had not seen move along with their parents."""
        after = {keyframe.id: keyframe for keyframe in update.keyframes if keyframe.id in self._keyframes}
        newest_id = max(after, default=-1)
        for keyframe in self.keyframes:
            if keyframe.id > newest_id and keyframe.parent_id in after:  # parents come first
                before = self._keyframes[keyframe.parent_id]
                after[keyframe.id] = carried_along(keyframe, before, after[keyframe.parent_id])
        self._keyframes |= after  # keeps the order

    def pose_of(self, estimate: Estimate) -> Tensor:
        """T_wc (4, 4) of a frame by the present pose and scale of its keyframe."""
        keyframe = self._keyframes[estimate.keyframe_id]
        return keyframe.T_wc @ se3.inverse(rescaled(estimate.T_ck, keyframe.scale / estimate.scale))

    def trajectory(self) -> Trajectory:
        """Every frame that has a pose: a keyframe's own, or re-anchored to its keyframe as it is now."""
        own = {keyframe.view.frame_id: keyframe.T_wc for keyframe in self._keyframes.values()}
        posed = [e for e in self._estimates if e.status is Status.TRACKING and e.keyframe_id in self._keyframes]
        posed.sort(key=lambda e: e.time_ns)
        poses = [(own[e.frame_id] if e.frame_id in own else self.pose_of(e)).numpy() for e in posed]
        return Trajectory(
            np.array([e.time_ns for e in posed], dtype=np.int64), np.array(poses, dtype=np.float64).reshape(-1, 4, 4)
        )

    def keyframe_trajectory(self) -> Trajectory:
        """Poses of the keyframes alone."""
        keyframes = self.keyframes
        poses = [k.T_wc.numpy() for k in keyframes]
        return Trajectory(
            np.array([k.view.time_ns for k in keyframes], dtype=np.int64),
            np.array(poses, dtype=np.float64).reshape(-1, 4, 4),
        )

    def snapshot(self, estimate: Estimate | None = None) -> Snapshot:
        """The map as it is; cheap, nothing is copied."""
        return Snapshot(self.keyframes, estimate)


def rescaled(T: Tensor, factor: float) -> Tensor:
    """The pose (4, 4) with its translation multiplied."""
    T = T.clone()
    T[:3, 3] *= factor
    return T


def carried_along(keyframe: Keyframe, before: Keyframe, after: Keyframe) -> Keyframe:
    """A keyframe as it is after another, that it was placed by, has moved and grown from `before` to `after`."""
    growth = after.scale / before.scale  # its depth was divided by it
    T_relative = rescaled(se3.inverse(before.T_wc) @ keyframe.T_wc, growth)
    return replace(
        keyframe,
        T_wc=after.T_wc @ T_relative,
        inv_depth=keyframe.inv_depth / growth,
        cell_inv_depth=keyframe.cell_inv_depth / growth,
        cell_sigma=keyframe.cell_sigma / growth,
        scale=keyframe.scale * growth,
    )


def identity() -> Tensor:
    """(4, 4) float64 identity."""
    return torch.eye(4, dtype=torch.float64)

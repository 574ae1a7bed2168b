"""Views of a run, to be placed again at its end: against the final keyframes, and as of the final camera."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slam.frames import Estimate, Image, Keyframe, Recalibration, Status, View
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.mapping.frame_log import FramePoses
from slam.mapping.recalibration import recalibrated_view
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher


@dataclass(frozen=True, eq=False)
class KeptView:
    """A view, and how many changes of the camera came before it."""

    view: View
    changes: int


class KeptViews:
    """Keeps at most `limit` views, 0.15 MB each, evenly spread over the frames."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.every = 1  # frames, of which one is kept
        self._kept: list[KeptView] = []
        self._changes: list[Recalibration] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, view: View) -> None:
        """Take a view, or not."""
        if not self.limit or view.frame_id % self.every:
            return
        image = Image(view.image.rgb, view.image.mask)  # another, so that what networks made of it is let go
        self._kept.append(KeptView(replace(view, image=image), len(self._changes)))
        while len(self._kept) > self.limit:
            self.every *= 2
            self._kept = [kept for kept in self._kept if kept.view.frame_id % self.every == 0]

    def recalibrate(self, change: Recalibration) -> None:
        """Take it that the views so far were made as of the camera before a change."""
        self._changes.append(change)

    def _as_known_now(self, kept: KeptView) -> View:
        """A view as of the last camera, warped once."""
        if kept.changes == len(self._changes):
            return kept.view
        return recalibrated_view(kept.view, replace(self._changes[kept.changes], after=self._changes[-1].after))

    def placed_again(self, matcher: Matcher, store: KeyframeStore) -> Iterator[Estimate]:
        """Better estimates of the frames that were believed: of those kept against the two keyframes around them, as
        these are now; of those in between by what moved those."""
        frames = store.frame_poses()
        row_of = {frame_id: n for n, frame_id in enumerate(frames.frame_id.tolist())}
        keyframes = [k for k in store.keyframes if k.view.frame_id >= 0]
        ids = np.array([k.view.frame_id for k in keyframes])
        rows, corrections = [], []
        for kept in self._kept:
            row = row_of.get(kept.view.frame_id)
            if row is None or not keyframes:
                continue
            T_wc, correction = torch.from_numpy(frames.T_wc[row]), torch.eye(4, dtype=torch.float64)
            if kept.view.frame_id not in ids:  # keyframes were adjusted with all others
                first = max(min(int(np.searchsorted(ids, kept.view.frame_id)) - 1, len(ids) - 2), 0)
                around = keyframes[first : first + 2]
                if any(k.is_guessed for k in around):  # it has a direction, and no place
                    continue
                estimate = placed(matcher, self._as_known_now(kept), around, T_wc)
                if estimate is None:
                    continue
                yield estimate
                correction = se3.inverse(T_wc) @ estimate.T_wc
            rows.append(row)
            corrections.append(correction)
        yield from self._between(frames, rows, corrections, keyframes)

    def _between(
        self, frames: FramePoses, rows: list[int], corrections: list[Tensor], keyframes: list[Keyframe]
    ) -> Iterator[Estimate]:
        """Frames between two that were placed again, moved by what moved those, in the camera's frame."""
        by_frame = {k.view.frame_id: k for k in keyframes}
        for n in range(len(rows) - 1):
            a, b = rows[n], rows[n + 1]
            first_id, last_id = frames.frame_id[[a, b]].tolist()
            if last_id - first_id > self.every:
                continue
            step = se3.log(se3.inverse(corrections[n]) @ corrections[n + 1])
            for row in range(a + 1, b):
                frame_id, time_ns = int(frames.frame_id[row]), int(frames.time_ns[row])
                if frame_id not in by_frame:
                    share = (frame_id - first_id) / (last_id - first_id)
                    T_wc = torch.from_numpy(frames.T_wc[row]) @ corrections[n] @ se3.exp(share * step)
                    near = by_frame[min(by_frame, key=lambda i: abs(i - frame_id))]
                    yield estimate_at(frame_id, time_ns, near, T_wc)


def placed(matcher: Matcher, view: View, keyframes: list[Keyframe], T_wc: Tensor) -> Estimate | None:
    """A view against several keyframes: the mean of what they say, by the confidence of their matches.

    Args:
        T_wc: (4, 4) about where it is.

    Returns:
        None where no keyframe knows.
    """
    estimates = [track(matcher, view, k, [se3.inverse(T_wc) @ k.T_wc]) for k in keyframes]
    good = [e for e in estimates if e.status is Status.TRACKING]
    if not good:
        return None
    weight = torch.tensor([e.mean_confidence * e.inlier_ratio * e.visible_ratio for e in good], dtype=torch.float64)
    twist = torch.stack([se3.log(se3.inverse(T_wc) @ e.T_wc) for e in good])
    mean = (weight / weight.sum()) @ twist
    (near,) = (k for k in keyframes if k.id == good[0].keyframe_id)
    return estimate_at(view.frame_id, view.time_ns, near, T_wc @ se3.exp(mean))


def estimate_at(frame_id: int, time_ns: int, keyframe: Keyframe, T_wc: Tensor) -> Estimate:
    """That a frame is at a pose (4, 4), relative to a keyframe."""
    T_ck = se3.inverse(T_wc) @ keyframe.T_wc
    return Estimate(frame_id, time_ns, Status.TRACKING, keyframe.id, T_ck, keyframe.scale, T_wc, metric=keyframe.metric)

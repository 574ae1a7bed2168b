"""Views of a run, to be placed again at its end: against the final keyframes, and as of the final camera."""

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from slam.frames import Estimate, Image, Keyframe, Recalibration, Status, View
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.mapping.frame_log import FramePoses
from slam.mapping.recalibration import recalibrated_view
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher
from slam.threads import Helpers

MOST_UNCERTAIN = 600  # views

Moved = tuple[int, Keyframe, Tensor, Tensor]  # row of a frame, what it was placed against, T_wc (4, 4) before and after


@dataclass(frozen=True, eq=False)
class KeptView:
    """A view, and what was known of the camera when it was made."""

    view: View
    changes: int  # of the camera that came before
    is_certain: bool  # no more are expected


class KeptViews:
    """Keeps views, 0.15 MB each: all while the camera is uncertain, then at most `limit`, spread over the frames."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.every = 1  # frames, of which one is kept
        self._kept: list[KeptView] = []
        self._changes: list[Recalibration] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, view: View, is_certain: bool = True) -> None:
        """Take a view, or not; `is_certain`: of what camera it is."""
        if is_certain and (not self.limit or view.frame_id % self.every):
            return
        if not is_certain and len(self._kept) >= MOST_UNCERTAIN:
            return
        image = Image(view.image.rgb, view.image.mask)  # another, so that what networks made of it is let go
        self._kept.append(KeptView(replace(view, image=image), len(self._changes), is_certain))
        while sum(kept.is_certain for kept in self._kept) > self.limit:
            self.every *= 2
            self._kept = [k for k in self._kept if not k.is_certain or k.view.frame_id % self.every == 0]

    def recalibrate(self, change: Recalibration) -> None:
        """Take it that the views so far were made as of the camera before a change."""
        self._changes.append(change)

    def _as_known_now(self, kept: KeptView) -> View:
        """A view as of the last camera, warped once."""
        if kept.changes == len(self._changes):
            return kept.view
        return recalibrated_view(kept.view, replace(self._changes[kept.changes], after=self._changes[-1].after))

    def placed_again(
        self, tracking: Matcher, aligning: Matcher, store: KeyframeStore, helpers: Helpers
    ) -> Iterator[Estimate]:
        """Better estimates of the frames that were believed: of those kept against the two keyframes around them, as
        these are now; of those in between by what moved those.

        Args:
            tracking: finds views that cannot be aligned, as those placed while the camera was uncertain.
            aligning: places those that are nearly in their places, faster and as precisely.
        """
        frames = store.frame_poses()
        row_of = {frame_id: n for n, frame_id in enumerate(frames.frame_id.tolist())}
        own = [k for k in store.keyframes if k.view.frame_id >= 0]
        of_map = {n: [k for k in own if k.map_id == n] for n in set(frames.map_id.tolist())}
        ids_of = {n: [k.view.frame_id for k in keyframes] for n, keyframes in of_map.items()}
        ids = {k.view.frame_id for k in own}

        def place(kept: KeptView) -> Estimate | None:
            map_id = int(frames.map_id[row_of[kept.view.frame_id]])
            first = max(min(bisect(ids_of[map_id], kept.view.frame_id) - 1, len(ids_of[map_id]) - 2), 0)
            around = of_map[map_id][first : first + 2]
            if any(k.is_guessed for k in around):  # it has a direction, and no place
                return None
            T_wc = torch.from_numpy(frames.T_wc[row_of[kept.view.frame_id]])
            with torch.inference_mode():
                view = self._as_known_now(kept)
                return placed(aligning, view, around, T_wc) or placed(tracking, view, around, T_wc)

        placeable = row_of.keys() - ids if ids else set()  # keyframes were adjusted, all together
        wanted = [kept for kept in self._kept if kept.view.frame_id in placeable]
        moved = []
        for estimate in helpers.map(place, wanted):
            if estimate is not None:
                yield estimate
                row = row_of[estimate.frame_id]
                moved.append((row, store[estimate.keyframe_id], torch.from_numpy(frames.T_wc[row]), estimate.T_wc))
        yield from self._between(frames, moved, ids)

    def _between(self, frames: FramePoses, moved: list[Moved], keyframe_ids: set[int]) -> Iterator[Estimate]:
        """Frames between two that were placed again, moved as those were, in the camera's frame."""
        for (a, near, before_a, after_a), (b, _, before_b, after_b) in pairwise(moved):
            first_id, last_id = frames.frame_id[[a, b]].tolist()
            if last_id - first_id > 2 * self.every or frames.map_id[a] != frames.map_id[b]:  # too far apart
                continue
            moved_a, moved_b = se3.inverse(before_a) @ after_a, se3.inverse(before_b) @ after_b
            step = se3.log(se3.inverse(moved_a) @ moved_b)
            for row in range(a + 1, b):
                frame_id = int(frames.frame_id[row])
                if frame_id in keyframe_ids:
                    continue
                share = (frame_id - first_id) / (last_id - first_id)
                T_wc = torch.from_numpy(frames.T_wc[row]) @ moved_a @ se3.exp(share * step)
                yield estimate_at(frame_id, int(frames.time_ns[row]), near, T_wc)


def placed(matcher: Matcher, view: View, keyframes: list[Keyframe], T_wc: Tensor) -> Estimate | None:
    """A view against several keyframes: the mean of what they say, by the confidence of their matches.

    Args:
        T_wc: (4, 4) about where it is.

    Returns:
        None where no keyframe knows.
    """
    estimates = [(k, track(matcher, view, k, [se3.inverse(T_wc) @ k.T_wc])) for k in keyframes]
    believed = [(k, e) for k, e in estimates if e.status is Status.TRACKING]
    if not believed:
        return None
    near, good = believed[0][0], [e for _, e in believed]
    weight = torch.tensor([e.mean_confidence * e.inlier_ratio * e.visible_ratio for e in good], dtype=torch.float64)
    twist = torch.stack([se3.log(se3.inverse(T_wc) @ e.T_wc) for e in good])
    mean = (weight / weight.sum()) @ twist
    return estimate_at(view.frame_id, view.time_ns, near, T_wc @ se3.exp(mean))


def estimate_at(frame_id: int, time_ns: int, keyframe: Keyframe, T_wc: Tensor) -> Estimate:
    """That a frame is at a pose (4, 4), relative to a keyframe."""
    T_ck = se3.inverse(T_wc) @ keyframe.T_wc
    return Estimate(frame_id, time_ns, Status.TRACKING, keyframe.id, T_ck, keyframe.scale, T_wc, metric=keyframe.metric)

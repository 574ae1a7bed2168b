"""Views of a run, to be placed again at its end: against the final keyframes, and as of the final camera."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import torch
from torch import Tensor

from slam.frames import Estimate, Image, Keyframe, Recalibration, Status, View
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.mapping.culling import view_distances
from slam.mapping.frame_log import FramePoses
from slam.mapping.recalibration import recalibrated_view
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher
from slam.threads import Helpers

MOST_UNCERTAIN = 600  # views
MIN_VISIBLE = 0.4  # part of a keyframe that a view must show to be placed against it
AT_A_TIME = 32  # keyframes from the disk

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

    def placed_again(self, matchers: Sequence[Matcher], store: KeyframeStore, helpers: Helpers) -> Iterator[Estimate]:
        """Better estimates of the frames that were believed: of those kept against the keyframes nearest to them, as
        these are now; of those in between by what moved those. See `placed`."""
        frames = store.frame_poses()
        row_of = {frame_id: n for n, frame_id in enumerate(frames.frame_id.tolist())}
        own = [k for k in store.keyframes if k.view.frame_id >= 0]
        of_map = {n: [k for k in own if k.map_id == n] for n in set(frames.map_id.tolist())}
        ids = {k.view.frame_id for k in own}

        def place(kept: KeptView) -> Estimate | None:
            row = row_of[kept.view.frame_id]
            T_wc = torch.from_numpy(frames.T_wc[row])
            with torch.inference_mode():
                return placed(matchers, self._as_known_now(kept), of_map[int(frames.map_id[row])], T_wc)

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


def place_archived(
    matchers: Sequence[Matcher], store: KeyframeStore, helpers: Helpers, ended: Callable[[], bool]
) -> None:
    """Place keyframes that left the active map against those that stayed, as these are now, until it is `ended`: what
    left was last compared with the map when it did."""
    of_map = {n: [k for k in store.keyframes if k.map_id == n] for n in store.map_ids()}

    def place(k: Keyframe) -> Estimate | None:
        with torch.inference_mode():
            return placed(matchers, k.view, of_map[k.map_id], k.T_wc)

    keyframes = store.archived()
    while not ended() and (some := list(islice(keyframes, AT_A_TIME))):
        found = zip(some, helpers.map(place, some), strict=True)
        store.move_archived({k.id: estimate.T_wc for k, estimate in found if estimate is not None})


def placed(matchers: Sequence[Matcher], view: View, keyframes: Sequence[Keyframe], T_wc: Tensor) -> Estimate | None:
    """A view against the two keyframes whose views are nearest: the mean of what they say, by the confidence of their
    matches.

    Args:
        matchers: tried in order until one finds the view.
        keyframes: of its map.
        T_wc: (4, 4) about where it is.

    Returns:
        None where no keyframe knows.
    """
    if not keyframes:
        return None
    nearest = view_distances(keyframes, T_wc[None])[0].argsort()[:2]
    around = [keyframes[n] for n in sorted(nearest.tolist())]
    if any(k.is_guessed for k in around):  # it has a direction, and no place
        return None
    for matcher in matchers:
        estimates = [(k, track(matcher, view, k, [se3.inverse(T_wc) @ k.T_wc])) for k in around]
        believed = [(k, e) for k, e in estimates if e.status is Status.TRACKING and e.visible_ratio >= MIN_VISIBLE]
        if believed:
            near, good = believed[0][0], [e for _, e in believed]
            weight = [e.mean_confidence * e.inlier_ratio * e.visible_ratio for e in good]
            share = torch.tensor(weight, dtype=torch.float64) / sum(weight)
            mean = share @ torch.stack([se3.log(se3.inverse(T_wc) @ e.T_wc) for e in good])
            return estimate_at(view.frame_id, view.time_ns, near, T_wc @ se3.exp(mean))
    return None


def estimate_at(frame_id: int, time_ns: int, keyframe: Keyframe, T_wc: Tensor) -> Estimate:
    """That a frame is at a pose (4, 4), relative to a keyframe."""
    T_ck = se3.inverse(T_wc) @ keyframe.T_wc
    return Estimate(frame_id, time_ns, Status.TRACKING, keyframe.id, T_ck, keyframe.scale, T_wc, metric=keyframe.metric)

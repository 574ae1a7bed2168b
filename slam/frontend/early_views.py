"""Views of frames that were placed while the camera was still uncertain, to be placed again once it is known."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from slam.frames import Estimate, Image, Recalibration, Status, View
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.mapping.recalibration import recalibrated_view
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher

LIMIT = 600  # views, 0.15 MB each


class EarlyViews:
    """Keeps the first views of a run."""

    def __init__(self) -> None:
        self._views: list[View] = []
        self._changes: list[tuple[int, Recalibration]] = []  # views until then, and what changed

    def keep(self, view: View) -> None:
        """Take a view, while there is room."""
        if len(self._views) < LIMIT:
            image = Image(view.image.rgb, view.image.mask)  # another, so that what networks made of it is let go
            self._views.append(replace(view, image=image))

    def recalibrate(self, change: Recalibration) -> None:
        """Take it that the views so far were made as of the camera before a change."""
        self._changes.append((len(self._views), change))

    def _as_known_now(self) -> Iterator[View]:
        """The views as of the last camera, each warped once."""
        begin = 0
        for end, change in self._changes:
            whole = replace(change, after=self._changes[-1][1].after)
            yield from (recalibrated_view(view, whole) for view in self._views[begin:end])
            begin = end
        yield from self._views[begin:]

    def placed_again(self, matcher: Matcher, store: KeyframeStore) -> Iterator[Estimate]:
        """Better estimates of the frames that were believed, against the keyframes before and after them as they are
        now."""
        before = store.trajectory()
        at = {time_ns: n for n, time_ns in enumerate(before.time_ns.tolist())}
        keyframes = [k for k in store.keyframes if k.view.frame_id >= 0]
        ids = np.array([k.view.frame_id for k in keyframes])
        for view in self._as_known_now():
            if view.time_ns not in at or view.frame_id in ids:
                continue
            T_wc = torch.from_numpy(before.T_wc[at[view.time_ns]])
            near = keyframes[int(np.abs(ids - view.frame_id).argmin())]
            estimate = track(matcher, view, near, [se3.inverse(T_wc) @ near.T_wc])
            if estimate.status is Status.TRACKING:
                yield estimate

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
    """Keeps the first views of a run, as the camera is known now."""

    def __init__(self) -> None:
        self._views: list[View] = []

    def keep(self, view: View) -> None:
        """Take a view, while there is room."""
        if len(self._views) < LIMIT:
            image = Image(view.image.rgb, view.image.mask)  # another, so that what networks made of it is let go
            self._views.append(replace(view, image=image))

    def recalibrate(self, change: Recalibration) -> None:
        """Make the views as of the camera after a change."""
        self._views = [recalibrated_view(view, change) for view in self._views]

    def placed_again(self, matcher: Matcher, store: KeyframeStore) -> Iterator[Estimate]:
        """Better estimates of the frames that were believed, against the keyframes before and after them as they are
        now."""
        before = store.trajectory()
        at = {time_ns: n for n, time_ns in enumerate(before.time_ns.tolist())}
        keyframes = [k for k in store.keyframes if k.view.frame_id >= 0]
        ids = np.array([k.view.frame_id for k in keyframes])
        for view in self._views:
            if view.time_ns not in at or view.frame_id in ids:
                continue
            T_wc = torch.from_numpy(before.T_wc[at[view.time_ns]])
            near = keyframes[int(np.abs(ids - view.frame_id).argmin())]
            estimate = track(matcher, view, near, [se3.inverse(T_wc) @ near.T_wc])
            if estimate.status is Status.TRACKING:
                yield estimate

"""The start: the first map, by the depth of a sensor at once, else as soon as the parallax allows; and a further one
where a lost camera does not find its way back."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from slam.frames import UNNUMBERED, Estimate, Keyframe, Status, View
from slam.frontend.diagnosis import StartWatch, diagnosed
from slam.frontend.initialiser import Initialiser, InitialiserConfig, InitialMap
from slam.frontend.tracker import MIN_PARALLAX_PX, track
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.sensor import measured_coarse, measured_dense
from slam.matching.matcher import Matcher
from slam.recognition.keypoints import KeypointConfig
from slam.stereo.prior import Prior

log = logging.getLogger(__name__)

MIN_MEASURED = 0.3  # part of the cells with sensor depth that makes a first map at once
MIN_DECIDED = 0.15  # part of the cells that views must decide, to replace a guess
MIN_LOST_NS = 500_000_000  # before depth alone begins a further map: a covered or blurred lens has some too
PLACED_LIVE = 15  # gathered frames that a first map places of a camera: it moves on meanwhile, 20 to 40 ms for each


class Start:
    """Gathers views until there is a first map, then places them in it."""

    def __init__(
        self,
        tracking: Matcher,
        mapping: Matcher,
        config: InitialiserConfig = InitialiserConfig(),
        live: bool = False,
        device: torch.device = torch.device("cpu"),
        prior: Prior | None = None,
        is_lens_guessed: bool = False,
        keypoints: KeypointConfig = KeypointConfig(),
    ) -> None:
        """`tracking` places views where depth is known, `mapping` seeks depth; `live`: of a camera, which moves on.
        The first map's depth will be on the device; `is_lens_guessed`: as of `Initialiser`."""
        self.tracking = tracking
        self.mapping = mapping
        self.is_lens_guessed = is_lens_guessed
        self.live = live
        self.device = device
        self.prior = prior
        self.config = config
        self.keypoints = keypoints
        self.initialiser = self._initialiser()
        self._is_further = False  # there is a map, and the camera lost
        self._later: Initialiser | None = None  # gathers views of a keyframe whose depth is a guess ...
        self._anchor_id = -1  # ... this one
        self._still: list[tuple[View, Tensor]] = []  # those before with hardly any parallax, and their T_ck (4, 4)
        self.watch = StartWatch()
        self._sees_depth = False  # of a sensor, though too little for a first map

    def _initialiser(self) -> Initialiser:
        return Initialiser(self.mapping, self.config, self.device, self.prior, self.is_lens_guessed, self.keypoints)

    def anew(self) -> None:
        """Gather views for a further map: the camera is lost."""
        self._is_further = True
        self.forget()

    def add(self, view: View) -> InitialMap | None:
        """Take a view; a map, if this one made it possible."""
        self.watch.add(view)
        self._sees_depth |= view.sensor_depth is not None
        is_early = self._is_further and view.time_ns - self._first_ns(view) < MIN_LOST_NS
        first = None if is_early else self._measured(view)
        first = first or self.initialiser.add(view) or (None if is_early else self.initialiser.guessed())
        if first is not None:
            self.forget()
            if self._sees_depth and not first.metric:
                log.warning("sensor depth is not used: no frame had enough of it when the map began")
        return first

    def _first_ns(self, view: View) -> int:
        """Time of the first view that was gathered, or of this one."""
        return min(v.time_ns for v in (*self.initialiser.dropped[:1], *self.initialiser.views[:1], view))

    def why_no_map(self, size: tuple[int, int]) -> str:
        """The most likely reason why no view has made a map yet; `size`: width and height of the images."""
        return diagnosed(self.watch.evidence(self.initialiser, size))

    def again(
        self, view: View, estimate: Estimate, keyframes: Mapping[int, Keyframe]
    ) -> tuple[InitialMap, Keyframe] | None:
        """Take a view that was tracked against a keyframe whose depth is a guess: as soon as the parallax allows, that
        keyframe, or one before it that shows the same, with a depth that views decided, in the unit of the guess, and
        the map that was made for it, of all views since then.

        Args:
            keyframes: by their ids, as they are now.
        """
        assert estimate.parallax_px is not None
        keyframe = keyframes.get(self._anchor_id, keyframes[estimate.keyframe_id])
        if not (self._later and self._later.views and self._later.views[0] is keyframe.view and keyframe.is_guessed):
            keyframe = keyframes[estimate.keyframe_id]
            self._anchor_id, self._later, self._still = keyframe.id, self._initialiser(), []
            self._later.add(keyframe.view)
        if keyframe.id == estimate.keyframe_id and estimate.parallax_px < MIN_PARALLAX_PX:
            self._still = [*self._still[1 - self.config.max_gathered :], (view, estimate.T_ck)]
            return None
        first = self._later.add(view)
        if first is None or first.view is not keyframe.view or first.coarse.decided_share < MIN_DECIDED:
            return None
        decided = torch.where(first.coarse.decided, first.coarse.value, 0.0)
        unit = float((first.coarse.value / keyframe.coarse.value)[first.coarse.decided].median())
        known = InvDepth(decided, first.coarse.sigma).rescaled(unit)
        coarse = known.inpainted(keyframe.prior)
        dense = keyframe.view.image.masked(coarse.upsampled(view.image.size))
        decisive = [(v, se3.scaled_translation(T, unit)) for v, T in zip(first.views, first.T_cks, strict=True)]
        views, T_cks = zip(*sorted([*self._still, *decisive], key=lambda pair: pair[0].frame_id), strict=True)
        return replace(first, views=views, T_cks=T_cks), replace(keyframe, coarse=coarse, dense=dense, on_guess=False)

    def forget(self) -> None:
        """All views gathered so far: they were made as of another camera, or are used."""
        self.initialiser, self._later, self._still = self._initialiser(), None, []

    def _measured(self, view: View) -> InitialMap | None:
        """A first map of this view by its sensor depth, if that is enough and the view can be tracked against."""
        measured = measured_coarse(view, self.tracking.stride, self.device)
        if measured.known.float().mean() < MIN_MEASURED:
            return None
        coarse = measured.inpainted()
        if not self.mapping.match(view, coarse, view, se3.identity()).ok:
            return None  # dark or plain
        before = (*self.initialiser.dropped, *self.initialiser.views)
        prior = None if self.prior is None else self.prior(view)
        return InitialMap(view, coarse, (), (), before, metric=True, prior=prior)

    def place(self, first: InitialMap, keyframe: Keyframe) -> list[Estimate]:
        """Estimates of the gathered frames against the first keyframe, in order of time; of a camera the last
        PLACED_LIVE."""
        if self.live:
            first = replace(first, before=(), views=first.views[-PLACED_LIVE:], T_cks=first.T_cks[-PLACED_LIVE:])
        earlier, T_ck = [], se3.identity()
        for view in reversed(first.before):
            estimate = track(self.tracking, view, keyframe, [T_ck])
            earlier.append(estimate)
            T_ck = estimate.T_ck if estimate.status is Status.TRACKING else T_ck
        itself = track(self.tracking, first.view, keyframe, [se3.identity()])
        later = [
            track(self.tracking, view, keyframe, [T_ck]) for view, T_ck in zip(first.views, first.T_cks, strict=True)
        ]
        estimates = [*reversed(earlier), itself, *later]
        placed = sum(estimate.status is Status.TRACKING for estimate in estimates)
        scale = "metric" if first.metric else "unknown"
        log.info("first map: %d of %d frames placed; scale %s", placed, len(estimates), scale)
        return estimates


def first_keyframe(first: InitialMap) -> Keyframe:
    """The keyframe that a first map begins with, for the store to number."""
    view = first.view if first.metric else replace(first.view, sensor_depth=None)
    dense = first.coarse.upsampled(view.image.size).composited(measured_dense(view, first.coarse.device))
    dense = view.image.masked(dense)
    return Keyframe(UNNUMBERED, view, se3.identity(), dense, first.coarse, metric=first.metric, prior=first.prior)

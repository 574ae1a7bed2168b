"""The system: the loop that turns frames into poses and a map. `slam.build` makes one."""

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch

from slam.backend.client import BackendClient
from slam.config import SlamConfig
from slam.frames import Counts, Estimate, Frame, Keyframe, Progress, Restore, Status, Update, View, frame_of
from slam.frontend.kept_views import KeptViews, place_archived
from slam.frontend.start import first_keyframe
from slam.geometry import se3
from slam.io.run_record import SystemRecord
from slam.mapping.promotion import placed_anew, promote
from slam.parts import Parts
from slam.sources import Source
from slam.sources.feed import Feed
from slam.threads import Helpers
from slam.timing import StageTimes

log = logging.getLogger(__name__)

WAITING_FRAMES = 60  # without a map, after which the reason is shown, and asked for anew


class Slam:
    """Dense SLAM of one camera: feed it frames in order of time with `step`, or a whole source with `run`.

    Where frames carry depth from the start the map is in metres; else its unit is its own, and depth is not used.
    """

    def __init__(self, parts: Parts, config: SlamConfig, record: SystemRecord) -> None:
        """`record` says whether frames come from a camera, which does not wait, and whether there are threads."""
        self.parts, self.config, self.record = parts, config, record
        self.preparation = parts.preparation
        self.localiser = parts.localiser
        self.store = parts.store
        self.backend = BackendClient(parts.backend.process, record.live, record.threads)
        self.status, self.counts, self.times = Status.INIT, Counts(), StageTimes()
        self._newest: Frame | None = None  # that was fed
        self._last: tuple[View, Estimate] | None = None  # of the last frame since the map began
        self._kept = KeptViews(config.placed_again)

    def run(
        self,
        source: Source,
        publish: Callable[[Progress], None] = lambda progress: None,
        on_poses: Callable[[list[Estimate]], None] = lambda estimates: None,
        stopped: Callable[[], bool] = lambda: False,
        pause: Callable[[], None] = lambda: None,
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        """Track and map a source to its end, or until `stopped`; see `Feed`.

        Args:
            publish: given the state after each frame; must not wait.
            on_poses: given new estimates as first made, in order of time.
            hurried: see `finish`.

        Raises:
            SlamError: what the source or a thread died of; the map so far stays in `store`.
        """
        if source.live != self.record.live:
            raise ValueError(f"the system was built with live={self.record.live}, the source has live={source.live}")
        feed = Feed(source, self.record.threads, stopped, pause)
        waiting = ""
        try:
            for frame in feed:
                on_poses(self.step(frame))
                self.counts.skipped, self.counts.dropped = feed.skipped, feed.dropped
                if self.status is Status.INIT and self.counts.seen % WAITING_FRAMES == 0:
                    waiting = self.why_no_map()
                elif self.status is not Status.INIT:
                    waiting = ""
                publish(Progress(self.store.snapshot(), self.status, replace(self.counts), frame, waiting))
        finally:
            feed.close()
            self.counts.skipped = feed.skipped  # those after the last good frame too
            self.finish(hurried)

    def feed(self, image: np.ndarray, time_s: float, depth: np.ndarray | None = None) -> list[Estimate]:
        """`step` for arrays.

        Args:
            image: (H, W, 3) uint8 RGB, of the size of the camera that the system was built for.
            time_s: later than that of the image before.
            depth: (H, W) z-depth in metres, 0 unknown, aligned to the image.

        Raises:
            ValueError: if the image is not such an array, or the time does not increase.
        """
        frame = frame_of(image, time_s, self.preparation.source, depth, before=self._newest)
        self._newest = frame
        return self.step(frame)

    def step(self, frame: Frame) -> list[Estimate]:
        """Take one frame; new estimates in order of time: none before the first map, then those of all gathered frames,
        then one; those of all gathered frames again where a lost camera begins another map."""
        self.counts.seen += 1
        with torch.inference_mode():
            self._apply(self.backend.results())
            with self.times.measure("prepare"):
                view = self.preparation.prepare(frame)
                is_certain = not self.parts.backend.is_camera_uncertain
                if self.config.final_refine or not is_certain:
                    self._kept.keep(view, is_certain)
                if self.status is not Status.INIT:  # the start needs another flow, and this one's features much later
                    self.localiser.matcher.correspondence.encode([view.image])
            if self.status is Status.INIT:
                with self.times.measure("initialise"):
                    return self._start(view)
            was_lost = self.status is Status.LOST
            with self.times.measure("track"):
                estimate = self.localiser.locate(view, self.store, self._switch_reference)
            self._record(estimate)
            self._last = view, estimate
            if estimate.status is Status.LOST:
                return self._start_elsewhere(view, was_lost) or [estimate]
            if self._start_again(view, estimate):
                return [estimate]
            if self.localiser.pending_id is None:
                if self.parts.keyframing.wants(estimate, self.preparation.depth_frame_id):
                    self._add_keyframe(view, estimate)
            elif self.parts.keyframing.exhausted(estimate) or self._is_kept_waiting(estimate):
                self._switch_reference()
            return [estimate]

    def finish(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Wait for the backend, take its last results, also if it died of something, which is raised; then complete the
        dense depth, and adjust the whole map together, as long as it is not `hurried`."""
        try:
            self._end_with_keyframe()
            last = self.backend.close()
        except BaseException:
            self._apply(self.backend.results())
            raise
        self._apply(last)
        backend, helpers = self.parts.backend, Helpers(2 if self.record.threads else 0)  # the other threads are idle
        with closing(helpers):
            rest = [backend.densify_rest, backend.calibrate_at_last, backend.join_rest]
            if self.config.final_refine and len(self.store) > 2:
                rest.append(lambda: backend.adjust_all(self.parts.aligning, helpers))
            for job in rest:
                if not hurried():
                    self._apply([job()])
            if not hurried():
                matchers = self.parts.aligning, self.localiser.matcher  # the first is faster, the second finds more
                with self.times.measure("place again"):
                    if self.config.final_refine:
                        place_archived(matchers, self.store, helpers, hurried)
                    for estimate in self._kept.placed_again(matchers, self.store, helpers):
                        self.store.record(estimate)
        if self.backend.windows_skipped:
            log.warning("the backend had no time for %d keyframes when they were made", self.backend.windows_skipped)

    def why_no_map(self) -> str:
        """The most likely reason why there is no map yet, with the remedy."""
        source = self.preparation.source
        return self.parts.start.why_no_map((source.width, source.height))

    def _start(self, view: View) -> list[Estimate]:
        """Take a view where there is no map; estimates of all those gathered, if this one begins it."""
        first = self.parts.start.add(view)
        if first is None:
            return []
        keyframe = self.store.add(first_keyframe(first))
        self.localiser.begin(keyframe.id)
        estimates = self.parts.start.place(first, keyframe)
        for estimate in estimates:
            self._record(estimate)
        self._add_first_keyframes(first.views, estimates)
        self._record_by_nearest_keyframes(estimates)
        return estimates

    def _add_first_keyframes(self, views: Sequence[View], estimates: Sequence[Estimate]) -> None:
        """Make keyframes of the newest view that a first map was made of, and of those before that are far apart;
        against a guess these would have a direction and no place."""
        is_guessed = self.store[self.localiser.reference_id].is_guessed
        of_frame = {estimate.frame_id: estimate for estimate in estimates}
        flow_px = 0.0
        for view in views:
            estimate = of_frame.get(view.frame_id)
            if estimate is None or estimate.status is not Status.TRACKING:
                continue
            is_far = estimate.mean_flow_px > flow_px + self.config.keyframing.flow_px
            if view is views[-1] or (is_far and not is_guessed):
                self._switch_reference()
                self._add_keyframe(view, self.store.as_of(estimate, self.localiser.reference_id))
                flow_px = estimate.mean_flow_px

    def _start_elsewhere(self, view: View, was_lost: bool) -> list[Estimate]:
        """Take a view of a lost camera, for a map of the place where it is now; as `_start`."""
        with self.times.measure("initialise"):
            if not was_lost:
                self.parts.start.anew()
            estimates = self._start(view)
            if estimates:
                log.info("map %d begins where the camera was lost", estimates[-1].keyframe_id)
                self.counts.lost -= len(estimates)  # each had been counted as lost, and is counted anew
            return estimates

    def _start_again(self, view: View, estimate: Estimate) -> bool:
        """Replace the depth of the reference keyframe, or of one before it, while it is a guess, by one that views
        decide, and place those after it anew; True if so."""
        if estimate.status is not Status.TRACKING or estimate.parallax_px is None:
            return False
        with self.times.measure("initialise"):
            found = self.parts.start.again(view, estimate, self.store.by_id)
            if found is None:
                return False
            first, keyframe = found
            estimates = self.parts.start.place(first, keyframe)
        stride = self.localiser.matcher.stride
        at = {e.frame_id: e for e in estimates if e.status is Status.TRACKING}
        after = [
            placed_anew(k, at[k.view.frame_id], keyframe, stride)
            for k in self.store.keyframes
            if k.id > keyframe.id and k.is_guessed and k.view.frame_id in at
        ]
        self._apply([Update((keyframe, *after), {})])
        self.backend.restore(Restore((keyframe, *after)))
        self._record_by_nearest_keyframes(estimates)
        if estimates[-1].status is Status.TRACKING:
            self._add_keyframe(view, estimates[-1], keyframe)
        return True

    def _record_by_nearest_keyframes(self, estimates: Sequence[Estimate]) -> None:
        """Remember gathered frames relative to the keyframe nearest in time: the same errors placed that one, and what
        corrects that one will correct them."""
        of_frame = {e.frame_id: e for e in estimates if e.status is Status.TRACKING}
        keyframes = [k for k in self.store.keyframes if k.view.frame_id in of_frame]
        for estimate in estimates:
            if keyframes and estimate.status is Status.TRACKING:
                near = min(keyframes, key=lambda k: abs(k.view.frame_id - estimate.frame_id))
                T_ck = se3.inverse(estimate.T_wc) @ of_frame[near.view.frame_id].T_wc
                estimate = replace(estimate, keyframe_id=near.id, T_ck=T_ck)
            self.store.record(estimate)

    def _record(self, estimate: Estimate) -> None:
        self.store.record(estimate)
        self.localiser.observe(estimate, self.store)
        self.status = estimate.status
        self.counts.count(estimate.status)

    def _add_keyframe(self, view: View, estimate: Estimate, reference: Keyframe | None = None) -> None:
        """Make a frame a keyframe and hand it to the backend; the reference stays until that has worked on it."""
        config, stride = self.config.backend, self.localiser.matcher.stride
        with self.times.measure("prior"):
            prior = None if self.parts.prior is None else self.parts.prior(view)
        keyframe = self.store.add(promote(view, estimate, reference or self.store[estimate.keyframe_id], stride, prior))
        self.localiser.pending_id = keyframe.id
        self.store.make_room(self.config.max_keyframes, 2 * config.window, self.localiser.reference_id)
        if not self.backend.submit(self.store.window(keyframe.id, config.window, config.first_window)):
            self.localiser.switch()  # later windows will hold it; until then it serves as it is

    def _end_with_keyframe(self) -> None:
        """Make the last frame a keyframe, so that those before it are between two."""
        if self._last is not None and self.localiser.pending_id is None:
            view, estimate = self._last
            if self.parts.keyframing.wants_last(estimate, self.preparation.depth_frame_id):
                with torch.inference_mode():
                    self._add_keyframe(view, estimate)

    def _is_kept_waiting(self, estimate: Estimate) -> bool:
        """True if the pending keyframe is worth waiting for: tracking against it is more precise, and there is time."""
        pending = self.localiser.pending_id
        assert pending is not None
        behind = estimate.frame_id - self.store[pending].view.frame_id
        return not self.record.live and behind >= self.config.keyframing.patience_frames

    def _switch_reference(self) -> None:
        """Go over to the pending keyframe: refined if the source can wait for that, as it is if not."""
        with self.times.measure("wait for backend"):
            while self.localiser.pending_id is not None and not self.record.live:
                self._apply(self.backend.wait())
        self.localiser.switch()

    def _apply(self, updates: list[Update]) -> None:
        for update in updates:
            self.store.apply(update)
            if update.recalibration is not None:
                self.preparation = self.preparation.recalibrated(update.recalibration.camera)
                self.parts.start.forget()
                self._kept.recalibrate(update.recalibration)
            self.times.add_all(update.seconds, "backend: ")
        pending_id = self.localiser.pending_id
        if pending_id is not None and self.store[pending_id].refined:
            self.localiser.switch()

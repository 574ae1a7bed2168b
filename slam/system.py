"""The system: builds the parts, owns the threads, runs the loop."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slam.backend.backend import Backend
from slam.backend.loops import Loop, LoopCloser
from slam.backend.optimizer import Optimizer
from slam.config import CorrespondenceConfig, SlamConfig
from slam.errors import MapError, OutputError, UsageError
from slam.frames import (
    UNNUMBERED,
    Counts,
    DensifyAndCloseLoops,
    Estimate,
    Frame,
    Image,
    Keyframe,
    Progress,
    Status,
    Update,
    View,
    Window,
)
from slam.frontend.initialiser import Initialiser, InitialMap
from slam.frontend.keyframing import Keyframing
from slam.frontend.motion_model import MotionModel
from slam.frontend.preparation import Preparation
from slam.frontend.relocaliser import Relocaliser
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.mapping.culling import most_redundant
from slam.mapping.promotion import promote
from slam.mapping.sensor import measured_coarse, measured_dense
from slam.mapping.store import KeyframeStore
from slam.matching.correspondence import Correspondence
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.matching.matcher import Matcher
from slam.matching.photometric import PhotometricRefinement
from slam.networks.storage import load_network, weights_path
from slam.sources import Source
from slam.stereo.stereo import LearnedStereo, PlaneSweepStereo, Stereo
from slam.threads import Inline, Reader, Worker
from slam.timing import StageTimes

log = logging.getLogger(__name__)

SAME_CAMERA = 0.02  # relative difference of intrinsics
MIN_MEASURED = 0.05  # part of an image whose depth a sensor must know for any of it to be used
START_MEASURED = 0.3  # part of the cells with sensor depth that makes a first map at once
DEPTH_WAIT = 5  # frames that a new keyframe waits for one with sensor depth
GAP_S, GAP_FRAMES = 0.5, 5  # without images for longer than both, the camera may be anywhere
LIVE_PLACED = 15  # gathered frames that a first map places of a camera: it moves on meanwhile, 20 to 40 ms for each


class Slam:
    """Dense SLAM of one camera: feed it frames in order of time with `step`, or a whole source with `run`.

    Where frames carry depth from the start the map is in metres; else its unit is its own, and depth is not used.
    """

    def __init__(
        self,
        config: SlamConfig,
        camera: Camera,
        matcher: Matcher,
        mapping_matcher: Matcher,
        stereo: Stereo | None,
        threads: bool = True,
    ) -> None:
        self.config = config
        self.threads = threads
        self.preparation = Preparation(camera, config.pixels)
        self.matcher = matcher
        self.mapping_matcher = mapping_matcher  # where depth is sought, not used
        self.initialiser = Initialiser(self.mapping_matcher, config.initialiser)
        self.motion_model = MotionModel(config.motion_model)
        self.keyframing = Keyframing(config.keyframing)
        self.relocaliser = Relocaliser(self.matcher, config.relocaliser)
        self.store = KeyframeStore()
        closer = LoopCloser(self.matcher, config.loops) if config.loops.enabled else None
        self._mapper = Backend(Optimizer(self.mapping_matcher, stereo, config.backend), closer)
        self.backend: Worker[Window | DensifyAndCloseLoops, Update] | Inline[Window | DensifyAndCloseLoops, Update] = (
            Worker(self._mapper.process, "backend", capacity=4) if threads else Inline(self._mapper.process)
        )
        self.status = Status.INIT
        self.counts = Counts()
        self.times = StageTimes()
        self._reference_id = -1  # keyframe that frames are tracked against
        self._pending_id: int | None = None  # the next one, while the backend works on it
        self._live = False
        self._last_ns = 0  # time of the last frame ...
        self._interval_ns = 0.0  # ... and of late between frames
        self._depth_id = -DEPTH_WAIT  # last frame with sensor depth
        self._depth_was_poor = False  # in some frame; said once
        self._disk_refused = False  # to take keyframes
        self.jobs_skipped = 0  # keyframes of a live source that the backend had no room for

    def run(
        self,
        source: Source,
        publish: Callable[[Progress], None] = lambda progress: None,
        on_poses: Callable[[list[Estimate]], None] = lambda estimates: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Track and map a source to its end, or until `stopped`.

        Args:
            source: frames in order of time.
            publish: given the state after each frame; must not wait.
            on_poses: given new estimates as first made, in order of time.
            stopped: asked before each frame, and while a camera gives none.

        Raises:
            SlamError: what the source or a thread died of; the map so far stays in `store`.
        """
        self._live = source.live
        reader = Reader(source, source.live, stopped=stopped) if self.threads else None
        try:
            for frame in reader if reader is not None else source:
                if stopped():
                    break
                on_poses(self.step(frame))
                self.counts.skipped = source.skipped
                self.counts.dropped = reader.dropped if reader is not None else 0
                estimate = self.store.last_estimate()
                publish(Progress(self.store.snapshot(estimate), self.status, replace(self.counts), frame))
        finally:
            if source.live:
                source.close()  # the reader may be waiting for its next frame
            if reader is not None:
                reader.close()
            self.counts.skipped = source.skipped  # those after the last good frame too
            self.finish()

    def load(self, keyframes: list[Keyframe]) -> None:
        """Begin in an earlier map instead of making one: lost, until a frame shows a place of it.

        Raises:
            MapError: if it was made with another camera, size or correspondence.
        """
        view, K = keyframes[0].view, self.preparation.camera.matrix()
        size = (self.preparation.camera.height, self.preparation.camera.width)
        if view.image.size != size or float((view.K / K - 1).nan_to_num(0.0).abs().max()) > SAME_CAMERA:
            raise MapError("the map was made with another camera or image size; --save-map makes one with this")
        cells = tuple(side // self.matcher.stride for side in size)
        if keyframes[0].coarse.size != cells:
            raise MapError("the map has cells of another size; set the same correspondence.tracking, or make it anew")
        self.store.restore(keyframes)
        self._reference_id = keyframes[-1].id
        self._make_room()
        self._mapper.optimizer.keyframes = {k.id: k for k in self.store.keyframes}
        self.status = Status.LOST

    def step(self, frame: Frame) -> list[Estimate]:
        """Take one frame.

        Returns:
            New estimates in order of time: none before the first map, then those of all gathered frames (from a live
            source the last LIVE_PLACED), then one.
        """
        self.counts.seen += 1
        with torch.inference_mode():
            self._apply(self.backend.results())
            with self.times.measure("prepare"):
                view = self._prepared(frame)
            if self.status is Status.INIT:
                with self.times.measure("initialise"):
                    return self._initialise(view)
            with self.times.measure("track"):
                estimate = self._locate(view)
            self._record(estimate)
            if self._pending_id is None and self._wants_keyframe(view, estimate):
                self._add_keyframe(view, estimate)
            elif self._pending_id is not None and self.keyframing.exhausted(estimate):
                self._take_pending()
            return [estimate]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Those between active keyframes, once the run has ended."""
        return tuple(self._mapper.closer.loops) if self._mapper.closer is not None else ()

    def facts(self) -> dict[str, Any]:
        """What the backend did, for `run.json`."""
        return {
            "loops": len(self.loops),
            "refinements_skipped": self._mapper.refinements_skipped,
            "backend_jobs_skipped": self.jobs_skipped,
        }

    def finish(self) -> None:
        """Wait for the backend, take its last results, also if it died of something, which is raised; then refine."""
        try:
            last = self.backend.close()
        except BaseException:
            self._apply(self.backend.results())
            raise
        self._apply(last)
        if self.config.final_refine and len(self.store) > 2:
            self._apply([self._mapper.refine()])
        if self.jobs_skipped:
            log.warning("the backend was too slow for %d keyframes, refined late or not at all", self.jobs_skipped)

    def _prepared(self, frame: Frame) -> View:
        image, sensor_depth = self.preparation(frame)
        if sensor_depth is not None:
            sensor_depth = self._usable(sensor_depth, frame.id)
        view = View(frame.id, frame.time_ns, Image(image), self.preparation.camera.matrix(), sensor_depth)
        self.matcher.correspondence.encode([view.image])  # once, and in this stage's time
        return view

    def _usable(self, sensor_depth: np.ndarray, frame_id: int) -> np.ndarray | None:
        """None for depth that is hardly known anywhere; the first time a WARNING says so."""
        known = float((sensor_depth > 0).mean())
        if known >= MIN_MEASURED:
            self._depth_id = frame_id
            return sensor_depth
        if not self._depth_was_poor:
            log.warning("frame %d: %.0f %% of its sensor depth is known, it is not used", frame_id, 100 * known)
        self._depth_was_poor = True
        return None

    def _initialise(self, view: View) -> list[Estimate]:
        first = self._measured(view) or self.initialiser.add(view)
        if first is None:
            return []
        at = first.view if first.metric else replace(first.view, sensor_depth=None)
        dense = first.coarse.upsampled(at.image.size).composited(measured_dense(at))
        keyframe = self.store.add(Keyframe(UNNUMBERED, at, se3.identity(), dense, first.coarse, metric=first.metric))
        self._reference_id = keyframe.id
        estimates = self._placed(first, keyframe)
        for estimate in estimates:
            self._record(estimate)
        log.info(
            "first map from %d frames, %d of them placed; scale %s",
            *(self.counts.seen, self.counts.tracked, "metric" if first.metric else "unknown"),
        )
        if not first.metric and self._depth_id >= 0:
            log.warning("sensor depth is not used: no frame had enough of it when the map began")
        if self.status is Status.TRACKING and view is not first.view:
            self._add_keyframe(view, estimates[-1])
        return estimates

    def _measured(self, view: View) -> InitialMap | None:
        """A first map of this view by its sensor depth, if that is enough and the view can be tracked against."""
        measured = measured_coarse(view, self.matcher.stride)
        if measured.known.float().mean() < START_MEASURED:
            return None
        coarse = measured.inpainted()
        if not self.mapping_matcher.match(view, coarse, view, se3.identity()).ok:
            return None  # dark or plain
        before = (*self.initialiser.dropped, *self.initialiser.views)
        return InitialMap(view, coarse, (), (), before, metric=True)

    def _placed(self, first: InitialMap, keyframe: Keyframe) -> list[Estimate]:
        """Estimates of the frames gathered before the first map, in order of time."""
        if self._live:
            first = replace(first, before=(), views=first.views[-LIVE_PLACED:], T_cks=first.T_cks[-LIVE_PLACED:])
        earlier, T_ck = [], se3.identity()
        for view in reversed(first.before):
            estimate = track(self.matcher, view, keyframe, [T_ck])
            earlier.append(estimate)
            T_ck = estimate.T_ck if estimate.status is Status.TRACKING else T_ck
        itself = track(self.matcher, first.view, keyframe, [se3.identity()])
        later = [
            track(self.matcher, view, keyframe, [T_ck]) for view, T_ck in zip(first.views, first.T_cks, strict=True)
        ]
        return [*reversed(earlier), itself, *later]

    def _locate(self, view: View) -> Estimate:
        """Track against the reference keyframe; where that fails, look for the place among all keyframes."""
        is_gap = self._after_gap(view)
        if self.status is Status.TRACKING and not is_gap:
            estimate = self._track(view)
            if estimate.status is Status.LOST and self._pending_id is not None:
                self._take_pending()
                estimate = self._track(view)
            if estimate.status is Status.TRACKING:
                return estimate
        self.motion_model.forget()
        estimate = self.relocaliser.find(view, self.store)
        if estimate.status is Status.TRACKING:
            log.info("frame %d found again at keyframe %d", view.frame_id, estimate.keyframe_id)
            self._reference_id, self._pending_id = estimate.keyframe_id, None  # what was pending may be far from here
        elif self.status is Status.TRACKING:
            log.warning("tracking lost at frame %d", view.frame_id)
        return estimate

    def _after_gap(self, view: View) -> bool:
        """True for the first frame after a time without images, in which a motion cannot be told from another."""
        step_ns = view.time_ns - self._last_ns if self._last_ns else 0
        self._last_ns = view.time_ns
        if not self._interval_ns:
            self._interval_ns = float(step_ns)
            return False
        is_gap = step_ns > max(1e9 * GAP_S, GAP_FRAMES * self._interval_ns)
        self._interval_ns += 0.1 * (step_ns - self._interval_ns)
        return is_gap

    def _track(self, view: View) -> Estimate:
        reference = self.store[self._reference_id]
        return track(self.matcher, view, reference, self.motion_model.guesses(reference, self.store))

    def _record(self, estimate: Estimate) -> None:
        self.store.record(estimate)
        self.status = estimate.status
        if estimate.status is Status.TRACKING:
            self.counts.tracked += 1
            self.motion_model.observe(estimate, self.store)
        else:
            self.counts.lost += 1

    def _wants_keyframe(self, view: View, estimate: Estimate) -> bool:
        """True if this frame should become a keyframe; where some frames have depth, one of those."""
        if not self.keyframing.wants(estimate):
            return False
        awaited = estimate.metric and 0 < view.frame_id - self._depth_id < DEPTH_WAIT
        return not awaited or self.keyframing.exhausted(estimate)

    def _add_keyframe(self, view: View, estimate: Estimate) -> None:
        """Make a frame a keyframe: depth that is not measured is carried over from the reference, for the backend."""
        reference = self.store[estimate.keyframe_id]
        keyframe = self.store.add(promote(view, estimate, reference, self.matcher.stride))
        self._pending_id = keyframe.id
        self._make_room()
        window = self.store.window(keyframe.id, self.config.backend.window)
        if not self._live:
            self.backend.submit(window)
            self.backend.submit(DensifyAndCloseLoops(keyframe.id))
        elif self.backend.try_submit(window):
            self.backend.try_submit(DensifyAndCloseLoops(keyframe.id))
        else:  # later windows will hold it; until then it serves as it is
            self.jobs_skipped += 1
            self._reference_id, self._pending_id = keyframe.id, None

    def _make_room(self) -> None:
        """Let the least needed keyframes leave the active map while that is too full; not the last, nor the first."""
        while len(self.store) > self.config.max_keyframes and not self._disk_refused:
            keyframes = self.store.keyframes
            recent = {k.id for k in keyframes[-2 * self.config.backend.window :]}
            spare = most_redundant(keyframes, recent | {keyframes[0].id, self._reference_id})
            if spare is None:
                return
            try:
                self.store.evict(spare.id)
            except OutputError as error:
                self._disk_refused = True
                log.warning("%s; all keyframes stay in memory from here", error)

    def _take_pending(self) -> None:
        """Go over to the pending keyframe: refined if the source can wait for that, as it is if not."""
        with self.times.measure("wait for backend"):
            while self._pending_id is not None and not self._live:
                self._apply(self.backend.wait())
        if self._pending_id is not None:
            self._reference_id, self._pending_id = self._pending_id, None

    def _apply(self, updates: list[Update]) -> None:
        for update in updates:
            self.store.apply(update)
            for stage, seconds in update.seconds.items():
                self.times.add(f"backend: {stage}", seconds)
        if self._pending_id is not None and self.store[self._pending_id].refined:
            self._reference_id, self._pending_id = self._pending_id, None


def build(
    config: SlamConfig, camera: Camera, weights: Path | None = None, threads: bool = True
) -> tuple[Slam, dict[str, Any]]:
    """The system that a configuration asks for, and the facts about it that a run records.

    Raises:
        WeightsError: if networks are asked for and their weights cannot be used.
    """
    facts: dict[str, Any] = {
        "correspondence": {"tracking": config.correspondence.tracking, "mapping": config.correspondence.mapping},
        "stereo": config.depth.stereo,
        "threads": threads,
        "device": "cpu",
        "weights": None,
    }
    kinds = (config.correspondence.tracking, config.correspondence.mapping)
    learned: LearnedFlow | None = None
    stereo: Stereo | None = PlaneSweepStereo(config.depth.plane_sweep) if config.depth.stereo == "plane_sweep" else None
    if config.depth.stereo == "learned" or any(kind.startswith("learned") for kind in kinds):
        file = weights_path(weights or config.profile)
        motion_network, stereo_network = load_network(file)
        facts["weights"] = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        learned = LearnedFlow(motion_network, config.correspondence.learned)
        if config.depth.stereo == "learned":
            stereo = LearnedStereo(learned, stereo_network)
    elif weights is not None:
        raise UsageError(f"--weights {weights} is not used: neither correspondence nor depth.stereo is learned")
    tracking, mapping = (
        Matcher(build_correspondence(kind, config.correspondence, learned), config.matcher) for kind in kinds
    )
    if tracking.stride != mapping.stride:
        raise UsageError(
            f"correspondence.tracking={kinds[0]} has cells of {tracking.stride} pixels, "
            f"correspondence.mapping={kinds[1]} of {mapping.stride}: both must have the same"
        )
    return Slam(config, camera, tracking, mapping, stereo, threads), facts


def build_correspondence(
    kind: str, config: CorrespondenceConfig, learned: LearnedFlow | None
) -> Correspondence[Any, Any]:
    """The correspondence of a name in the settings; one that is learned needs the network."""
    if kind.startswith("learned"):
        assert learned is not None
        return PhotometricRefinement(learned, config.photometric) if kind.endswith("_photometric") else learned
    dis = DisFlow(config.dis)
    return PhotometricRefinement(dis, config.photometric) if kind.endswith("_photometric") else dis

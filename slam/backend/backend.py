"""What happens to the map after each keyframe: its window adjusted, dense depth and keypoints, loops closed."""

import torch

from slam.backend.adjustment import Adjustment
from slam.backend.config import BackendConfig
from slam.backend.densification import Densification, is_wanting, with_pooled_depth
from slam.backend.graph import Edge, KeyframeGraph, Pair
from slam.backend.loops import Loop, LoopCloser, LoopConfig
from slam.backend.self_calibration import SelfCalibration
from slam.frames import DensifyAndCloseLoops, Keyframe, Recalibration, Restore, Update, Window
from slam.matching.matcher import Matcher
from slam.recognition.keypoints import KeypointConfig, with_keypoints
from slam.stereo.stereo import Stereo
from slam.threads import Helpers
from slam.timing import StageTimes

ROUNDS = 3  # of the adjustment of the whole map to another camera

Job = Window | DensifyAndCloseLoops | Restore


class Backend:
    """Owns the keyframe graph; its jobs run one after the other, on one thread."""

    def __init__(
        self,
        adjustment: Adjustment,
        densification: Densification | None,
        closer: LoopCloser | None,
        keypoints: KeypointConfig = KeypointConfig(),
        calibration: SelfCalibration | None = None,
    ) -> None:
        """The parts; no `densification`, no `closer`, no `calibration`: nothing of the kind is done."""
        self.graph = KeyframeGraph()
        self.adjustment = adjustment
        self.densification = densification
        self.closer = closer
        self.keypoints = keypoints
        self.calibration = calibration
        self.adjustments_skipped = 0  # of a map too large to be adjusted as a whole while a run goes on

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Those between active keyframes, once the run has ended."""
        return tuple(self.closer.loops) if self.closer is not None else ()

    @property
    def is_camera_uncertain(self) -> bool:
        """True while the map is asked for the camera."""
        return self.calibration is not None and self.calibration.is_asked

    @torch.inference_mode()  # of the thread it runs on
    def process(self, job: Job) -> Update:
        """Do one job; what it changed."""
        clock = StageTimes()
        change: Recalibration | None = None
        if isinstance(job, Window):
            changed = self._adjust(job, clock)
        elif isinstance(job, DensifyAndCloseLoops):
            changed = self._densify_and_close_loops(job.keyframe_id, clock) if job.keyframe_id in self.graph else []
            if self.calibration is not None and self.calibration.is_due(len(self.graph)):
                change = self._calibrate(self.calibration, clock)
                changed = changed if change is None else self.graph.keyframes
        else:
            changed = [self.graph.recalibrated(k) for k in job.keyframes]
            self.graph.put(changed)
        return Update(tuple(changed), clock.totals(), change)

    @torch.inference_mode()
    def calibrate_at_last(self) -> Update:
        """Ask the whole map for the camera, where that is to be found out."""
        clock, change = StageTimes(), None
        if self.calibration is not None and len(self.graph):
            change = self._calibrate(self.calibration, clock)
        return Update(tuple(self.graph.keyframes) if change else (), clock.totals(), change)

    @torch.inference_mode()
    def densify_rest(self) -> Update:
        """Dense depth of the keyframes that still want it: the last ones, and those there was no time for."""
        clock, changed = StageTimes(), []
        if self.densification is not None:
            with clock.measure("stereo"):
                for k in reversed(self.graph.keyframes):
                    if is_wanting(self.graph[k.id]):
                        chain = self.graph.chain(k.id, self.adjustment.config.window)
                        dense = self.densification.densify(chain, ends=True)
                        self.graph.put(dense)
                        changed += dense
        return Update(tuple(changed), clock.totals())

    @torch.inference_mode()
    def adjust_all(self, aligning: Matcher | None = None, helpers: Helpers = Helpers()) -> Update:
        """Adjust poses and depths of the whole map together; then again, on flows that a matcher measured anew by
        aligning images, as these poses and depths have them. `helpers` align several at the same time."""
        clock = StageTimes()
        with clock.measure("refine"):
            flows = self.graph.subsampled_edges() | self._loop_edges()
            self.adjustment.adjust_all(self.graph, flows)
            if aligning is not None:
                flows |= self.adjustment.aligned(self.graph, flows, aligning, helpers)
                self.adjustment.adjust_all(self.graph, flows)
        return Update(tuple(self.graph.keyframes), clock.totals())

    @torch.inference_mode()
    def join_rest(self) -> Update:
        """Join the maps that show a place of another, which none of their keyframes found when it was new."""
        clock, before = StageTimes(), {k.id: k for k in self.graph.keyframes}
        if self.closer is not None and len({k.map_id for k in before.values()}) > 1:
            with clock.measure("loops"):
                self.closer.find_across(self.graph)
                if self.closer.join(self.graph):
                    self.closer.close(self.graph)
        return Update(self._changed_since(before), clock.totals())

    def _changed_since(self, before: dict[int, Keyframe]) -> tuple[Keyframe, ...]:
        """Keyframes of the graph that are others than they were."""
        return tuple(k for k in self.graph.keyframes if k is not before.get(k.id))

    @property
    def _is_dense_at_once(self) -> bool:
        """True where coarse depth comes from stereo, not from the adjustment."""
        return self.adjustment.config.adjust != "joint"

    def _adjust(self, window: Window, clock: StageTimes) -> list[Keyframe]:
        keyframes = self.adjustment.adjust_window(self.graph, window, clock)
        if self.densification is not None and self._is_dense_at_once:
            with clock.measure("stereo"):
                dense = self.densification.densify_newest(keyframes)
                self.graph.put(with_pooled_depth(k, self.adjustment.matcher.stride) for k in dense)
        return [self.graph[k.id] for k in keyframes]

    def _loop_edges(self) -> dict[Pair, Edge]:
        """The flows of all loops, none where loops are not sought."""
        return {} if self.closer is None else self.closer.edges()

    def _calibrate(self, calibration: SelfCalibration, clock: StageTimes) -> Recalibration | None:
        """Ask the map for the camera, and adjust the map to a new one."""
        stride = self.adjustment.matcher.stride
        with clock.measure("calibrate"):
            change = calibration.ask(self.graph, self._loop_edges(), stride)
            if change is not None:
                self.graph.recalibrate(change, stride)
                if self.closer is not None:
                    self.closer.recalibrate(change)
                for _ in range(ROUNDS):
                    self.adjustment.adjust_all(self.graph, self._loop_edges())
        return change

    def _densify_and_close_loops(self, keyframe_id: int, clock: StageTimes) -> list[Keyframe]:
        before = {k.id: k for k in self.graph.keyframes}
        if self.densification is not None and not self._is_dense_at_once:
            with clock.measure("stereo"):
                chain = self.graph.chain(keyframe_id, self.adjustment.config.window)
                self.graph.put(self.densification.densify(chain))
        with clock.measure("keypoints"):
            self.graph.put(with_keypoints(k, self.keypoints) for k in self.graph.keyframes)
        if self.closer is not None:
            with clock.measure("loops"):
                self._close_loops(self.closer, keyframe_id)
        return list(self._changed_since(before))

    def _close_loops(self, closer: LoopCloser, keyframe_id: int) -> None:
        if not closer.find(self.graph, keyframe_id):
            return
        is_joined = closer.join(self.graph)
        if not closer.close(self.graph) and not is_joined:
            return
        if len(self.graph) <= closer.config.refined_keyframes:
            self.adjustment.adjust_all(self.graph, closer.edges())
        else:
            self.adjustments_skipped += 1


def build_backend(
    config: BackendConfig,
    loops: LoopConfig,
    keypoints: KeypointConfig,
    mapping: Matcher,
    tracking: Matcher,
    stereo: Stereo | None,
    helpers: Helpers = Helpers(),
    calibration: SelfCalibration | None = None,
) -> Backend:
    """The backend of settings: the adjustment by the flow that seeks depth, loops by the one that relies on it."""
    return Backend(
        Adjustment(mapping, config, helpers, turning=tracking),
        Densification(stereo, config) if stereo is not None else None,
        LoopCloser(tracking, loops, keypoints) if loops.enabled else None,
        keypoints,
        calibration,
    )

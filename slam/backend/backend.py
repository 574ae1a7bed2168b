"""What happens to the map after each keyframe: its window adjusted, its depth refreshed, loops closed."""

import time
from dataclasses import replace

import torch

from slam.backend.loops import LoopCloser
from slam.backend.optimizer import Edge, Optimizer
from slam.frames import DensifyAndCloseLoops, Keyframe, Update, Window
from slam.recognition.keypoints import detect_keypoints


class Backend:
    """Works on the map's keyframes in the order given; the one owner of what it remembers is its thread."""

    def __init__(self, optimizer: Optimizer, closer: LoopCloser | None) -> None:
        self.optimizer = optimizer
        self.closer = closer
        self.refinements_skipped = 0  # of a map too large to be adjusted while a run goes on

    @torch.inference_mode()  # of the thread it runs on
    def process(self, job: Window | DensifyAndCloseLoops) -> Update:
        """One job: to adjust the newest keyframe with those it was tracked from, or what nobody waits for."""
        return self.optimizer.process(job) if isinstance(job, Window) else self._look_back(job.keyframe_id)

    def _look_back(self, keyframe_id: int) -> Update:
        if keyframe_id not in self.optimizer.keyframes:
            return Update((), {})
        clock, start_s = {}, time.perf_counter()
        changed = {k.id: k for k in self.optimizer.densified(keyframe_id)}
        if changed:
            clock["stereo"] = time.perf_counter() - start_s
        if self.closer is not None:
            start_s = time.perf_counter()
            changed |= {k.id: k for k in self._looped(self.closer, keyframe_id)}
            clock["loops"] = time.perf_counter() - start_s
        return Update(tuple(changed[n] for n in sorted(changed)), clock)

    def _looped(self, closer: LoopCloser, keyframe_id: int) -> list[Keyframe]:
        """Keyframes that have got keypoints, or all of them if a loop was found."""
        changed = [k for k in map(self._recognisable, self._in_order()) if k is not self.optimizer.keyframes[k.id]]
        self.optimizer.keyframes |= {k.id: k for k in changed}
        if closer.found(self.optimizer.keyframes[keyframe_id], self._in_order()):
            bent = closer.closed(self._in_order())
            if bent is not None:
                self.optimizer.keyframes = {k.id: k for k in bent}
                changed = bent
                if len(bent) <= closer.config.refined_keyframes:
                    changed = list(self.optimizer.refined(self._loop_flows()))
                else:
                    self.refinements_skipped += 1
        return changed

    def refine(self) -> Update:
        """Poses and depths of the whole map adjusted together."""
        start_s = time.perf_counter()
        keyframes = self.optimizer.refined(self._loop_flows())
        return Update(keyframes, {"refine": time.perf_counter() - start_s})

    def _loop_flows(self) -> dict[tuple[int, int], Edge]:
        flows: dict[tuple[int, int], Edge] = {}
        for loop in self.closer.loops if self.closer is not None else []:
            flows[loop.old_id, loop.new_id], flows[loop.new_id, loop.old_id] = loop.flows
        return flows

    def _in_order(self) -> list[Keyframe]:
        return [self.optimizer.keyframes[n] for n in sorted(self.optimizer.keyframes)]

    def _recognisable(self, keyframe: Keyframe) -> Keyframe:
        if keyframe.keypoints is not None:
            return keyframe
        assert self.closer is not None
        return replace(keyframe, keypoints=detect_keypoints(keyframe.view.image, self.closer.config.keypoints))

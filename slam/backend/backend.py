"""What happens to the map after each keyframe: its window adjusted, its depth refreshed, loops closed."""

import time
from dataclasses import replace

import torch

from slam.backend.loops import LoopCloser
from slam.backend.optimizer import Edge, Optimizer
from slam.classical.landmarks import landmarks_of
from slam.frames import Keyframe, Update, Window


class Backend:
    """Works on the map's keyframes in the order given; the one owner of what it remembers is its thread."""

    def __init__(self, optimizer: Optimizer, closer: LoopCloser | None) -> None:
        self.optimizer = optimizer
        self.closer = closer
        self.refinements_skipped = 0  # of a map too large to be adjusted while a run goes on

    @torch.inference_mode()  # of the thread it runs on
    def process(self, window: Window) -> Update:
        """One job: the newest keyframe of a window with those it was tracked from."""
        update = self.optimizer.process(window)
        if self.closer is None:
            return update
        start_s = time.perf_counter()
        recognisable = tuple(self._recognisable(k) for k in update.keyframes)
        self.optimizer.keyframes |= {k.id: k for k in recognisable}
        changed = recognisable
        if self.closer.found(recognisable[-1], self._in_order()):
            bent = self.closer.closed(self._in_order())
            if bent is not None:
                self.optimizer.keyframes = {k.id: k for k in bent}
                changed = tuple(bent)
                if len(bent) <= self.closer.config.refined_keyframes:
                    changed = self.optimizer.refined(self._loop_flows())
                else:
                    self.refinements_skipped += 1
        return Update(changed, update.seconds | {"loops": time.perf_counter() - start_s})

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
        if keyframe.landmarks is not None:
            return keyframe
        assert self.closer is not None
        return replace(keyframe, landmarks=landmarks_of(keyframe.view.image, self.closer.config.landmarks))

"""The system: builds the parts, owns the threads, runs the loop."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from slam.backend.optimizer import Optimizer
from slam.frames import Estimate, Frame, Keyframe, Snapshot, Status, Update, View, Window
from slam.frontend.initialiser import Initialiser, InitialMap
from slam.frontend.keyframing import wants_keyframe
from slam.frontend.motion_model import MotionModel
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.mapping.matching import Matcher
from slam.mapping.store import KeyframeStore, identity
from slam.mapping.warp import filled, warp_inv_depth
from slam.sources.preparation import Preparation
from slam.threads import Worker

log = logging.getLogger(__name__)


class System:
    def __init__(self, config, camera, correspondence, stereo, threads=True):
        self.config = config
        self.preparation = Preparation(camera, config.pixels)
        self.correspondence = correspondence
        self.matcher = Matcher(correspondence, config.matcher)
        self.initialiser = Initialiser(self.matcher, config.initialiser)
        self.motion = MotionModel(config.velocity_damping)
        self.store = KeyframeStore()
        self.optimizer = Optimizer(self.matcher, stereo, config.backend)
        self.worker = Worker(self.optimizer.process, "backend") if threads else None
        self.status = Status.INIT
        self.updates = []
        self.lost = 0
        self.clock = Counter()

    def process(self, frame):
        t = time.perf_counter()
        view = self.view(frame)
        self.clock["encode"] += time.perf_counter() - t
        if self.worker:
            for u in self.worker.results():
                self.apply(u)
        t = time.perf_counter()
        if not len(self.store):
            first = self.initialiser.add(view)
            if first:
                self.begin(first)
            e = None
        else:
            e = self.track(view)
        self.clock["track"] += time.perf_counter() - t
        return e

    def view(self, frame):
        image, depth = self.preparation(frame)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return View(frame.id, frame.time_ns, image, self.preparation.camera.matrix(), self.correspondence.encode(x)[0], depth)

    def begin(self, m):
        h, w = m.view.image.shape[:2]
        k = self.store.add(m.view, identity(), dense(m.cell_inv_depth, m.cell_weight, (h, w)), (m.cell_inv_depth, m.cell_weight))
        e = Estimate(m.view.frame_id, m.view.time_ns, Status.TRACKING, k.id, identity(), 1.0, identity(), 1, 1, 1, 0)
        self.store.record(e)
        for view, T in zip(m.views, m.T_cks, strict=True):
            e = track(self.matcher, view, k, [T])
            self.store.record(e)
            if e.status is Status.TRACKING:
                self.motion.observe(e, self.store)
        self.status = Status.TRACKING
        if e.status is Status.TRACKING:
            self.add_keyframe(view, e)

    def track(self, view):
        ref = self.store.newest()
        e = track(self.matcher, view, ref, self.motion.guesses(ref, self.store))
        self.store.record(e)
        if e.status is Status.LOST:
            self.lost += 1
            self.motion.forget()
            return e
        self.motion.observe(e, self.store)
        if wants_keyframe(e, self.config.keyframing):
            self.add_keyframe(view, e)
        return e

    def add_keyframe(self, view, e):
        ref = self.store[e.keyframe_id]
        s = self.correspondence.stride
        Kc = scaled_intrinsics(view.K, 1 / s)
        d, w = warp_inv_depth(ref.cell_inv_depth, ref.cell_weight, e.T_ck, Kc)
        d = torch.where(d > 0, d, filled(d, w.clamp_min(1e-3)))
        k = self.store.add(view, e.T_wc, dense(d, w, view.image.shape[:2]), (d, (0.5 * w).clamp_min(0.02)), scale=1.0)
        win = self.store.window(self.config.backend.window)
        if self.worker:
            self.worker.submit(win)
        else:
            self.apply(self.optimizer.process(win))

    def apply(self, u):
        self.store.apply(u)
        for k, v in u.seconds.items():
            self.clock[k] += v
        self.clock["jobs"] += 1

    def finish(self):
        if self.worker:
            for u in self.worker.close():
                self.apply(u)


def dense(d, w, size):
    up = torch.nn.functional.interpolate(torch.stack([d, w])[None], size=size, mode="bilinear", align_corners=False)[0]
    return up[0], up[1]

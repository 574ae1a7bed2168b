"""Does the backend take longer for a keyframe when the map is large?

    python tools/bench_map_size.py --sizes 100 500

The map is rendered, two laps of a closed path with true poses and depths: keyframes, and a known loop at every fifth of
the second lap. The keyframes that follow are handed to one backend for each size of the map, in turn: the largest holds
all keyframes, the others the newest and an even choice of the rest. Columns: median (mean) ms of the processor per
keyframe in each stage, and the ratio of the largest map to the smallest. The second table is of backends that bend the
map to every loop they find.
"""

import argparse
import os
import time
from collections import defaultdict

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

import numpy as np
import torch

from slam.backend.backend import Backend, Job
from slam.backend.graph import Edge
from slam.backend.loops import Loop
from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.frames import DensifyAndCloseLoops, Frame, Keyframe, Restore, View
from slam.frontend.relocaliser import Relocaliser
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.inv_depth import InvDepth
from slam.mapping.store import KeyframeStore
from slam.recognition.keypoints import with_keypoints
from slam.sources.demo import DemoConfig, DemoSource
from slam.threads import limit_threads

NOISE = 0.01 * 255  # standard deviation of the sensor's noise, gray levels
FRAME_NS = 33_333_333
CONFIDENCE = 0.9  # of the depths
STAGES = ("match", "adjust", "stereo", "keypoints", "loops", "bookkeeping", "backend", "store.apply", "relocaliser")

Times = dict[str, list[float]]  # ms of each keyframe, by stage


def rendered(size: int, further: int, settings: list[str]) -> list[Keyframe]:
    """So many keyframes and further ones, each the child of the one before, as the backend has left them."""
    lap = size // 2
    source = DemoSource(DemoConfig(frames=lap, width=256, height=192, noise=0.0), with_depth=True)
    slam = build_slam(load_config(SlamConfig, None, settings), source.camera, threads=False)
    stride, T_wc = slam.localiser.matcher.stride, torch.from_numpy(source.groundtruth().T_wc)
    frames, generator = list(source), np.random.default_rng(0)
    keyframes = []
    for n in range(size + further):
        frame = frames[n % lap]
        assert frame.depth is not None
        noisy = frame.image + NOISE * generator.standard_normal(frame.image.shape, np.float32)
        image = np.rint(noisy).clip(0, 255).astype(np.uint8)
        view = slam.preparation.prepare(Frame(n, n * FRAME_NS, image, frame.camera))
        value = torch.from_numpy(1 / frame.depth)
        dense = InvDepth.from_confidence(value, torch.full_like(value, CONFIDENCE))
        pooled = torch.nn.functional.avg_pool2d(value[None], stride)[0]
        coarse = InvDepth.from_confidence(pooled, torch.full_like(pooled, CONFIDENCE))
        keyframes.append(Keyframe(n, view, T_wc[n % lap], dense, coarse, refined=True, parent_id=n - 1))
    return [with_keypoints(k) for k in keyframes[:size]] + keyframes[size:]


def known_loops(keyframes: list[Keyframe], lap: int) -> list[Loop]:
    """Every fifth keyframe of the second lap, seen from the same place of the first."""
    flow = Edge(torch.zeros(0), torch.zeros(0))  # none is adjusted
    return [
        Loop(o.id, n.id, se3.inverse(o.T_wc) @ n.T_wc, (o.scale, n.scale), 0.005, 0.003, (flow, flow))
        for o, n in zip(keyframes[:lap:5], keyframes[lap : 2 * lap : 5], strict=True)
    ]


class Replay:
    """A backend and a store with a part of the map, which take the keyframes that follow."""

    def __init__(self, keyframes: list[Keyframe], size: int, settings: list[str]) -> None:
        """`size` of the keyframes of the largest map."""
        config = load_config(SlamConfig, None, settings)
        recent = 2 * config.backend.window
        old = len(keyframes) - recent
        chosen = np.linspace(0, old - 1, size - recent).round().astype(int)
        kept = [keyframes[n] for n in (*chosen.tolist(), *range(old, len(keyframes)))]
        view = kept[0].view
        camera = Camera(view.image.size[1], view.image.size[0], *view.K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())
        slam = build_slam(config, camera, threads=False)
        self.window = config.backend.window
        self.backend: Backend = slam.parts.backend
        self.relocaliser: Relocaliser = slam.localiser.relocaliser
        self.store: KeyframeStore = slam.store
        self.store.restore(kept)
        self.backend.process(Restore(tuple(kept)))
        if self.backend.closer is not None:
            loops = known_loops(keyframes, len(keyframes) // 2)
            self.backend.closer.loops = [k for k in loops if k.old_id in self.store and k.new_id in self.store]
        self.times: Times = defaultdict(list)
        self.closed_ms: list[float] = []
        self.seconds: dict[str, float] = defaultdict(float)

    @property
    def loops(self) -> int:
        """Known loops."""
        return len(self.backend.loops)

    def take(self, keyframe: Keyframe) -> None:
        """Add a keyframe and do both jobs for it."""
        keyframe = self.store.add(keyframe)
        self._do(self.store.window(keyframe.id, self.window))
        changed = self._do(DensifyAndCloseLoops(keyframe.id))
        self._look(keyframe.view)
        if changed > len(self.store) // 2:
            self.closed_ms.append(1e3 * self.seconds["backend"])
        for name in STAGES:
            self.times[name].append(1e3 * self.seconds[name])
        self.seconds.clear()

    def _do(self, job: Job) -> int:
        """Do a job and apply what it found; how many keyframes it changed."""
        start_s = time.perf_counter()
        update = self.backend.process(job)
        middle_s = time.perf_counter()
        self.store.apply(update)
        self.store.snapshot()
        end_s = time.perf_counter()
        for name, duration_s in update.seconds.items():
            self.seconds[name] += duration_s
        self.seconds["bookkeeping"] += middle_s - start_s - sum(update.seconds.values())
        self.seconds["backend"] += middle_s - start_s
        self.seconds["store.apply"] += end_s - middle_s
        return len(update.keyframes)

    @torch.inference_mode()
    def _look(self, view: View) -> None:
        start_s = time.perf_counter()
        self.relocaliser._guesses(view, self.store)  # first poses; proving one costs the same in any map
        self.seconds["relocaliser"] += time.perf_counter() - start_s


def table(replays: dict[int, Replay], title: str) -> str:
    """Markdown."""
    sizes = sorted(replays)
    lines = [
        f"| {title} | " + " | ".join(f"{n} keyframes" for n in sizes) + " | ratio |",
        "| --- " * (len(sizes) + 2) + "|",
    ]
    for name in STAGES:
        ms = [np.array(replays[n].times[name]) for n in sizes]
        cells = [f"{np.median(m):.2f} ({m.mean():.2f})" for m in ms]
        if ms[0].any():  # some settings leave a stage out
            ratio = f"{np.median(ms[-1]) / np.median(ms[0]):.2f} ({ms[-1].mean() / ms[0].mean():.2f})"
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio} |")
    closed = [r.closed_ms for _, r in sorted(replays.items())]
    cells = [f"{np.median(ms):.1f} ({np.mean(ms):.1f})" if ms else "" for ms in closed]
    ratio = f"{np.median(closed[-1]) / np.median(closed[0]):.2f}" if closed[0] and closed[-1] else ""
    lines.append("| backend where a loop is closed | " + " | ".join(cells) + f" | {ratio} |")
    lines.append("| ... that many, of all | " + " | ".join(str(len(ms)) for ms in closed) + " | |")
    lines.append("| known loops | " + " | ".join(str(replays[n].loops) for n in sizes) + " | |")
    return "\n".join(lines)


def replayed(keyframes: list[Keyframe], sizes: list[int], settings: list[str]) -> dict[int, Replay]:
    """A replay for each size, all fed in turn."""
    replays = {n: Replay(keyframes[: max(sizes)], n, settings) for n in sizes}
    for keyframe in keyframes[max(sizes) :]:
        for replay in replays.values():
            replay.take(keyframe)
            if keyframe.id == max(sizes):  # the first of them warms up
                replay.times.clear()
                replay.closed_ms.clear()
    return replays


def main() -> None:
    """Print two markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--further", type=int, default=20, help="keyframes that are timed (default %(default)d)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override one setting")
    options = parser.parse_args()
    limit_threads()
    time.perf_counter = time.process_time  # of StageTimes too: other programs do not disturb it
    keyframes = rendered(max(options.sizes), options.further, options.set)
    print(table(replayed(keyframes, options.sizes, options.set), "as it comes"), "\n", flush=True)
    always = [*options.set, "loops.agreement=0"]  # no loop fits the map
    print(table(replayed(keyframes, options.sizes, always), "every loop is closed"))


if __name__ == "__main__":
    main()

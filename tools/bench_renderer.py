"""Time of rendering: `python tools/bench_renderer.py --device cpu --batch 1`."""

import argparse
import subprocess
import time

import numpy as np
import torch

from slam.rendering.paths import clip_poses
from slam.rendering.renderer import render
from slam.rendering.scenes import SCENE_KINDS, make_scene, stack


def main() -> None:
    """Print median and 90th percentile of a frame per kind of scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1, help="scenes at a time")
    parser.add_argument("--views", type=int, default=1, help="views of each scene")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = args.size
    K = torch.tensor([[0.86 * width, 0, (width - 1) / 2], [0, 0.86 * width, (height - 1) / 2], [0, 0, 1]])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(
        f"device {args.device} float32 {width}x{height} batch {args.batch}x{args.views} commit {commit.stdout.strip()}"
    )
    generator = torch.Generator().manual_seed(0)
    for kind in SCENE_KINDS:
        times, cpu, make = [], [], []
        for repeat in range(args.repeats + 2):
            start = time.perf_counter()
            scenes = stack([make_scene(kind, generator, args.device) for _ in range(args.batch)])
            make.append(time.perf_counter() - start)
            T_wc = clip_poses(scenes, args.views, generator).flatten(0, 1)
            _synchronise(args.device)
            start, start_cpu = time.perf_counter(), time.process_time()
            render(scenes, T_wc, K, height, width)
            _synchronise(args.device)
            if repeat >= 2:
                times.append((time.perf_counter() - start) / len(T_wc))
                cpu.append((time.process_time() - start_cpu) / len(T_wc))
        median, p90 = np.percentile(np.array(times) * 1e3, [50, 90])
        scene_ms = np.median(make) / args.batch * 1e3
        print(
            f"{kind:9s} median {median:7.3f} ms  p90 {p90:7.3f} ms a frame (processor {1e3 * np.median(cpu):.3f}); "
            f"scene {scene_ms:.1f} ms, {scenes.kind.shape[1]} primitives"
        )


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

"""How good are exported meshes and clouds, and how much memory do large maps take?

    python tools/bench_export.py surface living desk   # rendered loops, tracked and mapped, against the scene itself
    python tools/bench_export.py memory --keyframes 2000

`surface`: columns are the median distance of mesh and of cloud to the truth (rendered depth of all frames) and back, in
percent of the median depth, after alignment by the trajectory and after ICP, and the F-score at 5 cm. `memory`: the
targets over a synthetic map, seconds and the largest resident memory of each, in a process of its own.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

import numpy as np

from apps.export import main as export_main
from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.evaluation.run_surface import VOXEL_M, points_of, surface_report
from slam.evaluation.surface import Surface, SurfaceScore, thinned
from slam.io.ply import PointCloud, write_ply
from slam.io.run import Run, write_cloud, write_keyframes, write_trajectories
from slam.io.run_directory import RunDirectory
from slam.mapping.fusion import fused_cloud
from slam.mapping.voxels import first_in_voxels
from slam.processes import in_new_process
from slam.sources.demo import DemoConfig, DemoSource
from slam.threads import limit_threads

MAX_DIFFERENCE_NS = 20_000_000
STEP_M = 0.05  # of a synthetic camera, between keyframes


def tracked(kind: str, frames: int, out: Path) -> tuple[Path, DemoSource]:
    """A run over a rendered loop."""
    source = DemoSource(DemoConfig(kind=kind, variant="loop", frames=frames), with_depth=True)
    slam = build_slam(load_config(SlamConfig, None, ["final_refine=true"]), source.camera, threads=False)
    slam.run(DemoSource(source.config))
    keyframes = [keyframe.on_host() for keyframe in slam.store.everything()]
    run = RunDirectory(out)
    write_keyframes(run, keyframes)
    write_trajectories(run, slam.store.trajectory(), slam.store.keyframe_trajectory(), "")
    write_cloud(run, fused_cloud(tuple(keyframes)), "")
    slam.store.close()
    return run.path, source


def true_cloud(source: DemoSource) -> np.ndarray:
    """(N, 3) of the scene as all frames see it."""
    truth, points = source.groundtruth(), np.zeros((0, 3))
    for frame, T_wc in zip(source, truth.T_wc):
        assert frame.depth is not None
        points = np.concatenate([points, points_of(frame.depth, source.camera, T_wc)])
        points = points[first_in_voxels(points, VOXEL_M)]
    return Surface(thinned(points, np.random.default_rng(0))).points


def surface(kind: str, frames: int, folder: Path) -> None:
    """One line for each surface of a scene."""
    limit_threads()
    path, source = tracked(kind, frames, folder / kind)
    for target in ("mesh", "ply"):
        assert export_main([str(path), "--to", target, "--overwrite", "--quiet"]) == 0
    truth_file = folder / f"{kind}.ply"
    write_ply(truth_file, PointCloud(true_cloud(source).astype(np.float32)))
    run = Run(path)
    files = {"map.ply": None, "cloud": path / "export/ply/cloud.ply", "mesh": path / "export/mesh/mesh.ply"}
    for name, file in files.items():
        report = surface_report(run, file, truth_file, run.trajectory(), source.groundtruth(), MAX_DIFFERENCE_NS)
        words = [in_words(score, report.median_depth) for score in (report.score, report.icp_score)]
        print(f"{kind:8s} {name:8s} {len(run.keyframe_records()):3d} keyframes  {' | ICP: '.join(words)}", flush=True)


def in_words(score: SurfaceScore, depth: float) -> str:
    """Medians in percent of the depth, and F."""
    accuracy, completion = 100 * score.accuracy_median / depth, 100 * score.completion_median / depth
    return f"accuracy {accuracy:5.2f} %  completion {completion:5.2f} %  F 5 cm {score.within[2].f_score:.3f}"


def synthetic(count: int, folder: Path) -> Path:
    """A run of many keyframes along a corridor: a few rendered images and depths, at ever new places."""
    import torch

    from slam.frames import Image, Keyframe, Trajectory, View
    from slam.inv_depth import InvDepth

    source = DemoSource(DemoConfig(frames=1), with_depth=True)
    frame = next(iter(source))
    assert frame.depth is not None
    value = torch.from_numpy(1 / frame.depth)
    dense = InvDepth.from_confidence(value, torch.full_like(value, 0.9))
    T_wc = np.tile(np.eye(4), (count, 1, 1))
    T_wc[:, 0, 3] = STEP_M * np.arange(count)
    times = 10**9 + 10**8 * np.arange(count, dtype=np.int64)
    view = View(0, int(times[0]), Image(frame.image), source.camera.matrix())
    unknown = InvDepth.unknown((30, 40))
    run = RunDirectory(folder / "run")
    write_keyframes(run, [Keyframe(0, view, torch.from_numpy(T_wc[0]), dense, unknown)])
    listing = run.path / "keyframes/keyframes.json"
    record = json.loads(listing.read_text())[0]
    records = [
        record | {"id": n, "frame_id": n, "time_ns": int(times[n]), "T_wc": T_wc[n].tolist()} for n in range(count)
    ]
    listing.write_text(json.dumps(records))
    trajectory = Trajectory(times, T_wc)
    write_trajectories(run, trajectory, trajectory, "")
    return run.path


def timed(path: Path, target: str) -> tuple[float, float]:
    """Seconds and MB of one target."""
    start_s = time.perf_counter()
    assert export_main([str(path), "--to", target, "--overwrite", "--quiet"]) == 0
    return time.perf_counter() - start_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("surface", "memory"))
    parser.add_argument("scenes", nargs="*", default=["living", "desk"])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--keyframes", type=int, default=2000)
    parser.add_argument("--targets", nargs="+", default=["ply", "mesh", "depth"])
    parser.add_argument("--keep", type=Path, help="folder for the runs (default: removed at the end)")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    try:
        if options.what == "surface":
            for kind in options.scenes:
                surface(kind, options.frames, folder)
            return
        path = synthetic(options.keyframes, folder)
        for target in options.targets:
            seconds, megabytes = in_new_process(timed, path, target)
            print(f"{target:10s} {options.keyframes} keyframes  {seconds:6.1f} s  {megabytes:6.0f} MB", flush=True)
    finally:
        if options.keep is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""The surface of a run against a true mesh, cloud, or recording with depth, after alignment by the trajectory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slam.errors import EvaluationError, SourceError
from slam.evaluation.surface import Surface, SurfaceScore, closest_similarity, compare_surfaces, read_surface, thinned
from slam.evaluation.trajectory import associate
from slam.frames import Trajectory
from slam.geometry.align import umeyama
from slam.geometry.camera import Camera
from slam.io.run import CLOUD, Run
from slam.mapping.voxels import first_in_voxels
from slam.sources import SourceSpec, open_source

THRESHOLDS_M = (0.01, 0.02, 0.05)
THRESHOLDS_SHARE = (0.01, 0.02, 0.05)  # of the median depth
ICP_REACH = 0.05  # of the median depth, between points that are paired
VOXEL_M = 0.01  # of truth from depth images
STRIDE = 4  # pixels between those of a depth image that are taken
MERGED = 2_000_000  # points


@dataclass(frozen=True)
class SurfaceReport:
    """The score of a surface and how it was aligned."""

    surface: str  # file
    truth: str
    alignment: str  # sim3 or se3
    scale: float  # metres per map unit
    median_depth: float  # metres
    score: SurfaceScore
    icp_scale: float  # by which the surface is scaled once more where ICP moves it onto the truth
    icp_score: SurfaceScore  # there

    def numbers(self) -> dict[str, Any]:
        """The scores as nested plain values."""
        own = {name: value for name, value in vars(self).items() if name not in ("score", "icp_score")}
        return {"surface": own | self.score.numbers() | {"after_icp": self.icp_score.numbers()}}

    def lines(self) -> list[str]:
        """As a table."""
        head = f"surface {self.surface} against {self.truth}"
        return [
            f"{head} ({self.alignment} by the trajectory, scale {self.scale:.4f})",
            *score_lines(self.score),
            f"the same after ICP onto the truth (scale {self.icp_scale:.4f} more), what is left is shape",
            *score_lines(self.icp_score),
        ]


def score_lines(score: SurfaceScore) -> list[str]:
    """A score as a table."""
    names = [f"{100 * t:g} cm" for t in THRESHOLDS_M] + [f"{100 * t:g} % of depth" for t in THRESHOLDS_SHARE]
    return [
        f"accuracy   mean {score.accuracy_mean:.4f} m  median {score.accuracy_median:.4f} m",
        f"completion mean {score.completion_mean:.4f} m  median {score.completion_median:.4f} m",
        f"{'within':>18s} {'precision':>10s} {'recall':>8s} {'F':>8s}",
        *(f"{n:>18s} {w.precision:10.3f} {w.recall:8.3f} {w.f_score:8.3f}" for n, w in zip(names, score.within)),
    ]


def surface_report(
    run: Run,
    surface: Path | None,
    truth_path: Path,
    estimate: Trajectory,
    truth: Trajectory,
    max_difference_ns: int,
) -> SurfaceReport:
    """Compare a surface of a run with the truth.

    Args:
        surface: mesh or cloud in the world of the run; None: `map.ply`.
        truth_path: mesh or cloud in the world of the true poses, or the recording whose depth they are of.
        estimate, truth: trajectories that align both worlds, by SE(3) if the run is metric, else by Sim(3).

    Raises:
        SourceError: if something is missing or damaged.
        EvaluationError: if nothing can be compared.
    """
    i, j = associate(estimate, truth, max_difference_ns)
    if len(i) < 3:
        raise EvaluationError(f"{len(i)} poses match, fewer than three do not fix an alignment")
    metric = run.has_record and run.record().scale_source.startswith("metric")
    p_est, p_true = (torch.from_numpy(T.T_wc[n, :3, 3]) for T, n in ((estimate, i), (truth, j)))
    s, R, t = umeyama(p_est, p_true, with_scale=not metric)
    generator = np.random.default_rng(0)
    file = run.path / CLOUD if surface is None else surface
    moved = read_surface(file, generator).moved(float(s), R.numpy(), t.numpy())
    if truth_path.is_dir():
        true_surface = depth_surface(truth_path, truth, max_difference_ns, generator)
    else:
        true_surface = read_surface(truth_path, generator)
    depth_m = float(s) * typical_depth(run)
    thresholds = (*THRESHOLDS_M, *(share * depth_m for share in THRESHOLDS_SHARE))
    score = compare_surfaces(moved, true_surface, thresholds)
    T = closest_similarity(moved, true_surface, ICP_REACH * depth_m, with_scale=not metric)
    if not np.isfinite(T).all():
        raise EvaluationError(f"{file} and {truth_path} cannot be aligned: they have no shape in common")
    further = float(np.cbrt(np.linalg.det(T[:3, :3])))
    icp_score = compare_surfaces(moved.moved(further, T[:3, :3] / further, T[:3, 3]), true_surface, thresholds)
    alignment = "se3" if metric else "sim3"
    return SurfaceReport(str(file), str(truth_path), alignment, float(s), depth_m, score, further, icp_score)


def typical_depth(run: Run) -> float:
    """Median over the keyframes of their median depth, map units; raises SourceError if there is none."""
    maps = (run.depth(record) for record in run.keyframe_records())
    medians = [float(np.median(depth[depth > 0])) for depth in maps if (depth > 0).any()]
    if not medians:
        raise SourceError(f"the map of {run.path} is empty")
    return float(np.median(medians))


def depth_surface(path: Path, truth: Trajectory, max_difference_ns: int, generator: np.random.Generator) -> Surface:
    """The cloud of a recording's depth with true poses, one point for each cubic centimetre, metres.

    Raises:
        SourceError: if it has no depth, or a lens with distortion, whose depth images are no pinhole's.
    """
    source = open_source(SourceSpec(str(path), with_depth=True))
    parts: list[np.ndarray] = []
    total = 0
    try:
        if source.camera.is_distorted:
            raise SourceError(f"the depth of {path} is of a lens with distortion; undistort it, or give a mesh")
        for frame in source:
            n = int(np.abs(truth.time_ns - frame.time_ns).argmin())
            if frame.depth is None or abs(int(truth.time_ns[n]) - frame.time_ns) > max_difference_ns:
                continue
            parts.append(points_of(frame.depth, frame.camera, truth.T_wc[n]))
            total += len(parts[-1])
            if total > MERGED:
                points = np.concatenate(parts)
                parts = [points[first_in_voxels(points, VOXEL_M)]]
                total = -len(parts[0])
    finally:
        source.close()
    if not parts:
        raise SourceError(f"{path} has no depth images with a true pose")
    points = np.concatenate(parts)
    return Surface(thinned(points[first_in_voxels(points, VOXEL_M)], generator))


def points_of(depth: np.ndarray, camera: Camera, T_wc: np.ndarray) -> np.ndarray:
    """(N, 3) points in the world of a depth image (H, W)."""
    v, u = (STRIDE * index for index in np.nonzero(depth[::STRIDE, ::STRIDE]))
    p_c = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(len(u))], -1) * depth[v, u, None]
    return p_c @ T_wc[:3, :3].T + T_wc[:3, 3]

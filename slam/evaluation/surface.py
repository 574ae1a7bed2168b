"""Errors of a reconstructed surface, mesh or cloud, against a true one.

Accuracy is the distance of its points to the truth, completion that of the truth's points to it; precision and recall
are the shares below a threshold, F their harmonic mean.

Reference: Knapitsch et al., Tanks and Temples, ACM Transactions on Graphics 2017.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from slam.errors import EvaluationError, SourceError
from slam.io.ply import read_ply
from slam.processes import in_new_process
from slam.reading import open_file, reason

SAMPLES = 200_000  # points of a surface that are compared, at most
ICP_POINTS, ICP_ITERATIONS = 50_000, 60
MAX_M = 1e6  # of a coordinate: further away there is damage alone
MESHES = (".ply", ".obj", ".stl", ".off")


@dataclass(frozen=True, eq=False)
class Surface:
    """A surface in one frame: points and, of a mesh, the triangles that they were taken from."""

    points: np.ndarray  # (N, 3) float64
    vertices: np.ndarray | None = None  # (V, 3) float64
    triangles: np.ndarray | None = None  # (T, 3) int64

    def moved(self, scale: float, R: np.ndarray, t: np.ndarray) -> "Surface":
        """After `p -> scale R p + t`."""
        points, vertices = (None if p is None else scale * p @ R.T + t for p in (self.points, self.vertices))
        assert points is not None
        return Surface(points, vertices, self.triangles)

    def distances(self, points: np.ndarray) -> np.ndarray:
        """(N,) of points (N, 3) to the nearest triangle, of a cloud to the nearest point."""
        if self.vertices is None or self.triangles is None:
            return np.asarray(cKDTree(self.points).query(points)[0])
        import open3d as o3d

        centre = self.vertices.mean(0)  # Open3D computes in float32
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(
            o3d.core.Tensor((self.vertices - centre).astype(np.float32)),
            o3d.core.Tensor(self.triangles.astype(np.uint32)),
        )
        return scene.compute_distance(o3d.core.Tensor((points - centre).astype(np.float32))).numpy().astype(np.float64)


@dataclass(frozen=True)
class Fraction:
    """Shares within a threshold."""

    threshold: float  # metres
    precision: float
    recall: float

    @property
    def f_score(self) -> float:
        """Harmonic mean of both."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class SurfaceScore:
    """Distances, metres of the truth, and shares within each threshold."""

    accuracy_mean: float
    accuracy_median: float
    completion_mean: float
    completion_median: float
    within: tuple[Fraction, ...]

    def numbers(self) -> dict[str, Any]:
        """The scores as nested plain values."""
        shares = [vars(fraction) | {"f_score": fraction.f_score} for fraction in self.within]
        return {name: value for name, value in vars(self).items() if name != "within"} | {"within": shares}


def compare_surfaces(estimate: Surface, truth: Surface, thresholds: Sequence[float]) -> SurfaceScore:
    """Errors of an estimate that is in the frame of the truth.

    Args:
        thresholds: metres.

    Raises:
        EvaluationError: if one has no points.
    """
    for name, surface in (("estimate", estimate), ("truth", truth)):
        if not len(surface.points):
            raise EvaluationError(f"the {name} has no points to compare")
    accuracy, completion = truth.distances(estimate.points), estimate.distances(truth.points)
    within = tuple(Fraction(t, float((accuracy <= t).mean()), float((completion <= t).mean())) for t in thresholds)
    return SurfaceScore(
        float(accuracy.mean()),
        float(np.median(accuracy)),
        float(completion.mean()),
        float(np.median(completion)),
        within,
    )


def closest_similarity(estimate: Surface, truth: Surface, reach: float, with_scale: bool) -> np.ndarray:
    """(4, 4) that moves an estimate, which is nearly aligned, onto the truth: ICP between their points.

    Args:
        reach: points further apart are not paired, metres.
        with_scale: the scale is free too.
    """
    import open3d as o3d

    def cloud(points: np.ndarray) -> Any:
        return o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points[:: max(len(points) // ICP_POINTS, 1)]))

    registration = o3d.pipelines.registration
    result = registration.registration_icp(
        cloud(estimate.points),
        cloud(truth.points),
        reach,
        np.eye(4),
        registration.TransformationEstimationPointToPoint(with_scale),
        registration.ICPConvergenceCriteria(max_iteration=ICP_ITERATIONS),
    )
    return np.array(result.transformation)


def read_surface(path: Path, generator: np.random.Generator) -> Surface:
    """A mesh, sampled evenly by area, or a cloud (PLY without faces).

    Raises:
        SourceError: if it is missing, damaged, or of another format.
    """
    if not path.is_file():
        raise SourceError(f"no mesh or cloud at {path}")
    if path.suffix.lower() not in MESHES:
        raise SourceError(f"{path} cannot be compared: give a mesh or cloud as {', '.join(MESHES)}")
    if path.suffix.lower() != ".ply" or _has_faces(path):
        return sampled(*_read_mesh(path), generator)
    points = read_ply(path).points
    points = points[(np.abs(points) < MAX_M).all(-1)].astype(np.float64)  # NaN compares false
    if not len(points):
        raise SourceError(f"{path} has no points that could be compared")
    return Surface(thinned(points, generator))


def sampled(vertices: np.ndarray, triangles: np.ndarray, generator: np.random.Generator) -> Surface:
    """A mesh of vertices (V, 3) and triangles (T, 3), with points evenly by area."""
    a, b, c = (vertices[triangles[:, n]] for n in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    if not area.sum() > 0:
        raise EvaluationError("a mesh without area cannot be compared")
    chosen = generator.choice(len(triangles), SAMPLES, p=area / area.sum())
    r, s = np.sqrt(generator.random(SAMPLES)), generator.random(SAMPLES)
    weights = np.stack([1 - r, r * (1 - s), r * s], -1)  # even in the triangle
    points = np.einsum("nk,nkd->nd", weights, vertices[triangles[chosen]])
    return Surface(points, vertices, triangles)


def thinned(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """At most SAMPLES of the points (N, 3)."""
    return points if len(points) <= SAMPLES else points[generator.choice(len(points), SAMPLES, replace=False)]


def _has_faces(path: Path) -> bool:
    try:
        with open_file(path) as file:
            head, size = file.read(65536).split(b"end_header", 1)[0], os.fstat(file.fileno()).st_size
    except OSError as error:
        raise SourceError(f"cannot read the surface {path}: {reason(error)}") from error
    words = [line.split() for line in head.splitlines() if line.startswith(b"element ")]
    counts = {line[1]: int(line[2]) for line in words if len(line) > 2 and re.fullmatch(rb"\d{1,18}", line[2])}
    if any(count > size for count in counts.values()):  # Open3D would make room for them first
        raise SourceError(f"{path} is cut off: it is shorter than its header says")
    return counts.get(b"face", 0) > 0


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        vertices, triangles = in_new_process(_read_by_open3d, path)
    except ImportError as error:
        raise EvaluationError(f"meshes need Open3D, which cannot be loaded ({error}): pip install open3d") from error
    except RuntimeError as error:  # Open3D dies of some damaged files
        raise SourceError(f"{path} cannot be read as a mesh: {error}") from error
    is_whole = len(triangles) and triangles.min() >= 0 and triangles.max() < len(vertices)
    if not is_whole or not (np.abs(vertices) < MAX_M).all():
        raise SourceError(f"{path} is no mesh with triangles, or it is damaged")
    return vertices, triangles


def _read_by_open3d(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import open3d as o3d
    except OSError as error:  # a library of the system is missing
        raise ImportError(error) from error
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        mesh = o3d.io.read_triangle_mesh(str(path))
    return np.asarray(mesh.vertices), np.asarray(mesh.triangles).astype(np.int64)

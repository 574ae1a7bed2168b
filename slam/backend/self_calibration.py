"""The camera from the map itself: where the lens is a guess, its focal length and first radial coefficient are unknowns
of an adjustment of the keyframes, again and again as the map grows, until they are certain.

Flows between keyframes say how rays of one camera meet in others; a wrong focal length bends turns into shifts, which
no depth explains in several views. A camera that only turns, or hardly turns, or sees one wall says little of it: the
deviation tells, and the guess stays.

Reference: Triggs, Autocalibration and the absolute quadric, CVPR 1997; Hagemann et al., Deep geometry-aware camera
self-calibration from video, ICCV 2023.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from slam.backend.graph import SUBSAMPLING, Edge, KeyframeGraph, Pair
from slam.frames import Recalibration
from slam.geometry import se3
from slam.geometry.camera import Camera, Optics, pixel_grid
from slam.mapping.recalibration import pixels_of_cells
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import Damping
from slam.solvers.lens import FreeLens, LensSolution, RadialLens, lens_errors

log = logging.getLogger(__name__)

Mode = Literal["off", "focal", "radial"]
FIRST, GROWTH = 5, 1.3  # keyframes at which it is first tried, and how many times as many the next time
BLOCK = 24  # keyframes adjusted together; a longer map says it several times
MIN_BLOCK = 4
STEPS, NARROWING_STEPS = 10, 5
NARROWING_PX = (2.0, 1.0, 0.5)  # robust scales of the further adjustments: what moves by itself or slipped is let go
FLOW_SIGMA_PX, HUBER_PX = 0.3, 0.5  # as of the adjustment of keyframes
DAMPING = Damping(1e-10, 1e-7)  # little: the focal length is far less certain than what it is solved with
DEPTH_DEVIATION = 5.0  # relative, of the depths as they were: next to nothing, they must follow the focal length
CORRELATION = 6.0  # times as large as independent pixels have it is the deviation: errors of flow are alike nearby
LEAST_DEVIATION = 0.003  # of log focal and of k1: flow has errors that no number of keyframes averages
USUAL_K1 = 0.15  # standard deviation of k1 among lenses
K1_WEIGHT = (FLOW_SIGMA_PX * CORRELATION / USUAL_K1) ** 2
UNSURE_FOCAL = 0.06  # deviation above which the focal length cannot be told
CERTAIN_FOCAL = 0.01  # deviation, and change, below which it need not be asked again
SAME_FOCAL, SAME_K1 = 0.005, 0.01  # changes that are not worth one


@dataclass(frozen=True)
class LensEstimate:
    """What the map says of the camera."""

    focal: float  # fx of the frames as delivered, pixels
    focal_deviation: float  # standard deviation, relative
    k1: float | None  # None: it was not asked for; of a calibration that is judged, what it leaves
    k1_deviation: float | None


class SelfCalibration:
    """Asks the map for the camera; what it answered last is in `estimate`."""

    def __init__(self, camera: Camera, optics_of: Callable[[Camera], Optics], mode: Mode) -> None:
        """
        Args:
            camera: of the frames as delivered; a guess is corrected, anything else judged alone.
            optics_of: how views are made of the images of a camera.
            mode: "focal" asks for the focal length, "radial" for k1 too.
        """
        self.camera = camera
        self.mode = mode
        self.is_applied = camera.is_guess
        self.optics = optics_of(camera)
        if not self.is_applied:  # whatever its lens, views of a good calibration are those of a pinhole
            self.optics = Optics(self.optics.pinhole, self.optics.pinhole)
        self.estimate: LensEstimate | None = None
        self._optics_of = optics_of
        self._next = FIRST  # keyframes
        self._is_certain = False

    @property
    def is_asked(self) -> bool:
        """True while a run goes on whose camera is not certain."""
        return self.is_applied and not self._is_certain

    def is_due(self, keyframes: int) -> bool:
        """True where the map has grown enough since it was asked last."""
        return self.is_asked and keyframes >= self._next

    def ask(self, graph: KeyframeGraph, loops: dict[Pair, Edge], stride: int) -> Recalibration | None:
        """Ask the map; the change, if the camera is another than it is taken for, and is to be taken for that."""
        self._next = math.ceil(GROWTH * max(len(graph), self._next))
        found = self._found(graph, loops, stride)
        if found is None:
            return None
        self.estimate = found
        zoom = found.focal / self.camera.fx
        k1_change = 0.0 if found.k1 is None else found.k1 - self._k1
        self._is_certain = found.focal_deviation < CERTAIN_FOCAL and abs(math.log(zoom)) < CERTAIN_FOCAL
        if not self.is_applied:
            return None
        if abs(math.log(zoom)) < SAME_FOCAL and abs(k1_change) < SAME_K1:  # what is in use stays, and is what is told
            self.estimate = replace(found, focal=self.camera.fx, k1=None if found.k1 is None else self._k1)
            return None
        distortion = self.camera.distortion if found.k1 is None else (found.k1, 0.0, 0.0, 0.0)
        self.camera = replace(self.camera, fx=found.focal, fy=zoom * self.camera.fy, distortion=distortion)
        before, self.optics = self.optics, self._optics_of(self.camera)
        log.info("self-calibration after %d keyframes: %s", len(graph), in_words(found))
        return Recalibration(self.camera, before, self.optics)

    def _found(self, graph: KeyframeGraph, loops: dict[Pair, Edge], stride: int) -> LensEstimate | None:
        """What the map says; None if it cannot tell."""
        edges = graph.subsampled_edges() | loops
        ids = graph.ids
        count = max(1, round(len(ids) / BLOCK))
        blocks = [ids[n * len(ids) // count : (n + 1) * len(ids) // count] for n in range(count)]
        asked = (self._adjusted(graph, edges, block, stride) for block in blocks)
        found = _combined([s for s in asked if s is not None], self.optics.delivered.fx)
        if found is None:
            return None
        log.debug("self-calibration by %d keyframes: %s +- %s", len(ids), *found)
        (log_zoom, *k1s), (focal_deviation, *k1_deviations) = found
        if focal_deviation > UNSURE_FOCAL:
            return None
        focal = math.exp(log_zoom) * self.camera.fx
        return LensEstimate(focal, focal_deviation, *((k1s[0], k1_deviations[0]) if k1s else (None, None)))

    @property
    def _k1(self) -> float:
        """As it is taken to be."""
        distortion = self.optics.delivered.distortion
        return distortion[0] if distortion else 0.0

    def _adjusted(
        self, graph: KeyframeGraph, edges: dict[Pair, Edge], block: list[int], stride: int
    ) -> LensSolution | None:
        """The lens by the keyframes of a block and the flows between them."""
        known = {n for n in block if not graph[n].awaits_parallax}
        inside = {pair: edge for pair, edge in edges.items() if known.issuperset(pair)}
        ids = sorted({n for pair in inside for n in pair})
        if len(ids) < MIN_BLOCK:
            return None
        position = {n: at for at, n in enumerate(ids)}
        keyframes = [graph[n] for n in ids]
        inv_depth = torch.stack([k.coarse.subsampled(SUBSAMPLING).value for k in keyframes]).cpu().double()
        delivered = self.optics.delivered
        focal, centre = (
            torch.tensor(pair, dtype=torch.float64)
            for pair in ((delivered.fx, delivered.fy), (delivered.cx, delivered.cy))
        )
        lens = RadialLens(focal, centre, self._k1)
        grid = pixel_grid(inv_depth.shape[1], inv_depth.shape[2], like=inv_depth)
        uv = self.optics.source_uv(pixels_of_cells(grid, stride, SUBSAMPLING))
        cells = torch.stack([edge.target_uv for edge in inside.values()]).cpu().double()
        target_uv = self.optics.source_uv(pixels_of_cells(cells, stride, SUBSAMPLING))
        weight = torch.stack([edge.weight for edge in inside.values()]).cpu().double()
        pairs = torch.tensor([[position[a], position[b]] for a, b in inside])
        T_cw = torch.stack([se3.inverse(k.T_wc) for k in keyframes])
        solution: LensSolution | None = None
        for scale_px in (math.inf, *NARROWING_PX):
            i, j = pairs.unbind(-1)
            error_px = lens_errors(uv, target_uv, inv_depth[i], T_cw[j] @ se3.inverse(T_cw[i]), lens)
            adjusted = bundle_adjust(
                target_uv,
                weight * geman_mcclure(error_px, scale_px)[..., None],
                pairs,
                T_cw,
                inv_depth,
                (inv_depth, (FLOW_SIGMA_PX / (DEPTH_DEVIATION * inv_depth)) ** 2),
                torch.arange(len(ids)) == 0,
                self.optics.pinhole.matrix(),
                STEPS if solution is None else NARROWING_STEPS,
                DAMPING,
                HUBER_PX,
                FreeLens(lens, uv, 2 if self.mode == "radial" else 1, K1_WEIGHT),
            )
            if not adjusted.ok or adjusted.lens is None:
                return None
            solution, T_cw, inv_depth = adjusted.lens, adjusted.T_cw, adjusted.inv_depth
            lens = solution.lens
        return solution


def geman_mcclure(error: Tensor, scale: float) -> Tensor:
    """Weights in [0, 1] of errors: of those far beyond the scale hardly anything is left."""
    if math.isinf(scale):
        return torch.isfinite(error).to(error)
    return (1 + (error / scale).square()).square().reciprocal()


def _combined(solutions: Sequence[LensSolution], focal: float) -> tuple[list[float], list[float]] | None:
    """Log zoom (and k1) and their deviations by what blocks of keyframes say, weighed by how sure they are.

    Where they contradict each other the deviations grow.
    """
    usable = [s for s in solutions if bool(s.covariance.isfinite().all()) and bool((s.covariance.diagonal() > 0).all())]
    if not usable:
        return None
    unknowns = len(usable[0].covariance)
    said = torch.tensor([[math.log(float(s.lens.focal[0]) / focal), s.lens.k1][:unknowns] for s in usable]).double()
    information = torch.stack([torch.linalg.inv(CORRELATION**2 * s.covariance) for s in usable])
    covariance = torch.linalg.inv(information.sum(0))
    mean = covariance @ (information @ said[..., None]).sum(0)
    off = said - mean.squeeze(-1)
    freedom = max(unknowns * (len(usable) - 1), 1)
    strain = float(torch.einsum("bi,bij,bj->", off, information, off)) / freedom
    deviation = (covariance.diagonal() * max(strain, 1.0)).sqrt().clamp_min(LEAST_DEVIATION)
    return mean.flatten().tolist(), deviation.tolist()


def verdict(calibration: SelfCalibration) -> str:
    """What the map said of the camera at last, in words for the user."""
    found, taken = calibration.estimate, calibration.camera
    if found is None:
        kept = f"the guess of {taken.fx:.1f} pixels stays" if calibration.is_applied else "the calibration stays"
        return (
            f"self-calibration: the map cannot tell the focal length; {kept}. It takes a camera that moves and turns "
            "before things at several distances"
        )
    if calibration.is_applied:
        return f"self-calibration: {in_words(found)}"
    off = found.focal / taken.fx - 1
    times = abs(math.log1p(off)) / found.focal_deviation
    judged = "they agree" if times < 2 else "they disagree"
    return (
        f"self-calibration: {in_words(found)} by the map, {taken.fx:.1f} by the calibration: {judged} "
        f"({100 * off:+.1f} %, {times:.1f} standard deviations)"
    )


def in_words(estimate: LensEstimate) -> str:
    """Focal length and k1 with their deviations."""
    words = f"focal length {estimate.focal:.1f} +- {estimate.focal_deviation * estimate.focal:.1f} pixels"
    if estimate.k1 is not None:
        words += f", k1 {estimate.k1:.3f} +- {estimate.k1_deviation:.3f}"
    return words

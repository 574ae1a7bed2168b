"""The start: from constant depth to a first keyframe with depth, as soon as there is parallax enough.

Frames are matched to the first one at depth 1; when the flow that no rotation explains is large enough, poses and
depth are adjusted together and kept only if the flow then fits.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import View
from slam.geometry import se3
from slam.geometry.camera import pixel_grid, scaled_intrinsics
from slam.geometry.flow import in_image, reproject, reprojection_jacobians
from slam.inv_depth import UNMEASURED, InvDepth, normalized_convolution
from slam.mapping.transforms import rescaled
from slam.matching.matcher import Match, Matcher
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import pose_step, rotation_step
from slam.solvers.two_view import essential_pose

log = logging.getLogger(__name__)

START_SLOPES = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))  # of the inverse depth across the view
MIN_DEVIATION = 0.005
SAME_DIRECTION = 0.97  # cosine of 14 degrees between translations
TEXTURED = 0.1  # weight of the flow at a cell that should get a depth
HUBER_PX = 0.5
POSE_STEPS = 6  # on the start's depth, before depth moves too
MIN_TRIANGULATED = 50  # cells
PRIOR_WEIGHT = 1e-3  # holds cells without flow at the start's depth and the scale near 1
FLOW_SIGMA_CELLS = 0.06  # standard deviation of a good flow: a quarter of a pixel in cells of four
MIN_INV_DEPTH = 1e-3
HELD = 60  # gathered views kept with their flow, spread evenly over time; of the others only the images
PATIENT_PARALLAX = 0.5  # part of the wanted parallax that has to do once so many are gathered


@dataclass(frozen=True)
class InitialiserConfig:
    """Pixels are of the network size."""

    parallax_px: float = 3.0  # 75th percentile of the flow that no rotation explains
    min_known_ratio: float = 0.4  # part of the textured cells that must get a depth
    max_error_px: float = 1.0  # median misfit of the result
    max_depth_deviation: float = 0.3  # relative standard deviation at which a cell's depth counts as unknown
    min_views: int = 5  # gathered before the first attempt
    views: int = 8  # adjusted together
    ambiguity: float = 1.06  # another motion whose misfit is below this many times the best is a rival ...
    decided_px: float = 20.0  # ... until the parallax is this large
    max_gathered: int = 400  # frames kept while waiting for parallax
    steps: int = 20  # of the bundle adjustment

    def __post_init__(self) -> None:
        check_range(self, 0.1, 1000, "parallax_px", "max_error_px", "decided_px")
        check_range(self, 0.01, 1, "min_known_ratio", "max_depth_deviation")
        check_range(self, 2, 1000, "views", "max_gathered")
        check_range(self, 2, self.max_gathered, "min_views")
        check_range(self, 1, 10, "ambiguity")
        check_range(self, 1, 1000, "steps")


@dataclass(frozen=True)
class InitialMap:
    """A first keyframe with depth and the views gathered so far. The median inverse depth is 1, unless `metric`."""

    view: View
    coarse: InvDepth  # (hc, wc)
    views: tuple[View, ...]  # after the first
    T_cks: tuple[Tensor, ...]  # (4, 4) guesses of their poses
    before: tuple[View, ...]  # earlier views, that could not be used
    metric: bool = False  # depth in metres, by a sensor


class Initialiser:
    """Gathers views until a first map can be made."""

    def __init__(self, matcher: Matcher, config: InitialiserConfig = InitialiserConfig()) -> None:
        self.matcher = matcher
        self.config = config
        self.views: list[View] = []
        self.matches: list[Match] = []  # of views[1:] to views[0]
        self.unmatched: list[View] = []  # between them, without flow
        self.dropped: list[View] = []  # before views[0], without flow
        self._tried_px = 0.0  # parallax of the last attempt

    def add(self, view: View) -> InitialMap | None:
        """Take a view; the map, if this one made it possible."""
        if not self.views:
            self.views.append(view)
            return None
        match = self._match(view)
        if not match.ok or len(self.views) + len(self.unmatched) >= self.config.max_gathered:
            self._restart(view)
            return None
        self.views.append(view)
        self.matches.append(match)
        if len(self.views) > HELD:
            self._thin()
        parallax_px = self._parallax_px(match)
        wanted_px = self.config.parallax_px * (PATIENT_PARALLAX if self.unmatched else 1)
        if len(self.views) < self.config.min_views or parallax_px < max(wanted_px, 1.2 * self._tried_px):
            return None
        self._tried_px = parallax_px
        return self._solve(parallax_px)

    def _constant_depth(self, view: View) -> InvDepth:
        stride = self.matcher.stride
        h, w = view.image.size
        shape = (h // stride, w // stride)
        return InvDepth(torch.ones(shape), torch.full(shape, 1e-6))  # as if sure: the motion is scaled to it

    def _match(self, view: View) -> Match:
        T_ck = self.matches[-1].T_ck if self.matches else se3.identity()
        return self.matcher.match(self.views[0], self._constant_depth(view), view, T_ck)

    def _thin(self) -> None:
        """Put aside the view whose neighbours are nearest in time, neither the first nor the last."""
        times = np.array([view.time_ns for view in self.views])
        n = 1 + int((times[2:] - times[:-2]).argmin())
        self.unmatched.append(self.views.pop(n))
        del self.matches[n - 1]

    def _restart(self, view: View) -> None:
        """Begin again from the middle of what was gathered; matches to the old first view are worthless then."""
        middle = (len(self.views) + 1) // 2
        self._begin(self.views[:middle], [*self.views[middle:], view])

    def _begin(self, dropped: list[View], kept: list[View]) -> None:
        log.debug("initialisation starts again from frame %d", kept[0].frame_id)
        aside = dropped + self.unmatched
        aside.sort(key=lambda view: view.frame_id)
        self.dropped += [view for view in aside if view.frame_id < kept[0].frame_id]
        self.dropped = self.dropped[-self.config.max_gathered :]
        self.unmatched = [view for view in aside if view.frame_id > kept[0].frame_id]
        self.views, self.matches, self._tried_px = kept[:1], [], 0.0
        for n, view in enumerate(kept[1:], 1):
            match = self._match(view)
            if not match.ok:
                return self._begin(kept[:n], kept[n:])
            self.views.append(view)
            self.matches.append(match)

    def _parallax_px(self, match: Match) -> float:
        """75th percentile of the flow left by the best rotation, over the cells with a flow."""
        K_cells = scaled_intrinsics(self.views[0].K, 1 / self.matcher.stride)[None]
        target, weight = match.target_uv[None], match.weight[None]
        T = rotation_step(target, weight, K_cells, huber_px=0.5)
        uv, _, _ = reproject(torch.zeros_like(target[..., 0]), T, K_cells)
        left = (target - uv).norm(dim=-1)[weight.mean(-1) > 0.1]
        return float(left.quantile(0.75)) * self.matcher.stride if len(left) > 50 else 0.0

    def _solve(self, parallax_px: float) -> InitialMap | None:
        """Adjust from several starts and judge the best."""
        config, stride = self.config, self.matcher.stride
        chosen = sorted(set(np.linspace(0, len(self.matches) - 1, config.views).round().astype(int)))
        matches = [self.matches[n] for n in chosen]
        starts = [*(self._sloped(slope) for slope in START_SLOPES), self._triangulated(matches[-1])]
        candidates = [c for d in starts if d is not None and (c := self._adjusted(matches, d)) is not None]
        if not candidates:
            return None
        candidates.sort(key=lambda c: c.cost)
        best = candidates[0]
        if self._ambiguous(candidates) and parallax_px < config.decided_px:
            log.debug("initial map from %d views: two shapes fit alike", len(self.views))
            return None
        d, textured = best.inv_depth, torch.stack([m.weight for m in matches]).mean((0, -1)) > TEXTURED
        deviation = FLOW_SIGMA_CELLS / best.information.clamp_min(1e-12).sqrt() / d
        known = textured & (deviation < config.max_depth_deviation) & (d > 2 * MIN_INV_DEPTH)
        known_ratio = float(known.sum() / textured.sum().clamp_min(1))
        log.debug(
            "initial map from %d views: misfit %.2f px, %.0f %% of the textured cells known",
            *(len(self.views), best.error_cells * stride, 100 * known_ratio),
        )
        if not (best.error_cells * stride <= config.max_error_px and known_ratio >= config.min_known_ratio):
            return None
        scale = float(d[known].median())
        views = sorted(self.views[1:] + self.unmatched, key=lambda view: view.frame_id)
        relative_sigma = torch.where(known, deviation, torch.full_like(d, UNMEASURED)).clamp(MIN_DEVIATION)
        return InitialMap(
            self.views[0],
            InvDepth(d / scale, relative_sigma * d / scale),
            tuple(views),
            tuple(_nearest(views, [self.views[1 + n] for n in chosen], best.T_cw, scale)),
            tuple(self.dropped),
        )

    def _sloped(self, slope: tuple[float, float]) -> Tensor:
        """Inverse depth (hc, wc), 1 in the middle, with a slope across the view."""
        start = self._constant_depth(self.views[0]).value
        v, u = (torch.linspace(-0.5, 0.5, n) for n in start.shape)
        return start + slope[0] * u[None, :] + slope[1] * v[:, None]

    def _triangulated(self, match: Match) -> Tensor | None:
        """Inverse depth (hc, wc) by the essential matrix of one match, median 1; None if that fixes no motion."""
        K_cells = scaled_intrinsics(self.views[0].K, 1 / self.matcher.stride)
        hc, wc = match.target_uv.shape[:2]
        textured = match.weight.mean(-1) > TEXTURED
        uv_i, uv_j = pixel_grid(hc, wc, like=match.target_uv)[textured], match.target_uv[textured]
        T = essential_pose(uv_i.numpy(), uv_j.numpy(), K_cells.numpy(), HUBER_PX / self.matcher.stride)
        if T is None:
            return None
        T_ji = torch.from_numpy(T)
        far = torch.zeros(1, hc, wc, dtype=torch.float64)
        uv, q, _ = reproject(far, T_ji[None], K_cells[None])
        _, J = reprojection_jacobians(q, far, T_ji[None], K_cells[None])
        d = ((match.target_uv - uv[0]) * J[0]).sum(-1) / J[0].square().sum(-1).clamp_min(1e-9)
        good = textured & (d > 0)
        if good.sum() < MIN_TRIANGULATED:
            return None
        d = (d / d[good].median()).clamp(0.05, 20.0).float()
        return normalized_convolution(d, (good * match.weight.mean(-1)).float())

    def _adjusted(self, matches: list[Match], start: Tensor) -> "Candidate | None":
        """Poses and depth of the first view from a start (hc, wc) of its inverse depth; None if that leads nowhere."""
        config, stride = self.config, self.matcher.stride
        N = len(matches) + 1
        inv_depth = start.expand(N, *start.shape).contiguous()
        K_cells = scaled_intrinsics(self.views[0].K, 1 / stride)
        target, weight = (torch.stack([getattr(m, name) for m in matches]) for name in ("target_uv", "weight"))
        placed = pose_step(
            *(target, weight, inv_depth[1:], torch.stack([m.T_ck for m in matches]), K_cells.expand(N - 1, 3, 3)),
            steps=POSE_STEPS,
            huber_px=2 * HUBER_PX / stride,
        )
        solution = bundle_adjust(
            target,
            weight,
            torch.tensor([(0, n) for n in range(1, N)]),
            torch.cat([se3.identity()[None], placed.T]),
            inv_depth,
            (inv_depth, torch.full_like(inv_depth, PRIOR_WEIGHT)),
            torch.tensor([n == 0 for n in range(N)]),
            K_cells,
            config.steps,
            huber_px=HUBER_PX / stride,
        )
        if not solution.ok:
            return None
        d = solution.inv_depth[0]
        uv, _, valid = reproject(d.expand(N - 1, *d.shape), solution.T_cw[1:], K_cells.expand(N - 1, 3, 3))
        error = (target - uv).norm(dim=-1)
        w = weight.mean(-1) * (valid & in_image(uv, *d.shape))
        if not (w > TEXTURED).any():
            return None  # it moved everything out of view
        cost = (w * error.clamp_max(2 * HUBER_PX / stride)).sum() / w.sum()
        return Candidate(
            solution.T_cw[1:], d, solution.depth_information[0], float(cost), float(error[w > TEXTURED].median())
        )

    def _ambiguous(self, candidates: "list[Candidate]") -> bool:
        """True if a start ended at another motion that fits nearly as well: the planar (bas-relief) ambiguity."""
        best = candidates[0]
        direction = torch.nn.functional.normalize(best.T_cw[-1, :3, 3], dim=0)
        for other in candidates[1:]:
            cosine = float(direction @ torch.nn.functional.normalize(other.T_cw[-1, :3, 3], dim=0))
            if cosine < SAME_DIRECTION and other.cost < self.config.ambiguity * best.cost:
                return True
        return False


@dataclass(frozen=True)
class Candidate:
    """What one start of the adjustment led to."""

    T_cw: Tensor  # (N - 1, 4, 4) of the chosen views
    inv_depth: Tensor  # (hc, wc) of the first view
    information: Tensor  # (hc, wc)
    cost: float  # mean truncated misfit, cells
    error_cells: float  # median misfit


def _nearest(views: list[View], chosen: list[View], solved: Tensor, scale: float) -> list[Tensor]:
    """Guesses for all gathered views: the solved pose nearest in time, in the scale of the map."""
    frame_ids = np.array([view.frame_id for view in chosen])
    return [rescaled(solved[int(np.abs(frame_ids - view.frame_id).argmin())], scale) for view in views]

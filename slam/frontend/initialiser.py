"""The start: from constant depth to a first keyframe with depth, as soon as there is parallax enough.

Frames are matched to the first one at depth 1; when the flow that no rotation explains is large enough, poses and
depth are adjusted together and kept only if the flow then fits.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slam.frames import View
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.mapping.matching import Match, Matcher
from slam.mapping.store import identity, rescaled
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import rotation_step

log = logging.getLogger(__name__)

PRIOR_WEIGHT = 1e-3  # holds cells without flow at the start's depth and the scale near 1
FLOW_SIGMA_CELLS = 0.06  # standard deviation of a good flow: a quarter of a pixel in cells of four
MIN_INV_DEPTH = 1e-3


@dataclass(frozen=True)
class InitialiserConfig:
    """Pixels are of the network size."""

    parallax_px: float = 3.0  # 75th percentile of the flow that no rotation explains
    min_known_ratio: float = 0.4  # part of the textured cells that must get a depth
    max_error_px: float = 1.0  # median misfit of the result
    max_depth_deviation: float = 0.3  # relative standard deviation at which a cell's depth counts as unknown
    min_views: int = 5  # gathered before the first attempt
    views: int = 8  # adjusted together
    max_gathered: int = 400  # frames kept while waiting for parallax
    steps: int = 20  # of the bundle adjustment


@dataclass(frozen=True)
class InitialMap:
    """A first keyframe with depth (median inverse depth 1) and the views gathered so far."""

    view: View
    cell_inv_depth: Tensor  # (hc, wc)
    cell_weight: Tensor  # (hc, wc)
    views: tuple[View, ...]  # after the first
    T_cks: tuple[Tensor, ...]  # (4, 4) guesses of their poses
    before: tuple[View, ...]  # earlier views, that could not be used


class Initialiser:
    """Gathers views until a first map can be made."""

    def __init__(self, matcher: Matcher, config: InitialiserConfig = InitialiserConfig()) -> None:
        self.matcher = matcher
        self.config = config
        self.views: list[View] = []
        self.matches: list[Match] = []  # of views[1:] to views[0]
        self.dropped: list[View] = []  # before views[0]
        self._tried_px = 0.0  # parallax of the last attempt

    def add(self, view: View) -> InitialMap | None:
        """Take a view; the map, if this one made it possible."""
        if not self.views:
            self.views.append(view)
            return None
        match = self._match(view)
        if not match.ok or len(self.views) >= self.config.max_gathered:
            self._restart(view)
            return None
        self.views.append(view)
        self.matches.append(match)
        parallax_px = self._parallax_px(match)
        if len(self.views) < self.config.min_views or parallax_px < max(self.config.parallax_px, 1.2 * self._tried_px):
            return None
        self._tried_px = parallax_px
        return self._solve()

    def _constant_depth(self, view: View) -> tuple[Tensor, Tensor]:
        stride = self.matcher.correspondence.stride
        shape = (view.image.shape[0] // stride, view.image.shape[1] // stride)
        return torch.ones(shape), torch.ones(shape)

    def _match(self, view: View) -> Match:
        T_ck = self.matches[-1].T_ck if self.matches else identity()
        return self.matcher.match(self.views[0], self._constant_depth(view), view, T_ck, view.K)

    def _restart(self, view: View) -> None:
        """Begin again from the middle of what was gathered; matches to the old first view are worthless then."""
        middle = (len(self.views) + 1) // 2
        self._begin(self.views[:middle], [*self.views[middle:], view])

    def _begin(self, dropped: list[View], kept: list[View]) -> None:
        log.debug("initialisation starts again from frame %d", kept[0].frame_id)
        self.dropped = (self.dropped + dropped)[-self.config.max_gathered :]
        self.views, self.matches, self._tried_px = kept[:1], [], 0.0
        for n, view in enumerate(kept[1:], 1):
            match = self._match(view)
            if not match.ok:
                return self._begin(kept[:n], kept[n:])
            self.views.append(view)
            self.matches.append(match)

    def _parallax_px(self, match: Match) -> float:
        """75th percentile of the flow left by the best rotation, over the cells with a flow."""
        K_cells = scaled_intrinsics(self.views[0].K, 1 / self.matcher.correspondence.stride)[None]
        target, weight = match.target_uv[None], match.weight[None]
        T = rotation_step(target, weight, K_cells, huber_px=0.5)
        uv, _, _ = reproject(torch.zeros_like(target[..., 0]), T, K_cells)
        left = (target - uv).norm(dim=-1)[weight.mean(-1) > 0.1]
        return float(left.quantile(0.75)) * self.matcher.correspondence.stride if len(left) > 50 else 0.0

    def _solve(self) -> InitialMap | None:
        config, stride = self.config, self.matcher.correspondence.stride
        chosen = sorted(set(np.linspace(0, len(self.matches) - 1, config.views).round().astype(int)))
        matches = [self.matches[n] for n in chosen]
        N = len(matches) + 1
        T_cw = torch.stack([identity(), *(m.T_ck for m in matches)])
        start, _ = self._constant_depth(self.views[0])
        inv_depth = start.expand(N, *start.shape).contiguous()
        edges = torch.tensor([(0, n) for n in range(1, N)])
        fixed = torch.zeros(N, dtype=torch.bool)
        fixed[0] = True
        K_cells = scaled_intrinsics(self.views[0].K, 1 / stride)
        target = torch.stack([m.target_uv for m in matches])
        weight = torch.stack([m.weight for m in matches])
        prior = (inv_depth, torch.full_like(inv_depth, PRIOR_WEIGHT))
        solution = bundle_adjust(
            target, weight, edges, T_cw, inv_depth, prior, fixed, K_cells, config.steps, huber_px=0.5 / stride
        )
        if not solution.ok:
            return None
        d, information = solution.inv_depth[0], solution.depth_information[0]
        uv, _, valid = reproject(
            d.expand(N - 1, *d.shape), solution.T_cw[1:] @ se3.inverse(solution.T_cw[:1]), K_cells.expand(N - 1, 3, 3)
        )
        seen = valid & in_image(uv, *d.shape) & (weight.mean(-1) > 0.1)
        error_px = float((target - uv).norm(dim=-1)[seen].median()) * stride
        deviation = FLOW_SIGMA_CELLS / information.clamp_min(1e-12).sqrt() / d
        textured = weight.mean((0, -1)) > 0.1
        known = textured & (deviation < config.max_depth_deviation) & (d > 2 * MIN_INV_DEPTH)
        known_ratio = float(known.sum() / textured.sum().clamp_min(1))
        log.debug(
            "initial map from %d views: misfit %.2f px, %.0f %% of the textured cells known",
            len(self.views),
            error_px,
            100 * known_ratio,
        )
        if not (error_px <= config.max_error_px and known_ratio >= config.min_known_ratio):  # no cell in view: NaN
            return None
        scale = float(d[known].median())
        cell_weight = known.float() / (1 + (deviation / 0.1) ** 2)
        return InitialMap(
            self.views[0],
            d / scale,
            cell_weight,
            tuple(self.views[1:]),
            tuple(_nearest(len(self.matches), chosen, solution.T_cw[1:], scale)),
            tuple(self.dropped),
        )


def _nearest(count: int, chosen: list[int], solved: Tensor, scale: float) -> list[Tensor]:
    """Guesses for all gathered views: the solved pose nearest in time, in the scale of the map."""
    return [rescaled(solved[int(np.abs(np.array(chosen) - n).argmin())], scale) for n in range(count)]

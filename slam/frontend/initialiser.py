"""The start: from constant depth to a first keyframe with depth, as soon as there is parallax enough.

Frames are matched to the first one at depth 1; when the flow that no rotation explains is large enough, poses and
depth are adjusted together and kept only if the flow then fits.
"""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import View
from slam.frontend.initial_structure import is_ambiguous, solve, with_other_focal_lengths
from slam.geometry import se3
from slam.geometry.camera import pixel_grid
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.kernels.normal_equations import trust_of
from slam.matching.matcher import Match, Matcher
from slam.matching.parallax import TEXTURED, turn_and_parallax
from slam.recognition.keypoints import KeypointConfig, detect_keypoints
from slam.recognition.relative_pose import turn_from_keypoints
from slam.stereo.prior import Prior

log = logging.getLogger(__name__)

OTHER_ZOOMS = (0.7, 1.4)  # of a guessed focal length, tried too: with one far off a wrong shape may fit best
MIN_DEVIATION = 0.005
FLOW_SIGMA_CELLS = 0.06  # standard deviation of a good flow: a quarter of a pixel in cells of four
MIN_INV_DEPTH = 1e-3
MAX_MATCHED_VIEWS = 60  # gathered views that keep their flow, spread evenly over time; the others keep the image only
MIN_MEAN_WEIGHT = 0.04  # of a flow that is believed though no constant depth explains it: it agrees both ways
CLEARLY = 2.0  # times the weight, by which a flow that began at a rotation of keypoints is the better one
MIN_CUT_SHORT = 3  # views that may make a map where the camera leaves what the first one shows
PATIENT_RATIO = 0.5  # of parallax_px, which is enough once more than MAX_MATCHED_VIEWS are gathered


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
    turned_visible_ratio: float = 0.6  # part of the first view still in sight, below which its prior depth must do
    max_gathered: int = 400  # frames kept while waiting for parallax
    steps: int = 20  # of the bundle adjustment

    def __post_init__(self) -> None:
        check_range(self, 0.1, 1000, "parallax_px", "max_error_px", "decided_px")
        check_range(self, 0.01, 1, "min_known_ratio", "max_depth_deviation")
        check_range(self, 0, 1, "turned_visible_ratio")
        check_range(self, 2, 1000, "views", "max_gathered")
        check_range(self, 2, self.max_gathered, "min_views")
        check_range(self, 1, 10, "ambiguity")
        check_range(self, 1, 1000, "steps")


@dataclass(frozen=True, eq=False)
class InitialMap:
    """A first keyframe with depth and the views gathered so far. The median inverse depth is 1, unless `metric`."""

    view: View
    coarse: InvDepth  # (hc, wc)
    views: tuple[View, ...]  # after the first
    T_cks: tuple[Tensor, ...]  # (4, 4) guesses of their poses
    before: tuple[View, ...]  # earlier views, that could not be used
    metric: bool = False  # depth in metres, by a sensor
    prior: InvDepth | None = None  # (hc, wc) what the picture of `view` alone suggests, in a unit of its own


@dataclass
class Seen:
    """What the views have shown, for whoever asks why there is no map; pixels are of the network size."""

    failed: int = 0  # views that were not found in the first one of their time
    flow_px: float = 0.0  # largest median flow
    turned_deg: float = 0.0  # largest rotation
    parallax_px: float = 0.0  # largest


class Initialiser:
    """Gathers views until a first map can be made."""

    def __init__(
        self,
        matcher: Matcher,
        config: InitialiserConfig = InitialiserConfig(),
        device: torch.device = torch.device("cpu"),
        prior: Prior | None = None,
        is_lens_guessed: bool = False,
        keypoints: KeypointConfig = KeypointConfig(),
    ) -> None:
        """`device`: of the depth that is sought; `is_lens_guessed`: the views' focal length may be far off."""
        self.matcher = matcher
        self.config = config
        self.device = device
        self.prior = prior
        self.keypoints = keypoints
        self.zooms = OTHER_ZOOMS if is_lens_guessed else ()
        self.views: list[View] = []
        self.matches: list[Match] = []  # of views[1:] to views[0]
        self.unmatched: list[View] = []  # between them, without flow
        self.dropped: list[View] = []  # before views[0], without flow
        self.seen = Seen()
        self._parallax_px = 0.0  # largest of these views
        self._tried_px = 0.0  # of the last attempt

    def add(self, view: View) -> InitialMap | None:
        """Take a view; the map, if this one made it possible."""
        if not self.views:
            self.views.append(view)
            return None
        match = self._match(view)
        self.seen.failed += not _is_believed(match)
        if not _is_believed(match) or len(self.views) + len(self.unmatched) >= self.config.max_gathered:
            first = self._cut_short(view)
            if first is None:
                self._restart(view)
            return first
        self.views.append(view)
        self.matches.append(match)
        if len(self.views) > MAX_MATCHED_VIEWS:
            self._thin()
        turn, parallax = turn_and_parallax(match.target_uv, match.weight, view.K, self.matcher.stride)
        self._note(match, turn, parallax)
        self._parallax_px = max(self._parallax_px, parallax)
        is_leaving = match.visible_ratio < self.config.turned_visible_ratio
        if is_leaving and len(self.views) <= self.config.min_views:
            return self._attempted(MIN_CUT_SHORT, self._parallax_px)
        return self._attempted(self.config.min_views, parallax)

    def _attempted(self, min_views: int, parallax: float) -> InitialMap | None:
        """The map of the views so far, if they show enough, and clearly more than at the last attempt."""
        wanted_px = self.config.parallax_px * (PATIENT_RATIO if self.unmatched else 1)
        if len(self.views) < min_views or parallax < max(wanted_px, 1.2 * self._tried_px):
            return None
        self._tried_px = parallax
        return self._solve(parallax)

    def _match(self, view: View) -> Match:
        """Match the first view, at depth 1, to another one; after a large turn, by the rotation of their keypoints."""
        T_ck = self.matches[-1].T_ck if self.matches else se3.identity()
        h, w = (side // self.matcher.stride for side in view.image.size)
        ones = torch.ones(h, w, device=self.device)
        constant = InvDepth(ones, 1e-6 * ones)  # as if sure: the motion is scaled to it
        match = self.matcher.match(self.views[0], constant, view, T_ck)
        if match.mean_weight >= MIN_MEAN_WEIGHT:
            return match
        known, seen = (detect_keypoints(v.image, self.keypoints) for v in (self.views[0], view))
        turn = turn_from_keypoints(known, seen, view.K.numpy(), self.keypoints)
        turned = match if turn is None else self.matcher.match(self.views[0], constant, view, turn)
        return turned if turned.mean_weight > CLEARLY * match.mean_weight else match

    def _cut_short(self, view: View) -> InitialMap | None:
        """The map of a few views, where the next one cannot be found in the first."""
        if len(self.views) > self.config.min_views:  # there was time
            return None
        first = self._attempted(MIN_CUT_SHORT, self._parallax_px)
        if first is None:
            return None
        return replace(first, views=(*first.views, view), T_cks=(*first.T_cks, first.T_cks[-1]))

    def _note(self, match: Match, turn: Tensor, parallax: float) -> None:
        """Keep the largest of each."""
        h, w, _ = match.target_uv.shape
        flow = (match.target_uv - pixel_grid(h, w, like=match.target_uv)).norm(dim=-1)
        textured = flow[trust_of(match.weight) > TEXTURED]
        flow_px = float(textured.median()) * self.matcher.stride if len(textured) else 0.0
        self.seen.flow_px = max(self.seen.flow_px, flow_px)
        self.seen.turned_deg = max(self.seen.turned_deg, math.degrees(float(se3.angle_rad(turn))))
        self.seen.parallax_px = max(self.seen.parallax_px, parallax)

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
        self.views, self.matches, self._tried_px, self._parallax_px = kept[:1], [], 0.0, 0.0
        for n, view in enumerate(kept[1:], 1):
            match = self._match(view)
            if not _is_believed(match):
                return self._begin(kept[:n], kept[n:])
            self.views.append(view)
            self.matches.append(match)

    def _solve(self, parallax: float) -> InitialMap | None:
        """Adjust from several starts and judge the best."""
        config, stride = self.config, self.matcher.stride
        chosen = sorted(set(np.linspace(0, len(self.matches) - 1, config.views).round().astype(int)))
        matches = [self.matches[n] for n in chosen]
        prior = None if self.prior is None else self.prior(self.views[0])
        guesses = [] if prior is None else [prior.value / prior.value.median()]
        given = (matches, self.views[0].K, stride, config.steps)
        candidates = solve(*given, guesses)
        if not candidates:
            return None
        if is_ambiguous(candidates, config.ambiguity) and parallax < config.decided_px:
            log.debug("initial map from %d views: two shapes fit alike", len(self.views))
            return None
        best = with_other_focal_lengths(candidates[0], *given, guesses, self.zooms, config.ambiguity)
        d, textured = best.inv_depth, torch.stack([trust_of(m.weight) for m in matches]).mean(0) > TEXTURED
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
        relative_sigma = torch.where(known, deviation, torch.full_like(d, UNMEASURED_SIGMA)).clamp(MIN_DEVIATION)
        return InitialMap(
            self.views[0],
            InvDepth(d / scale, relative_sigma * d / scale),
            tuple(views),
            tuple(_nearest(views, [self.views[1 + n] for n in chosen], list(best.T_cw), scale)),
            tuple(self.dropped),
            prior=prior,
        )

    def guessed(self) -> InitialMap | None:
        """A first map by the prior, once the camera has turned away from the first view before anything has moved in
        it; None before, and without a prior."""
        if self.prior is None or not self.matches or self.matches[-1].visible_ratio > self.config.turned_visible_ratio:
            return None
        prior = self.prior(self.views[0])
        log.debug("initial map from %d views by the prior: the camera turned, without parallax", len(self.views))
        views = sorted(self.views[1:] + self.unmatched, key=lambda view: view.frame_id)
        return InitialMap(
            self.views[0],
            prior.rescaled(float(prior.value.median())),
            tuple(views),
            tuple(_nearest(views, self.views[1:], [match.T_ck for match in self.matches], 1.0)),
            tuple(self.dropped),
            prior=prior,
        )


def _is_believed(match: Match) -> bool:
    """True if a view was found in the first one: close to its parallax only the flow itself can tell."""
    return match.ok or match.mean_weight >= MIN_MEAN_WEIGHT


def _nearest(views: list[View], chosen: list[View], solved: list[Tensor], scale: float) -> list[Tensor]:
    """Guesses for all gathered views: the solved pose nearest in time, in the scale of the map."""
    frame_ids = np.array([view.frame_id for view in chosen])
    return [se3.scaled_translation(solved[int(np.abs(frame_ids - view.frame_id).argmin())], scale) for view in views]

"""Matching one view to another of known depth: Flow-SE3, and whether to believe it."""

from dataclasses import dataclass
from typing import Generic

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.errors import ConfigError, check_range
from slam.frames import Image, View
from slam.geometry import se3
from slam.geometry.camera import pixel_grid, sample, scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.inv_depth import InvDepth
from slam.kernels.normal_equations import trust_of
from slam.matching.correspondence import Correspondence, Features, State
from slam.solvers.flow_se3 import Consensus, MotionStep, flow_se3
from slam.solvers.gauss_newton import Damping

MASK_MARGIN_PX = 3  # round a cell: the patch that is matched there


@dataclass(frozen=True)
class MatcherConfig:
    """How two views are matched and when the result is believed; pixels are of the network size."""

    gn_steps: int = 2  # Gauss-Newton steps in each update of Flow-SE3
    huber_px: float = 1.0  # robust threshold
    consensus_px: float = 2.0  # at which what moves by itself weighs a quarter, if most fit better; 0: no such weight
    inlier_px: float = 2.0  # a cell that fits better than this is an inlier
    min_inlier_ratio: float = 0.35  # below it the match has failed
    min_visible_ratio: float = 0.2  # part of the keyframe that is in view
    min_weight: float = 20.0  # cells' worth of confidence that a pose needs
    flow_sigma_px: float = 0.15  # standard deviation of a flow aligned on images, against which unsure depth is weighed

    def __post_init__(self) -> None:
        if not 0.0 < self.min_inlier_ratio <= 1.0:
            raise ConfigError(f"min_inlier_ratio must be in (0, 1], got {self.min_inlier_ratio}")
        check_range(self, 1, 100, "gn_steps")
        check_range(self, 0.01, 1000, "huber_px", "inlier_px", "flow_sigma_px")
        check_range(self, 0, 1, "min_visible_ratio")
        check_range(self, 0, 1000, "consensus_px")
        check_range(self, 0, 1e6, "min_weight")


@dataclass(frozen=True, eq=False)
class Match:
    """A view matched to a keyframe: what Flow-SE3 found, kept for the optimisation."""

    T_ck: Tensor  # (4, 4) float64, on the host
    target_uv: Tensor  # (hc, wc, 2) cells
    weight: Tensor  # (hc, wc, 3) confidence of the flow alone: of u and v, and what couples them
    mean_weight: float
    inlier_ratio: float
    visible_ratio: float
    mean_flow_px: float
    ok: bool  # solved and believed


class Matcher(Generic[Features, State]):
    """Flow-SE3 between two views with any correspondence; it holds no state of its own."""

    def __init__(
        self, correspondence: Correspondence[Features, State], config: MatcherConfig = MatcherConfig()
    ) -> None:
        self.correspondence = correspondence
        self.config = config

    @property
    def stride(self) -> int:
        """Side of a cell, pixels."""
        return self.correspondence.stride

    def match(self, view_k: View, coarse: InvDepth, view_c: View, T_ck: Tensor, static: Tensor | None = None) -> Match:
        """Flow-SE3 of one edge.

        Args:
            view_k: the keyframe's view.
            coarse: (hc, wc) its inverse depth at the cells.
            view_c: the view to be placed.
            T_ck: (4, 4) first guess.
            static: (hc, wc) how far the keyframe's cells stand still, in [0, 1]: what moves tells nothing of the pose.
        """
        config, stride = self.config, self.stride
        inv_depth, sigma = coarse.value[None], coarse.sigma[None]
        K_cells = scaled_intrinsics(view_k.K, 1 / stride)[None]
        features_k, features_c = self.correspondence.encode([view_k.image, view_c.image])
        state = self.correspondence.start([features_k], [features_c])
        shown = Shown.of(view_k.image, view_c.image, stride)

        def update(state: State, uv: Tensor) -> tuple[State, Tensor, Tensor]:
            state, residual_uv, confidence = self.correspondence.update(state, uv)
            confidence = F.pad(confidence, (0, 3 - confidence.shape[-1]))  # nothing couples u and v
            if shown is not None:
                confidence = confidence * shown.in_both(uv + residual_uv)[..., None]
            return state, residual_uv, confidence

        steps = flow_se3(
            update,
            state,
            inv_depth,
            T_ck[None],
            K_cells,
            self.correspondence.max_updates,
            config.gn_steps,
            Damping(),
            config.huber_px / stride,
            (sigma, config.flow_sigma_px / stride),
            self.correspondence.finished,
            Consensus(config.consensus_px / stride) if config.consensus_px else None,
            static,
        )
        return self._judged(steps[-1], inv_depth, K_cells, shown)

    def is_of_own(self, confidence: float, share: float, view: View, coarse: InvDepth) -> bool:
        """True if a mean confidence is at least a share of that of the view matched to itself, the most that a match of
        the view can have."""
        return confidence >= share or confidence >= share * self.match(view, coarse, view, se3.identity()).mean_weight

    def _judged(self, step: MotionStep, inv_depth: Tensor, K_cells: Tensor, shown: "Shown | None") -> Match:
        config, stride = self.config, self.stride
        hc, wc = inv_depth.shape[1:]
        target = step.uv + step.residual_uv
        uv, _, valid = reproject(inv_depth, step.T_ji, K_cells)
        visible = valid & in_image(uv, hc, wc, margin=-0.5)
        seen_share = visible.float().mean()
        if shown is not None:
            visible &= shown.in_both(uv)
            seen_share = visible.sum() / shown.first.sum().clamp_min(1).to(uv.device)
        error_px = (target - uv).norm(dim=-1) * stride
        weight = trust_of(step.weight) * visible
        confidence = trust_of(step.confidence) * visible  # of the flow alone
        flow_px = torch.where(visible, (uv - pixel_grid(hc, wc, like=uv)).norm(dim=-1) * stride, 0.0)
        numbers = [
            (weight * (error_px < config.inlier_px)).sum() / weight.sum().clamp_min(1e-9),
            seen_share,
            confidence.sum(),
            flow_px.sum() / visible.sum().clamp_min(1),
        ]
        inlier_ratio, visible_ratio, total_weight, mean_flow_px = torch.stack(numbers).cpu().tolist()  # in one copy
        ok = (
            bool(step.ok)
            and inlier_ratio >= config.min_inlier_ratio
            and visible_ratio >= config.min_visible_ratio
            and total_weight >= config.min_weight
        )
        return Match(
            T_ck=step.T_ji[0],
            target_uv=target[0],
            weight=step.confidence[0],
            mean_weight=total_weight / (hc * wc),
            inlier_ratio=inlier_ratio,
            visible_ratio=visible_ratio,
            mean_flow_px=mean_flow_px,
            ok=ok,
        )


@dataclass(frozen=True, eq=False)
class Shown:
    """Which cells of two images show the scene."""

    first: Tensor  # (hc, wc) bool
    second: Tensor

    @staticmethod
    def of(first: Image, second: Image, stride: int) -> "Shown | None":
        """Of two images of one size; None if both show it everywhere."""
        cells = [image.shown_cells(stride, MASK_MARGIN_PX) for image in (first, second)]
        everywhere = torch.ones(first.size[0] // stride, first.size[1] // stride, dtype=torch.bool)
        if cells[0] is None and cells[1] is None:
            return None
        return Shown(*(everywhere if each is None else each for each in cells))

    def in_both(self, uv: Tensor) -> Tensor:
        """(E, hc, wc) bool of cells of the first image that lie at uv (E, hc, wc, 2), cells, in the second; what leaves
        that is not hidden by its mask."""
        first, second = self.first.to(uv.device), self.second.to(uv.device)
        landed = sample(
            second[None, None].to(uv.dtype).expand(len(uv), -1, -1, -1), uv, padding="border", mode="nearest"
        )
        return first & (landed[:, 0] > 0)

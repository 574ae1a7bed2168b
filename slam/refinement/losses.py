"""How far two frames of known poses disagree: the spatial and the disparity loss, and a form of that without a unit.

By the depth of frame i its pixel x lies in camera j at a point whose image is p; the flow says that it is seen at f.
The spatial loss is |p - f|; the disparity loss compares the depth of the point with that of frame j at f.

Reference: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (CVD), eq. 4 to 7; Zhang et al., MegaSaM,
CVPR 2025 (the ratio of depths instead of their difference).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.errors import check_range
from slam.geometry.camera import sample
from slam.geometry.flow import in_image, reproject

LAMBDA_DISPARITY = 0.1  # of the disparity loss beside the spatial one, CVD's
NEAR_PX = 1.0  # where the spatial loss begins to count by its logarithm (Cauchy)
NEAR_LOG = 0.3  # where the log ratio begins to count less


@dataclass(frozen=True)
class ConsistencyWeights:
    """Of the parts of the loss that is optimised."""

    spatial: float = 1.0  # of the Cauchy loss in pixels
    ratio: float = 40.0  # of the log ratio

    def __post_init__(self) -> None:
        check_range(self, 0, 1e4, "spatial", "ratio")


@dataclass(frozen=True, eq=False)
class PairErrors:
    """Disagreement of E directed pairs at the pixels of i; without meaning where not valid."""

    uv: Tensor  # (E, h, w, 2) f, or p where the flow cannot be believed
    spatial_px: Tensor  # (E, h, w) |p - f|
    moved: Tensor  # (E, h, w) inverse depth of the points of i in camera j, 1 / z_ij
    there: Tensor  # (E, h, w) that of frame j at f, 1 / z_j(f)
    focal_px: Tensor  # () u
    valid: Tensor  # (E, h, w) bool: in front of camera j, measured inside its image

    @property
    def disparity_px(self) -> Tensor:
        """(E, h, w) u |1 / z_ij - 1 / z_j(f)|."""
        return self.focal_px * (self.moved - self.there).abs()

    @property
    def log_ratio(self) -> Tensor:
        """(E, h, w) |log(z_ij / z_j(f))|."""
        return (self.moved.clamp_min(1e-9).log() - self.there.clamp_min(1e-9).log()).abs()


def pair_errors(
    inv_depth_i: Tensor,
    inv_depth_j: Tensor,
    uv_ij: Tensor,
    T_ji: Tensor,
    K: Tensor,
    stride: float = 1.0,
    seen: Tensor | None = None,
) -> PairErrors:
    """Compare frames i with frames j.

    Inverse depth is what is sampled: on a plane that is exact between pixels.

    Args:
        inv_depth_i, inv_depth_j: (E, h, w) > 0.
        uv_ij: (E, h, w, 2) where the pixels of i are seen in j, by flow.
        T_ji: (E, 4, 4) view j from view i, its translation in the unit of the depths.
        K: (3, 3) intrinsics of both at this size.
        stride: pixels of the image in one of this size.
        seen: (E, h, w) bool where the flow can be believed; elsewhere the depths are compared at p. None: everywhere.
    """
    E, h, w = inv_depth_i.shape
    p, q, valid = reproject(inv_depth_i, T_ji, K.to(inv_depth_i).expand(E, 3, 3))
    if seen is not None:
        uv_ij = torch.where(seen[..., None], uv_ij, p.detach())
    moved = inv_depth_i / q[..., 2]
    there = sample(inv_depth_j[:, None], uv_ij, padding="border")[:, 0]
    return PairErrors(
        uv=uv_ij,
        spatial_px=stride * (p - uv_ij).square().sum(-1).clamp_min(1e-12).sqrt(),
        moved=moved,
        there=there,
        focal_px=stride * 0.5 * (K[0, 0] + K[1, 1]).to(moved),
        valid=valid & in_image(uv_ij, h, w),
    )


def reference_loss(errors: PairErrors, mask: Tensor) -> Tensor:
    """CVD's own: mean over the mask (E, h, w) of the spatial loss plus LAMBDA_DISPARITY times the disparity loss.

    The second part depends on the unit of length: twice as large a unit doubles it.
    """
    return weighted_mean(errors.spatial_px + LAMBDA_DISPARITY * errors.disparity_px, mask * errors.valid)


def consistency_loss(
    errors: PairErrors, confidence: Tensor, static: Tensor, weights: ConsistencyWeights = ConsistencyWeights()
) -> tuple[Tensor, dict[str, Tensor]]:
    """What is optimised: robust, and without a unit of length.

    Args:
        confidence: (E, h, w) of the flow, for the spatial part.
        static: (E, h, w) probability that what a pixel shows does not move in either frame.

    Returns:
        loss (), its parts.
    """
    spatial = torch.log1p((errors.spatial_px / NEAR_PX).square())
    log_ratio = errors.log_ratio
    ratio = log_ratio / (1 + log_ratio / NEAR_LOG)
    support = errors.valid.float().sum().clamp_min(1)
    parts = {
        "spatial": (spatial * confidence * static * errors.valid).sum() / support,
        "ratio": (ratio * static * errors.valid).sum() / support,
    }
    loss = weights.spatial * parts["spatial"] + weights.ratio * parts["ratio"]
    return loss, {name: part.detach() for name, part in parts.items()}


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of values by weights of the same shape; 0 where there are none. NaN without weight does not spread."""
    kept = torch.where(weight > 0, values * weight, torch.zeros_like(values))
    return kept.sum() / weight.sum().clamp_min(1e-9)

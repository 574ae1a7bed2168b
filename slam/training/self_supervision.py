"""Losses that need no true depth: two views of one rigid scene must look alike, and agree on its depth.

The depth of view a says where each of its pixels lies in view b. There the image of b must show the same (photometric
loss), and the depth of b must be that of the point (geometry loss). Depth is inverse depth throughout: its relative
difference is that of depth, and on a plane it is exact between pixels. Where the system has measured the depth of a
keyframe, the network may be told (distillation).

References: Bian et al., Unsupervised scale-consistent depth learning from video (SC-Depth), IJCV 2021; Godard et al.,
Digging into self-supervised monocular depth estimation (auto-mask, smoothness of disparity), ICCV 2019; Wang et al.,
Image quality assessment: from error visibility to structural similarity (SSIM), TIP 2004.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.errors import check_range
from slam.geometry import se3
from slam.geometry.camera import sample
from slam.geometry.flow import in_image, reproject
from slam.networks.prior import PriorOutput
from slam.training.losses import inconsistency, masked_mean, sigma_likelihood

SSIM_SHARE = 0.85  # of the photometric error; the rest is the absolute difference
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # of images in [0, 1]
MIN_SUPPORT = 0.02  # part of the pixels that must count, for a pair to have a loss
TRUSTED_SIGMA = 0.03  # relative sigma of a map's depth up to which it counts in full, then less
SIGMA_WEIGHT = 0.1  # of the likelihood that trains the network's own sigma, as on rendered pictures


@dataclass(frozen=True)
class SelfSupervisionConfig:
    """Weights of the losses, which pixels the photometric one leaves out, and what a step takes."""

    photometric: float = 1.0
    geometry: float = 0.5
    smoothness: float = 0.001
    auto_mask: bool = True  # pixels that look better without any motion: a camera at rest, things that move along
    inconsistency_mask: bool = True  # less where the depths of the two views disagree: movers, occlusions
    distillation: float = 1.0  # of the depth that the system has measured
    replay_every: int = 2  # steps from one on rendered pictures to the next; 0: never, 1: nothing but these
    targets: int = 3  # frames of a step, each with up to two neighbours
    scale_every: int = 100  # steps from one measurement of each map's scale to the next

    def __post_init__(self) -> None:
        check_range(self, 0, 1000, "photometric", "geometry", "smoothness", "distillation", "replay_every")
        check_range(self, 1, 1000, "targets")
        check_range(self, 1, 1e6, "scale_every")


@dataclass(frozen=True, eq=False)
class WarpedView:
    """View b as seen through the depth of view a, at the pixels of a."""

    image: Tensor  # (B, 3, H, W) of b, bilinear
    inv_depth: Tensor  # (B, H, W) of the points of a, in camera b
    sampled_inv_depth: Tensor  # (B, H, W) that b has there
    valid: Tensor  # (B, H, W) bool: in front of camera b, inside its image


def warp_view(image_b: Tensor, inv_depth_a: Tensor, inv_depth_b: Tensor, T_ba: Tensor, K: Tensor) -> WarpedView:
    """Look at view b from view a.

    Args:
        image_b: (B, 3, H, W).
        inv_depth_a, inv_depth_b: (B, H, W), > 0, in one unit ...
        T_ba: (B, 4, 4) ... which the translation has too; view b from view a.
        K: (B, 3, 3) intrinsics of both.
    """
    height, width = inv_depth_a.shape[1:]
    uv, q, valid = reproject(inv_depth_a, T_ba, K)
    valid = valid & in_image(uv, height, width)
    both = sample(torch.cat([image_b, inv_depth_b[:, None]], 1), uv, padding="border")
    return WarpedView(both[:, :3], inv_depth_a / q[..., 2], both[:, 3], valid)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM (B, C, H, W) of images in [0, 1] over 3x3 windows, mirrored at the border."""
    a, b = (F.pad(x, (1, 1, 1, 1), mode="reflect") for x in (a, b))
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance, variances = _window_mean(a * b) - product, _window_mean(a * a + b * b) - squares
    similar = (2 * product + SSIM_C1) * (2 * covariance + SSIM_C2)
    return similar / ((squares + SSIM_C1) * (variances + SSIM_C2))


def _window_mean(x: Tensor) -> Tensor:
    """Mean over 3x3 windows of (B, C, H, W), by rows and columns: avg_pool2d takes five times as long on a CPU."""
    x = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return (x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]) / 9


def photometric_error(a: Tensor, b: Tensor) -> Tensor:
    """(B, H, W) from 0 to 1: how differently two images (B, 3, H, W) in [0, 1] look at each pixel."""
    unlike = ((1 - structural_similarity(a, b)) / 2).clamp(0, 1)
    return (SSIM_SHARE * unlike + (1 - SSIM_SHARE) * (a - b).abs()).mean(1)


def smoothness(inv_depth: Tensor, image: Tensor) -> Tensor:
    """Mean step () of inverse depths (B, H, W) from pixel to pixel, relative to their mean, less across edges of the
    images (B, 3, H, W)."""
    relative = inv_depth / inv_depth.mean((1, 2), keepdim=True).clamp_min(1e-9)
    total = relative.new_zeros(())
    for axis in (-1, -2):
        edge = image.diff(dim=axis).abs().mean(1)
        total = total + (relative.diff(dim=axis).abs() * (-edge).exp()).mean()
    return total


def one_way_loss(
    image_a: Tensor,
    image_b: Tensor,
    inv_depth_a: Tensor,
    inv_depth_b: Tensor,
    T_ba: Tensor,
    K: Tensor,
    config: SelfSupervisionConfig = SelfSupervisionConfig(),
    still_error: Tensor | None = None,
) -> dict[str, Tensor]:
    """Photometric and geometry loss () of view b seen from view a; both 0 where too little of it is in sight.

    `still_error` is the photometric error of the two images as they are, where it is known already.
    The geometry loss moves both depths, and no mask takes pixels from it: disagreement must not pay. The masks of the
    photometric loss carry no gradient, for the same reason.
    """
    warped = warp_view(image_b, inv_depth_a, inv_depth_b, T_ba, K)
    disagreement = inconsistency(warped.inv_depth, warped.sampled_inv_depth)
    error = photometric_error(image_a, warped.image)
    counted = warped.valid
    if config.auto_mask:
        counted = counted & (error < (photometric_error(image_a, image_b) if still_error is None else still_error))
    weight = (1 - disagreement).detach() if config.inconsistency_mask else torch.ones_like(error)
    return {
        "photometric": _supported_mean(error * weight, counted),
        "geometry": _supported_mean(disagreement, warped.valid),
    }


def pair_loss(
    images: tuple[Tensor, Tensor],
    inv_depths: tuple[Tensor, Tensor],
    T_ba: Tensor,
    K: Tensor,
    config: SelfSupervisionConfig = SelfSupervisionConfig(),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the depths of two views a and b, the same both ways.

    Args:
        images: (B, 3, H, W) each, RGB in [0, 1], without augmentation of their colours.
        inv_depths: (B, H, W) each, > 0.
        T_ba: (B, 4, 4) view b from view a, its translation in the unit of the depths (`depth_scale`).
        K: (B, 3, 3) intrinsics of both.
        config: weights of the parts.

    Returns:
        loss (), parts.
    """
    (image_a, image_b), (inv_depth_a, inv_depth_b) = images, inv_depths
    still_error = photometric_error(image_a, image_b) if config.auto_mask else None
    ways = [
        one_way_loss(image_a, image_b, inv_depth_a, inv_depth_b, T_ba, K, config, still_error),
        one_way_loss(image_b, image_a, inv_depth_b, inv_depth_a, se3.inverse(T_ba), K, config, still_error),
    ]
    parts = {name: (ways[0][name] + ways[1][name]) / 2 for name in ways[0]}
    parts["smoothness"] = (smoothness(inv_depth_a, image_a) + smoothness(inv_depth_b, image_b)) / 2
    weights = vars(config)
    loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return loss, {name: part.detach() for name, part in parts.items()}


def distillation_loss(
    output: PriorOutput, map_inv_depth: Tensor, relative_sigma: Tensor, scale: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of log inverse depth from that of a map over its sigma, and the likelihood of the network's own sigma.

    Args:
        output: of N pictures.
        map_inv_depth, relative_sigma: (N, h, w) at its cells, 1 / map unit; 0 where the map is not certain.
        scale: of the map (`depth_scale`).

    Returns:
        loss (), parts.
    """
    known = map_inv_depth > 0
    error = (output.log_inv_depth - (map_inv_depth.clamp_min(1e-9) / scale).log()).abs()
    weight = TRUSTED_SIGMA / relative_sigma.clamp_min(TRUSTED_SIGMA)
    depth = masked_mean(error * weight, known)
    likelihood = sigma_likelihood(output, error, known)
    parts = {"distillation": depth.detach(), "distilled_sigma": likelihood.detach()}
    return depth + SIGMA_WEIGHT * likelihood, parts


def depth_scale(inv_depth: Tensor, map_inv_depth: Tensor) -> Tensor:
    """(): by how much the translations of a map must be multiplied to be in the unit of a network's depths.

    Args:
        inv_depth: (N,) of the network, > 0.
        map_inv_depth: (N,) of the map at the same pixels, > 0.
    """
    return (map_inv_depth / inv_depth).median().detach()


def _supported_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask; 0 where it holds at fewer than MIN_SUPPORT of the pixels."""
    mean = masked_mean(values, mask)
    return mean if mask.float().mean() >= MIN_SUPPORT else 0 * mean

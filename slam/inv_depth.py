"""An inverse depth with its uncertainty as one value, with the operations on both and the one rule of confidence.

Inverse depth, because its error is close to Gaussian and a point at infinity is a number (Civera, Davison & Montiel,
Inverse depth parametrization for monocular SLAM, T-RO 2008).
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from slam.geometry.flow import reproject
from slam.kernels.splat import splat_inv_depth

HALF_CONFIDENT = 0.1  # relative standard deviation at which the confidence is one half
UNMEASURED_SIGMA = (
    1.0  # relative standard deviation of a depth that is only inpainted, or has neither flow nor parallax
)
DECIDED_SIGMA = 0.2  # relative standard deviation below which a depth was decided by parallax or a sensor
MIN_DECIDED = 50  # decided pixels that can judge a prior ...
CLEARLY = 0.5  # ... whose errors must be less than this share of a constant's
LEAST_CONFIDENCE, MOST_CONFIDENCE = 1e-2, 0.9999  # that are told apart when a confidence becomes a sigma


@dataclass(frozen=True, eq=False)
class InvDepth:
    """Inverse z-depth of an image's pixels, or of its cells; nobody writes its tensors again."""

    value: Tensor  # (h, w) float32, 1 / map unit; 0 is unknown
    sigma: Tensor  # (h, w) float32 standard deviation of the value; without meaning where that is unknown

    @staticmethod
    def unknown(size: tuple[int, int], device: torch.device | None = None) -> "InvDepth":
        """Nothing known at (h, w); on the CPU, if no device is given."""
        return InvDepth(torch.zeros(size, device=device), torch.zeros(size, device=device))

    @staticmethod
    def from_confidence(value: Tensor, confidence: Tensor) -> "InvDepth":
        """Values (h, w) with the sigma that has this confidence (h, w), which is clamped."""
        c = confidence.clamp(LEAST_CONFIDENCE, MOST_CONFIDENCE)
        return InvDepth(value, HALF_CONFIDENT * value * (1 / c - 1).sqrt())

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.value.shape[-2], self.value.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the maps are."""
        return self.value.device

    def to(self, device: torch.device) -> "InvDepth":
        """The same on a device; itself if it is there."""
        return self if self.device == device else InvDepth(self.value.to(device), self.sigma.to(device))

    def on_host(self) -> "InvDepth":
        """The same on the CPU, for whoever writes or draws it."""
        return self.to(torch.device("cpu"))

    @property
    def known(self) -> Tensor:
        """(h, w) bool."""
        return self.value > 0

    def depth(self) -> Tensor:
        """(h, w) depth, map units; 0 where unknown."""
        return torch.where(self.known, 1 / self.value.clamp_min(1e-9), torch.zeros_like(self.value))

    @property
    def relative_sigma(self) -> Tensor:
        """(h, w) sigma over value: to first order also the relative standard deviation of the depth."""
        return self.sigma / self.value.clamp_min(1e-9)

    @property
    def decided(self) -> Tensor:
        """(h, w) bool: known by more than a guess."""
        return self.known & (self.sigma < DECIDED_SIGMA * self.value)

    @property
    def decided_share(self) -> float:
        """Of the pixels."""
        return float(self.decided.float().mean())

    @cached_property
    def confidence(self) -> Tensor:
        """(h, w) in [0, 1]: one half where the relative sigma is HALF_CONFIDENT, 0 where the value is unknown."""
        c = 1 / (1 + (self.sigma / (HALF_CONFIDENT * self.value).clamp_min(1e-9)).square())
        return torch.where(self.known, c, torch.zeros_like(c))

    def with_relative_sigma(self, relative: Tensor) -> "InvDepth":
        """The same values with another sigma, relative to them (h, w)."""
        return InvDepth(self.value, relative * self.value)

    def composited(self, measured: "InvDepth") -> "InvDepth":
        """Replaced by a measurement of the same size where that knows the depth."""
        return InvDepth(
            torch.where(measured.known, measured.value, self.value),
            torch.where(measured.known, measured.sigma, self.sigma),
        )

    def rescaled(self, scale_change: float) -> "InvDepth":
        """The same surface where all lengths are `scale_change` times as large."""
        return self if scale_change == 1.0 else InvDepth(self.value / scale_change, self.sigma / scale_change)

    def subsampled(self, step: int) -> "InvDepth":
        """Every `step`-th row and column, from the first."""
        return InvDepth(self.value[::step, ::step], self.sigma[::step, ::step])

    def upsampled(self, size: tuple[int, int]) -> "InvDepth":
        """Interpolated to (H, W), pixel centres as `geometry.camera` has them; every value should be known."""
        both = torch.stack([self.value, self.sigma])[None]
        value, sigma = torch.nn.functional.interpolate(both, size=size, mode="bilinear", align_corners=False)[0]
        return InvDepth(value, sigma)

    def warped(self, T_ji: Tensor, K: Tensor) -> "InvDepth":
        """This inverse depth of view i as view j sees it: forward warping with a depth buffer; 0 where nothing lands.

        Args:
            T_ji: (4, 4) view j from view i.
            K: (3, 3) intrinsics at this size.
        """
        uv, q, valid = reproject(self.value[None], T_ji[None], K[None])
        ratio = torch.where(valid & self.known, 1 / q[..., 2], torch.zeros_like(q[..., 2]))[0]
        value, sigma = splat_inv_depth(uv[0], self.value * ratio, self.sigma * ratio)  # the relative sigma stays
        return InvDepth(value, sigma)

    def smoothed(self) -> Tensor:
        """(h, w) smooth values everywhere, from known ones by their confidence."""
        return normalized_convolution(self.value, self.confidence)

    def inpainted(self, prior: "InvDepth | None" = None) -> "InvDepth":
        """Unknown values continued smoothly from the known ones, by the shape of a prior if there is one, as
        UNMEASURED_SIGMA."""
        if prior is not None:
            return self.fitted(prior).composited(self)
        smooth = self.smoothed()
        return InvDepth(smooth, UNMEASURED_SIGMA * smooth).composited(self)

    def fitted(self, prior: "InvDepth") -> "InvDepth":
        """A prior of the same size in the unit of this depth, multiplied by its smoothed ratio to what is known; as
        UNMEASURED_SIGMA, unless nothing is known. Where it is not clearly nearer to what is decided than a constant,
        that is taken instead.
        """
        if not self.known.any():
            return prior
        shape = prior.value if self.decided.sum() < MIN_DECIDED or self._is_nearer_to(prior.value) else 1.0
        value = normalized_convolution(self.value / shape, self.confidence) * shape
        return InvDepth(value, UNMEASURED_SIGMA * value)

    def _is_nearer_to(self, shape: Tensor) -> bool:
        """True if the decided values are clearly nearer to a shape (h, w), in any unit, than to a constant."""
        log_values = self.value[self.decided].log()
        log_ratios = log_values - shape[self.decided].log()
        ratios, values = ((x - x.median()).abs().mean() for x in (log_ratios, log_values))
        return bool(ratios < CLEARLY * values)


def normalized_convolution(value: Tensor, weight: Tensor, sigma: float = 2.0, floor: float = 1e-4) -> Tensor:
    """Values (h, w) > 0 smoothed by weights (h, w), continued where there is none: Gaussians of growing width, the
    wider the fainter.

    Reference: Knutsson & Westin, Normalized and differential convolution, CVPR 1993.
    """
    w = weight * (value > 0)
    mean = (value * w).sum() / w.sum().clamp_min(1e-12)
    numerator, denominator = floor * mean + torch.zeros_like(value), floor + torch.zeros_like(value)
    for level in range(5):
        blurred = _blur(torch.stack([value * w, w]), sigma * 2**level)
        numerator, denominator = numerator + blurred[0] * 0.1**level, denominator + blurred[1] * 0.1**level
    return numerator / denominator


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian of (C, H, W), zeros outside; as products of matrices, since wide convolutions are slow on a CPU."""
    rows, columns = (_gaussian(n, sigma, images.device) for n in images.shape[1:])
    return rows @ images @ columns


@lru_cache(maxsize=64)
def _gaussian(n: int, sigma: float, device: torch.device) -> Tensor:
    """(n, n) symmetric: a row for each sample of the output."""
    offset = torch.arange(n)[:, None] - torch.arange(n)[None]
    radius = int(3 * sigma)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= radius)
    return (kernel / torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2).sum()).to(device)

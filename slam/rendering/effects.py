"""What a real camera adds to a rendered image. Consistent within a clip, with small changes from view to view."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from slam.errors import ConfigError
from slam.rendering.jpeg import jpeg
from slam.rendering.viewpoints import uniform

KERNEL = 9  # pixels, side of the blur kernels


@dataclass(frozen=True)
class EffectsConfig:
    """Strengths; 0 switches an effect off. Chances are of a clip (all its views) having the effect."""

    exposure_stops: float = 0.7  # per clip, uniform in +-
    exposure_drift_stops: float = 0.12  # per view, standard deviation
    gamma: float = 0.25  # per clip, log uniform in +-
    white_balance: float = 0.12  # per clip, standard deviation of the log gains; a tenth of it per view
    gray_chance: float = 0.12  # no colour at all
    saturation: float = 0.5  # per clip, uniform in 1 +- this
    vignetting: float = 0.4  # per clip, up to this loss in the corners
    noise: float = 0.04  # largest standard deviation at mid gray; log uniform below
    motion_blur_px: float = 5.0  # longest streak at 256 columns
    motion_blur_chance: float = 0.3
    defocus_px: float = 1.2  # largest standard deviation
    defocus_chance: float = 0.3
    resample_chance: float = 0.25  # rendered smaller (down to half size) and upsampled
    jpeg_chance: float = 0.5
    jpeg_quality: tuple[float, float] = (35.0, 95.0)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            low = value[0] if isinstance(value, tuple) else value
            if low < 0 or (name.endswith("_chance") and low > 1):
                raise ConfigError(f"effects.{name} must be at least 0 (a chance at most 1), got {value}")

    def scaled(self, strength: float) -> "EffectsConfig":
        """The same effects weaker (0 .. 1), for a curriculum or mild sequences."""
        return replace(self, **{k: v * strength for k, v in vars(self).items() if not isinstance(v, tuple)})


class Effects:
    """Callable: clips of images in, clips of camera-like images out."""

    def __init__(self, config: EffectsConfig = EffectsConfig()) -> None:
        self.config = config

    def __call__(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """Apply all effects.

        Args:
            clips: (S, V, 3, H, W) RGB in [0, 1].
            generator: on any device; one number is drawn from it.

        Returns:
            (S, V, 3, H, W) in [0, 1], same device and dtype.
        """
        S, V, _, H, W = clips.shape
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        cpu = torch.Generator().manual_seed(seed)
        on_device = torch.Generator(clips.device).manual_seed(seed)
        image = self._optics(clips, cpu)
        image = self._sensor(image, cpu, on_device)
        return self._compression(image, cpu).clamp(0, 1)

    def _optics(self, clips: Tensor, rng: torch.Generator) -> Tensor:
        """Resampling, defocus, motion blur, vignetting."""
        c = self.config
        S, V, _, H, W = clips.shape
        image = clips.flatten(0, 1)
        smaller = uniform(rng, S, low=0.5, high=0.95)
        for s in (uniform(rng, S) < c.resample_chance).nonzero().flatten().tolist():
            size = (max(8, int(H * smaller[s])), max(8, int(W * smaller[s])))
            small = F.interpolate(clips[s], size, mode="bilinear", antialias=True, align_corners=False)
            image = image.clone()
            image[s * V : (s + 1) * V] = F.interpolate(small, (H, W), mode="bilinear", align_corners=False)
        sigma = uniform(rng, S, 1, low=0.3, high=1.0) * c.defocus_px * (uniform(rng, S, 1) < c.defocus_chance)
        angle = uniform(rng, S, 1, low=0, high=torch.pi) + 0.3 * torch.randn(S, V, generator=rng).double()
        length = uniform(rng, S, V) * c.motion_blur_px * W / 256 * (uniform(rng, S, 1) < c.motion_blur_chance)
        flat = (sigma.expand(S, V).flatten(), length.flatten(), angle.flatten())
        blurred = ((flat[0] > 0.25) | (flat[1] > 0.5)).nonzero().flatten()
        if len(blurred):
            kernels = streak_kernels(*(part[blurred] for part in flat)).to(image)
            rows = blurred.to(image.device)
            image = image.index_copy(0, rows, convolve(image[rows], kernels))
        y = torch.linspace(-1, 1, H, dtype=clips.dtype, device=clips.device)[:, None]
        x = torch.linspace(-1, 1, W, dtype=clips.dtype, device=clips.device)[None]
        loss = (c.vignetting * uniform(rng, S).square()).to(clips)[:, None, None]
        return image.view(clips.shape) * (1 - loss * (x * x + y * y) / 2)[:, None, None]

    def _sensor(self, image: Tensor, rng: torch.Generator, noise_rng: torch.Generator) -> Tensor:
        """Exposure, white balance, noise, gamma, saturation."""
        c = self.config
        S, V = image.shape[:2]
        stops = uniform(rng, S, 1, low=-1, high=1) * c.exposure_stops
        stops = stops + c.exposure_drift_stops * torch.randn(S, V, generator=rng).double()
        tint = torch.randn(S, 1, 3, generator=rng) + 0.1 * torch.randn(S, V, 3, generator=rng)
        gain = (stops[..., None] * torch.tensor(2.0).log() + c.white_balance * tint).exp()
        image = image * gain.to(image)[..., None, None]
        level = c.noise * uniform(rng, S).mul(-3.0).exp().to(image)[:, None, None, None, None]
        shot = (0.3 + 1.4 * image.clamp(0, 1)).sqrt()  # variance: a read part and one that grows with the light
        noise = torch.randn(image.shape, generator=noise_rng, dtype=image.dtype, device=image.device)
        image = (image + level * shot * noise).clamp(0, 1)
        gamma = (uniform(rng, S, low=-1, high=1) * c.gamma).exp().to(image)[:, None, None, None, None]
        image = image.clamp_min(1e-4) ** gamma
        saturation = 1 + c.saturation * uniform(rng, S, low=-1, high=1)
        saturation = torch.where(uniform(rng, S) < c.gray_chance, 0.0, saturation).to(image)
        gray = image.mean(2, keepdim=True)
        return (gray + saturation[:, None, None, None, None] * (image - gray)).clamp(0, 1)

    def _compression(self, image: Tensor, rng: torch.Generator) -> Tensor:
        low, high = self.config.jpeg_quality
        S, V = image.shape[:2]
        quality = uniform(rng, S, low=low, high=high)
        chosen = (uniform(rng, S) < self.config.jpeg_chance).nonzero().flatten()
        if not len(chosen):
            return image
        rows = chosen.to(image.device)
        packed = jpeg(image[rows].flatten(0, 1), quality[chosen].repeat_interleave(V))
        return image.index_copy(0, rows, packed.view(-1, *image.shape[1:]))


def streak_kernels(sigma: Tensor, length: Tensor, angle_rad: Tensor) -> Tensor:
    """(B, KERNEL, KERNEL) kernels of sum 1: a line of `length` pixels at an angle, softened by `sigma` pixels (B,)."""
    r = torch.arange(KERNEL, dtype=sigma.dtype, device=sigma.device) - KERNEL // 2
    y, x = torch.meshgrid(r, r, indexing="ij")
    cos, sin = angle_rad.cos()[:, None, None], angle_rad.sin()[:, None, None]
    along, aside = cos * x + sin * y, -sin * x + cos * y
    soft = sigma.clamp_min(0.35)[:, None, None]
    beyond = (along.abs() - 0.5 * length[:, None, None]).clamp_min(0)
    kernel = torch.exp(-0.5 * (beyond.square() + aside.square()) / soft.square())
    return kernel / kernel.sum((1, 2), keepdim=True)


def convolve(image: Tensor, kernels: Tensor) -> Tensor:
    """Each image (B, 3, H, W) with its own kernel (B, k, k), edges repeated."""
    B, C, H, W = image.shape
    k = kernels.shape[-1]
    padded = F.pad(image, (k // 2,) * 4, mode="replicate").view(1, B * C, H + k - 1, W + k - 1)
    weight = kernels[:, None].expand(-1, C, -1, -1).reshape(B * C, 1, k, k)
    return F.conv2d(padded, weight, groups=B * C).view(B, C, H, W)

"""The texture atlas: every pattern at every mip level in one flat buffer, sampled trilinearly."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from slam.rendering.patterns import PATTERNS

ATLAS_SEED = 2019
ATLAS_SIZE = 256  # texels along a side of level 0


@dataclass(frozen=True)
class Atlas:
    """Textures with their mip levels.

    texels: (T * M, 3) float32; texture `i` starts at row `i * M`, level `l` of it at `starts[l]`, rows from top left.
    names: pattern of each texture.
    """

    texels: Tensor
    starts: Tensor  # (L,) int64
    size: int
    names: tuple[str, ...]

    @property
    def levels(self) -> int:
        """Number of mip levels; the last is one texel."""
        return len(self.starts)

    @property
    def per_texture(self) -> int:
        """Texels of one texture over all levels."""
        return len(self.texels) // len(self.names)

    def indices(self, name: str) -> list[int]:
        """The textures made by one pattern."""
        return [i for i, n in enumerate(self.names) if n == name]

    def level(self, index: int) -> Tensor:
        """(T, 3, S, S) all textures at one level."""
        side = self.size >> index
        start = int(self.starts[index])
        rows = self.texels.view(len(self.names), self.per_texture, 3)[:, start : start + side * side]
        return rows.reshape(-1, side, side, 3).permute(0, 3, 1, 2)

    def to(self, device: torch.device | str) -> "Atlas":
        """The same atlas on another device."""
        if self.texels.device == torch.device(device):
            return self
        return Atlas(self.texels.to(device), self.starts.to(device), self.size, self.names)


def build_atlas(images: np.ndarray, names: tuple[str, ...]) -> Atlas:
    """Atlas of square images (T, S, S, 3) float in [0, 1], S a power of two; levels by 2x2 means."""
    count, size = images.shape[:2]
    if size & (size - 1) or images.shape[2] != size or len(names) != count:
        raise ValueError(f"need one name a texture and square sides of a power of two, got {images.shape}")
    level = images.astype(np.float32)
    rows: list[np.ndarray] = []
    starts: list[int] = []
    while True:
        starts.append(sum(r.shape[1] for r in rows))
        rows.append(level.reshape(count, -1, 3))
        if level.shape[1] == 1:
            break
        level = 0.25 * (level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2])
    texels = torch.from_numpy(np.concatenate(rows, 1).reshape(-1, 3).copy())
    return Atlas(texels, torch.tensor(starts), size, names)


@lru_cache(maxsize=2)
def _default_on_cpu(seed: int, size: int) -> Atlas:
    rng = np.random.default_rng(seed)
    names = tuple(name for name, (_, count) in PATTERNS.items() for _ in range(count))
    images = np.stack([np.clip(PATTERNS[name][0](rng, size), 0, 1) for name in names])
    return build_atlas(images, names)


@lru_cache(maxsize=8)
def default_atlas(device: str = "cpu", seed: int = ATLAS_SEED, size: int = ATLAS_SIZE) -> Atlas:
    """The atlas of all patterns; made once a process and device."""
    return _default_on_cpu(seed, size).to(device)


def sample(atlas: Atlas, index: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    """Trilinear lookup with repetition.

    Args:
        index: (N,) int64 texture.
        u, v: (N,) in repeats of the texture (1 = once across); texel 0 is centred at 0.5 / S.
        level: (N,) float mip level, log2 of the texels that one pixel covers; clamped.

    Returns:
        (3, N) colours.
    """
    level = level.clamp(0, atlas.levels - 1)
    low = level.floor()
    weight = level - low
    low = low.long()
    high = (low + 1).clamp_max(atlas.levels - 1)
    base = index * atlas.per_texture
    near = _bilinear(atlas, base, u, v, low)
    return torch.lerp(near, _bilinear(atlas, base, u, v, high), weight)


def _bilinear(atlas: Atlas, base: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    side = torch.bitwise_right_shift(torch.full_like(level, atlas.size), level)
    base = base + atlas.starts[level]
    x, y = u * side - 0.5, v * side - 0.5
    x0, y0 = x.floor(), y.floor()
    wx, wy = x - x0, y - y0
    mask = side - 1  # sides are powers of two: repetition is a bit mask, also for negative numbers
    x0, y0 = x0.long(), y0.long()
    left, right = x0 & mask, (x0 + 1) & mask
    top, bottom = base + (y0 & mask) * side, base + ((y0 + 1) & mask) * side
    c00, c01 = atlas.texels[top + left].T, atlas.texels[top + right].T
    c10, c11 = atlas.texels[bottom + left].T, atlas.texels[bottom + right].T
    return torch.lerp(torch.lerp(c00, c01, wx), torch.lerp(c10, c11, wx), wy)

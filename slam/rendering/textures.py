"""The texture atlas: every pattern at every mip level in one flat buffer, sampled trilinearly."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from slam.rendering.patterns import PATTERNS

ATLAS_SEED = 2019
ATLAS_SIZE = 256  # texels along a side of level 0


@dataclass(frozen=True, eq=False)
class Atlas:
    """Textures with their mip levels.

    quads: (T * M, 12) uint8; texture `i` starts at row `i * M`, level `l` of it at `starts[l]`, rows from top left. A
        row holds the colours of a texel, of its neighbours to the right, below, and below right: one read interpolates.
    names: pattern of each texture.
    """

    quads: Tensor
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
        return len(self.quads) // len(self.names)

    def indices(self, name: str) -> list[int]:
        """The textures made by one pattern."""
        return [i for i, n in enumerate(self.names) if n == name]

    def level(self, index: int) -> Tensor:
        """(T, 3, S, S) float32 in [0, 1], all textures at one level."""
        side = self.size >> index
        start = int(self.starts[index])
        rows = self.quads.view(len(self.names), self.per_texture, 12)[:, start : start + side * side, :3]
        return rows.reshape(-1, side, side, 3).permute(0, 3, 1, 2) / 255

    def to(self, device: torch.device | str) -> "Atlas":
        """The same atlas on another device."""
        if self.quads.device == torch.device(device):
            return self
        return Atlas(self.quads.to(device), self.starts.to(device), self.size, self.names)


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
        texel = np.round(255 * level).astype(np.uint8)
        right, below = np.roll(texel, -1, 2), np.roll(texel, -1, 1)
        quad = np.concatenate([texel, right, below, np.roll(right, -1, 1)], -1)
        rows.append(quad.reshape(count, -1, 12))
        if level.shape[1] == 1:
            break
        level = 0.25 * (level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2])
    quads = torch.from_numpy(np.concatenate(rows, 1).reshape(-1, 12))
    return Atlas(quads, torch.tensor(starts), size, names)


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


def sample(atlas: Atlas, index: Tensor, u: Tensor, v: Tensor, level: Tensor) -> list[Tensor]:
    """Trilinear lookup with repetition.

    Args:
        index: (...) int64 texture.
        u, v: (...) in repeats of the texture (1 = once across); texel 0 is centred at 0.5 / S.
        level: (...) float mip level, log2 of the texels that one pixel covers; clamped.

    Returns:
        red, green and blue (...).
    """
    level = level.clamp(0, atlas.levels - 1)
    low = level.floor()
    weight = level - low
    low = low.long()
    base = index * atlas.per_texture
    near = _bilinear(atlas, base, u, v, low)
    far = _bilinear(atlas, base, u, v, (low + 1).clamp_max_(atlas.levels - 1))
    mixed = torch.lerp(near, far, weight.unsqueeze(-1))
    return [c.contiguous() for c in mixed.unbind(-1)]


def _bilinear(atlas: Atlas, base: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    """(..., 3) from one level of each texture."""
    side = torch.bitwise_right_shift(atlas.size, level)
    x, y = u * side - 0.5, v * side - 0.5
    x0, y0 = x.floor(), y.floor()
    wx, wy = (x - x0).unsqueeze(-1), (y - y0).unsqueeze(-1)
    mask = side - 1  # sides are powers of two: repetition is a bit mask, also for negative numbers
    row = base + atlas.starts[level] + (y0.long() & mask) * side + (x0.long() & mask)
    quad = atlas.quads.index_select(0, row.flatten()).view(*row.shape, 12).float().div_(255)
    top = torch.lerp(quad[..., 0:3], quad[..., 3:6], wx)
    return torch.lerp(top, torch.lerp(quad[..., 6:9], quad[..., 9:12], wx), wy)

"""Clips with exact poses and depth, and the pool that training draws them from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from slam.errors import SourceError

log = logging.getLogger(__name__)

INV_DEPTH_SCALE = 8192.0  # inverse depth is stored as int16 steps of 1/8192 (nearest depth 0.25 units)
MAX_INV_DEPTH = 32767 / INV_DEPTH_SCALE


@dataclass(frozen=True)
class Clip:
    """A few views of one scene, packed: about 1.5 MB for 6 views of 256x192."""

    images: Tensor  # (V, 3, H, W) uint8 RGB
    inv_depth_q: Tensor  # (V, H, W) int16, inverse z-depth times INV_DEPTH_SCALE; 0 unknown
    T_wc: Tensor  # (V, 4, 4) float64
    K: Tensor  # (3, 3) float64

    @property
    def inv_depth(self) -> Tensor:
        """(V, H, W) float32 inverse z-depth; 0 unknown."""
        return self.inv_depth_q.float() / INV_DEPTH_SCALE

    @staticmethod
    def pack(images: Tensor, depth: Tensor, T_wc: Tensor, K: Tensor) -> "Clip":
        """Pictures (V, 3, H, W) in [0, 1], depth (V, H, W) with 0 unknown, poses, intrinsics -> clip on the CPU."""
        known = torch.isfinite(depth) & (depth > 0)
        inv_depth = torch.where(known, 1 / depth.clamp_min(1e-6), torch.zeros_like(depth))
        quantised = (inv_depth.clamp(max=MAX_INV_DEPTH) * INV_DEPTH_SCALE).round().to(torch.int16)
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return Clip(pixels.cpu(), quantised.cpu(), T_wc.double().cpu(), K.double().cpu())


ClipMaker = Callable[[torch.Generator], list[Clip]]  # everything random comes from the generator


class ClipPool:
    """At most `capacity` clips in memory; the newest replaces the oldest. With a folder they outlive the process."""

    def __init__(self, capacity: int, folder: Path | None = None) -> None:
        self.capacity = capacity
        self.folder = folder
        self.clips: list[Clip] = []
        self.added = 0  # clips ever added
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            newest = sorted(int(path.stem) for path in folder.glob("*.safetensors"))[-capacity:]
            for number in sorted(newest, key=lambda n: n % capacity):
                self.clips.append(_read(folder / f"{number}.safetensors"))
            self.added = newest[-1] + 1 if newest else 0

    def __len__(self) -> int:
        return len(self.clips)

    def add(self, clip: Clip) -> None:
        """Put a clip into the pool, and into its folder."""
        number = self.added
        self.added += 1
        if len(self.clips) < self.capacity:
            self.clips.append(clip)
        else:
            self.clips[number % self.capacity] = clip
        if self.folder is None:
            return
        path = self.folder / f"{number}.safetensors"
        partial = path.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in vars(clip).items()}, str(partial))
        partial.replace(path)
        (self.folder / f"{number - self.capacity}.safetensors").unlink(missing_ok=True)

    def draw(self, count: int, generator: torch.Generator) -> list[Clip]:
        """`count` clips at random, with repetition."""
        return [self.clips[i] for i in torch.randint(len(self.clips), (count,), generator=generator).tolist()]


def _read(path: Path) -> Clip:
    try:
        return Clip(**load_file(str(path)))
    except (SafetensorError, TypeError) as error:
        raise SourceError(f"{path} is no training clip ({error}); delete it") from error


def fill(pool: ClipPool, count: int, make: Callable[[], list[Clip]]) -> None:
    """Add clips from `make` until the pool holds `count`."""
    while len(pool) < count:
        for clip in make():
            pool.add(clip)
        if len(pool) % 16 == 0:
            log.info("clips: %d of %d", len(pool), count)

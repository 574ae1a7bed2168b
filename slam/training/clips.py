"""Clips with exact poses and depth, and the pool that training draws them from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slam.errors import SourceError
from slam.io.tensor_file import read_tensors, write_tensors

log = logging.getLogger(__name__)

INV_DEPTH_SCALE = 8192.0  # inverse depth is stored as int16 steps of 1/8192 (nearest depth 0.25 units)
MAX_INV_DEPTH = 32767 / INV_DEPTH_SCALE


@dataclass(frozen=True, eq=False)
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
        """Images (V, 3, H, W) in [0, 1], depth (V, H, W) with 0 unknown, poses, intrinsics -> clip on the CPU."""
        known = torch.isfinite(depth) & (depth > 0)
        inv_depth = torch.where(known, 1 / depth.clamp_min(1e-6), torch.zeros_like(depth))
        quantised = (inv_depth.clamp(max=MAX_INV_DEPTH) * INV_DEPTH_SCALE).round().to(torch.int16)
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return Clip(pixels.cpu(), quantised.cpu(), T_wc.double().cpu(), K.double().cpu())


ClipMaker = Callable[[torch.Generator], list[Clip]]  # everything random comes from the generator


class ClipPool:
    """The newest `capacity` clips, numbered from 0 as they come. With a folder they outlive the process."""

    def __init__(self, capacity: int, folder: Path | None = None) -> None:
        self.capacity = capacity
        self.folder = folder
        self.held: dict[int, Clip] = {}  # by number
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for number in sorted(int(path.stem) for path in folder.glob("*.safetensors"))[-capacity:]:
                self.held[number] = _read(folder / f"{number}.safetensors")
        self.added = max(self.held, default=-1) + 1  # clips ever added

    def __len__(self) -> int:
        return len(self.held)

    @property
    def clips(self) -> list[Clip]:
        """By number."""
        return [self.held[number] for number in sorted(self.held)]

    def add(self, clip: Clip) -> None:
        """Put a new clip into the pool and its folder; the oldest goes."""
        self.put(self.added, clip)
        self.added += 1
        self.remove(self.added - 1 - self.capacity)

    def put(self, number: int, clip: Clip) -> None:
        """Put a clip of this number into the pool and its folder."""
        self.held[number] = clip
        if self.folder is not None:
            write_tensors(self.folder / f"{number}.safetensors", vars(clip))

    def remove(self, number: int) -> None:
        """Forget a clip, if it is there."""
        self.held.pop(number, None)
        if self.folder is not None:
            (self.folder / f"{number}.safetensors").unlink(missing_ok=True)

    def rewind(self, added: int) -> None:
        """Go back, or forth, to when `added` clips had been added: later ones go, `missing` ones are to be put."""
        self.added = added
        for number in [n for n in self.held if not added - self.capacity <= n < added]:
            self.remove(number)

    def missing(self) -> list[int]:
        """Numbers of the clips that the pool should hold and does not."""
        return [n for n in range(max(0, self.added - self.capacity), self.added) if n not in self.held]

    def draw(self, count: int, generator: torch.Generator) -> list[Clip]:
        """`count` clips at random, with repetition."""
        numbers = sorted(self.held)
        return [self.held[numbers[i]] for i in torch.randint(len(numbers), (count,), generator=generator).tolist()]


def _read(path: Path) -> Clip:
    try:
        return Clip(**read_tensors(path))
    except (ValueError, TypeError) as error:
        raise SourceError(f"{path} is no training clip ({error}); delete it") from error


def fill(
    pool: ClipPool, count: int, make: Callable[[int], list[Clip]], stop: Callable[[], bool] = lambda: False
) -> None:
    """Make the missing clips again, then new ones until the pool holds `count` or `stop` says so.

    Args:
        make: gives the clip of a number, always the same.
    """
    missing = pool.missing()
    wanted = max(count, len(pool) + len(missing))
    for number in missing:
        if stop():
            return
        pool.put(number, make(number)[0])
        _tell(pool, wanted)
    while len(pool) < count and not stop():
        for clip in make(pool.added):
            pool.add(clip)
        _tell(pool, wanted)


def _tell(pool: ClipPool, count: int) -> None:
    if len(pool) % 16 == 0:
        log.info("clips: %d of %d", len(pool), count)

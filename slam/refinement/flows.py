"""Measured flow between the frames of a clip, both ways, with a check of one way against the other; kept in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from slam.errors import SourceError
from slam.frames import Image
from slam.geometry.camera import pixel_grid, sample, scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.io.tensor_file import read_header, read_tensors, write_tensors
from slam.matching.correspondence import Correspondence
from slam.matching.matcher import Shown
from slam.refinement.clip import Clip
from slam.threads import Helpers

MIN_OVERLAP = 0.2  # share of a frame's cells that the other one sees
MAX_MISMATCH_PX = 1.0  # between the way to the other frame and back, pixels of the network size
MIN_MATCHED = 0.2  # share of the cells that pass, both ways, for a pair to count
CHUNK = 64  # pairs a job of one thread


@dataclass(frozen=True, eq=False)
class Flows:
    """Where the cells of frame i are seen in frame j, for E directed pairs; they are measured both ways."""

    index: Tensor  # (E, 2) int64 frames i and j
    displacement: Tensor  # (E, h, w, 2) float16, cells
    confidence: Tensor  # (E, h, w, 2) float16 in [0, 1], of u and v
    mutual: Tensor  # (E, h, w) bool: there and back ends where it began, so both frames see it

    def __len__(self) -> int:
        return len(self.index)

    def uv(self, edges: Tensor) -> Tensor:
        """(B, h, w, 2) float32 positions in frame j, cells, of the chosen pairs (B,)."""
        shift = self.displacement[edges].float()
        h, w = shift.shape[1:3]
        return shift + pixel_grid(h, w, like=shift)

    def to(self, device: torch.device) -> "Flows":
        """The same on a device, the frame numbers stay on the host."""
        maps = (x.to(device) for x in (self.displacement, self.confidence, self.mutual))
        return Flows(self.index, *maps)

    def chosen(self, edges: Tensor) -> "Flows":
        """Some of the pairs, (B,) int64 or (E,) bool."""
        return Flows(self.index[edges], *(x[edges] for x in (self.displacement, self.confidence, self.mutual)))

    def save(self, path: Path, key: str) -> None:
        """Write a file; `key` says what was measured.

        Raises:
            OutputError: if it cannot be written.
        """
        write_tensors(path, vars(self), {"key": key})

    @staticmethod
    def load(path: Path, key: str) -> "Flows | None":
        """What was saved; None if there is none, or it was measured on something else."""
        if not path.is_file():
            return None
        try:
            return Flows(**read_tensors(path)) if read_header(path)[0].get("key") == key else None
        except (ValueError, TypeError, OSError) as error:
            raise SourceError(f"{path} is no file of flows ({error}); delete it") from error


def mismatch(uv_ij: Tensor, uv_ji: Tensor) -> Tensor:
    """(E, h, w) distance from each pixel of i to where the flow to j and back ends; infinite outside of j.

    Args:
        uv_ij, uv_ji: (E, h, w, 2) positions in the other frame, pixels of this size.
    """
    h, w = uv_ij.shape[1:3]
    back = sample(uv_ji.permute(0, 3, 1, 2), uv_ij, padding="border").permute(0, 2, 3, 1)
    distance = (back - pixel_grid(h, w, like=back)).norm(dim=-1)
    return torch.where(in_image(uv_ij, h, w), distance, torch.inf)


def measured_flows(
    clip: Clip,
    inv_depth: Tensor,
    pairs: Sequence[tuple[int, int]],
    correspondence: Correspondence,
    helpers: Helpers,
    stop: Callable[[], bool] = lambda: False,
) -> Flows:
    """Measure pairs that overlap, both ways.

    Args:
        inv_depth: (N, h, w) > 0 at the cells of the correspondence, from which the search begins.
        stop: what is not measured by then is left out.
    """
    K = scaled_intrinsics(clip.K, 1 / correspondence.stride)

    def measure(chunk: Sequence[tuple[int, int]]) -> list[tuple[tuple[int, int], Tensor, Tensor]]:
        """Frames, uv (2, h, w, 2) and confidence (2, h, w, 2), of those that overlap."""
        found = []
        for pair in chunk:
            if stop():
                break
            i, j = (torch.tensor(x) for x in (pair, pair[::-1]))
            start, _, valid = reproject(inv_depth[i], clip.motion(i, j), K.expand(2, 3, 3))
            if float((valid & in_image(start, *inv_depth.shape[1:])).float().mean((1, 2)).min()) >= MIN_OVERLAP:
                found.append((pair, *_matched([clip.views[n].image for n in pair], start, correspondence)))
        return found

    chunks = [pairs[n : n + CHUNK] for n in range(0, len(pairs), CHUNK)]
    found = [each for part in helpers.map(measure, chunks) for each in part]
    return _mutual(found, (inv_depth.shape[1], inv_depth.shape[2]), correspondence.stride)


def _matched(images: Sequence[Image], start: Tensor, correspondence: Correspondence) -> tuple[Tensor, Tensor]:
    """Positions (2, h, w, 2) and their confidence (2, h, w, 2) of a pair, there and back."""
    a, b = correspondence.encode(images)
    state, uv = correspondence.start([a, b], [b, a]), start
    weight = torch.ones_like(start)
    for _ in range(correspondence.max_updates):
        state, residual, weight = correspondence.update(state, uv)
        uv = uv + residual
    for n, pair in enumerate((images, images[::-1])):
        shown = Shown.of(pair[0], pair[1], correspondence.stride)
        if shown is not None:
            weight = weight.clone()
            weight[n] *= shown.in_both(uv[n : n + 1])[0, ..., None]
    return uv.cpu(), weight[..., :2].cpu()


def _mutual(found: Sequence[tuple[tuple[int, int], Tensor, Tensor]], size: tuple[int, int], stride: int) -> Flows:
    """The flows of pairs that match well enough both ways."""
    good: list[tuple[tuple[int, int], Tensor, Tensor, Tensor]] = []
    for pair, uv, confidence in found:
        mutual = mismatch(uv, uv.flip(0)) * stride < MAX_MISMATCH_PX
        if float(mutual.float().mean((1, 2)).min()) >= MIN_MATCHED:
            displacement = (uv - pixel_grid(*size, like=uv)).half()
            good.append((pair, displacement, confidence.half(), mutual))
    index = torch.tensor([pair for pair, *_ in good], dtype=torch.int64).view(-1, 2)
    if not good:
        none = torch.zeros(0, *size)
        both = none[..., None].expand(-1, -1, -1, 2).half()
        return Flows(index, both, both, none.bool())
    maps = [torch.stack(each, 1).flatten(0, 1) for each in list(zip(*good))[1:]]
    return Flows(torch.cat([index, index.flip(1)]), *maps)

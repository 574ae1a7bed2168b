"""The keyframe graph: the backend's own keyframes and the flows between them.

One owner, the backend's thread, hands it to the adjustment, the stereo and the loop search; nobody else writes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from slam.frames import Keyframe, Recalibration
from slam.geometry import se3
from slam.geometry.camera import sample, scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.mapping.recalibration import cells_of_pixels, origin_of_cells, pixels_of_cells, recalibrated, recalibrated_by
from slam.mapping.transforms import carried_along

SUBSAMPLING = 2  # the whole map is adjusted on every second row and column of the cells

Pair = tuple[int, int]  # ids of the keyframes that a flow leads from and to


@dataclass(frozen=True, eq=False)
class Edge:
    """The flow from one keyframe to another."""

    target_uv: Tensor  # (hc, wc, 2) cells
    weight: Tensor  # (hc, wc, 3) of u and v, and what couples them

    def subsampled(self) -> "Edge":
        """Every SUBSAMPLING-th row and column, in the cells of that coarser grid."""
        kept = slice(None, None, SUBSAMPLING)
        return Edge((self.target_uv[kept, kept] / SUBSAMPLING).contiguous(), self.weight[kept, kept].contiguous())

    def recalibrated(self, change: Recalibration, stride: int, step: int = 1) -> "Edge":
        """The flow between the views of a camera after a change that moves their pixels; `stride` of a cell, of which
        it has every `step`-th."""
        hc, wc = self.weight.shape[:2]
        origin = origin_of_cells(change, (hc, wc), stride, step).to(self.target_uv)[None]
        both = torch.cat([self.target_uv, self.weight], -1).permute(2, 0, 1)
        target, weight = sample(both[None], origin, padding="border")[0].permute(1, 2, 0).tensor_split([2], -1)
        moved = cells_of_pixels(change.moved(pixels_of_cells(target.double(), stride, step)), stride, step).to(target)
        usable = in_image(origin[0], hc, wc, -0.5) & in_image(moved, hc, wc, -max(hc, wc))  # far out no lens is known
        return Edge(torch.where(usable[..., None], moved, 0.0).contiguous(), (weight * usable[..., None]).contiguous())


class KeyframeGraph:
    """Keyframes as the backend knows them now, the flows of the last window, and the subsampled flows of all others."""

    def __init__(self) -> None:
        self._keyframes: dict[int, Keyframe] = {}
        self._window: dict[Pair, Edge | None] = {}  # None: matched without success
        self._subsampled: dict[Pair, Edge] = {}
        self._changes: list[Recalibration] = []

    def __len__(self) -> int:
        return len(self._keyframes)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._keyframes

    def __getitem__(self, keyframe_id: int) -> Keyframe:
        return self._keyframes[keyframe_id]

    @property
    def keyframes(self) -> list[Keyframe]:
        """All of them, oldest first."""
        return [self._keyframes[n] for n in self.ids]

    @property
    def ids(self) -> list[int]:
        """Of all of them, oldest first."""
        return sorted(self._keyframes)

    @property
    def by_id(self) -> Mapping[int, Keyframe]:
        """All of them as they are at any time, to look at."""
        return MappingProxyType(self._keyframes)

    def chain(self, keyframe_id: int, length: int) -> tuple[Keyframe, ...]:
        """A keyframe and those that it was tracked from, at most so many, itself last."""
        found: list[Keyframe] = []
        while keyframe_id in self._keyframes and len(found) < length:
            found.append(self._keyframes[keyframe_id])
            keyframe_id = found[-1].parent_id
        return tuple(reversed(found))

    def put(self, keyframes: Iterable[Keyframe]) -> None:
        """Take over keyframes, new ones and new states of known ones."""
        self._keyframes |= {k.id: k for k in keyframes}

    def brought_up_to_date(self, window: tuple[Keyframe, ...]) -> tuple[Keyframe, ...]:
        """The window with what earlier jobs found: it may have been copied before their results were applied."""
        current: list[Keyframe] = []
        for n, keyframe in enumerate(map(self.recalibrated, window)):
            if keyframe.id in self._keyframes:
                current.append(self._keyframes[keyframe.id])
            else:
                current.append(carried_along(keyframe, window[n - 1], current[n - 1]) if n else keyframe)
        return tuple(current)

    def forget(self, oldest_id: int, active: frozenset[int] | None, stride: int) -> None:
        """Drop what left the map, and of what left the window all but subsampled flows. What a keyframe that leaves
        held together is tied by what the map says then: a flow between them as their poses and depths have it.

        Args:
            oldest_id: first keyframe of the window.
            active: ids of all keyframes in the map; None: not told.
            stride: pixels of a cell.
        """
        for pair in [pair for pair in self._window if min(pair) < oldest_id]:
            edge = self._window.pop(pair)
            if edge is not None and (active is None or active.issuperset(pair)):
                self.connect_subsampled(pair, edge.subsampled())
        for n in sorted(set() if active is None else self._keyframes.keys() - active):
            self._hand_on(n, stride)
            del self._keyframes[n]
            self._subsampled = {pair: edge for pair, edge in self._subsampled.items() if n not in pair}

    def _hand_on(self, keyframe_id: int, stride: int) -> None:
        """Tie the keyframes before one that leaves to those after it, each to as many as it was tied to."""
        tied = [first for first, second in self._subsampled if second == keyframe_id and first in self._keyframes]
        before = sorted((n for n in tied if n < keyframe_id), reverse=True)
        after = sorted(n for n in tied if n > keyframe_id)
        reach = max(len(before), len(after))
        near = [(a, b) for i, a in enumerate(before) for b in after[: reach - i]]
        for pair in near + [(b, a) for a, b in near]:
            if pair not in self._subsampled and pair not in self._window:
                weight = self._subsampled[pair[0], keyframe_id].weight
                self._subsampled[pair] = _as_mapped(self[pair[0]], self[pair[1]], weight, stride)

    def recalibrated(self, keyframe: Keyframe) -> Keyframe:
        """A keyframe of the camera as it is known now, that may have been made before."""
        return recalibrated_by(keyframe, self._changes)

    def recalibrate(self, change: Recalibration, stride: int) -> None:
        """All keyframes and flows as the camera after a change has them; those that come yet, too."""
        self._changes.append(change)
        self._keyframes = {n: recalibrated(k, change) for n, k in self._keyframes.items()}
        if change.is_warp:
            self._window = {
                pair: None if edge is None else edge.recalibrated(change, stride) for pair, edge in self._window.items()
            }
            self._subsampled = {
                pair: edge.recalibrated(change, stride, SUBSAMPLING) for pair, edge in self._subsampled.items()
            }

    def is_matched(self, pair: Pair) -> bool:
        """True if the flow of a pair in the window was asked for already."""
        return pair in self._window

    def edge(self, pair: Pair) -> Edge | None:
        """The flow of a pair in the window; None if it could not be found."""
        return self._window[pair]

    def connect(self, pair: Pair, edge: Edge | None) -> None:
        """Remember the flow of a pair in the window, or that there is none."""
        self._window[pair] = edge

    def connect_subsampled(self, pair: Pair, edge: Edge) -> None:
        """Remember the flow of a pair on the coarser grid."""
        self._subsampled[pair] = edge

    def subsampled_edges(self) -> dict[Pair, Edge]:
        """All known flows on the coarser grid."""
        recent = {pair: edge.subsampled() for pair, edge in self._window.items() if edge is not None}
        return self._subsampled | recent


def cell_intrinsics(K: Tensor, stride: int, step: int) -> Tensor:
    """Intrinsics (3, 3) of images -> of the grid that has every `step`-th of their cells; row 0 and column 0 stay."""
    K_cells = scaled_intrinsics(K, 1 / stride)
    K_cells[:2] /= step
    return K_cells


def _as_mapped(k: Keyframe, other: Keyframe, weight: Tensor, stride: int) -> Edge:
    """The flow between two keyframes by their poses and depths, subsampled; of half a weight (hc, wc, 3), as of two
    flows one after the other."""
    K = cell_intrinsics(k.view.K, stride, SUBSAMPLING)
    inv_depth = k.coarse.subsampled(SUBSAMPLING).value
    uv, _, valid = reproject(inv_depth[None], (se3.inverse(other.T_wc) @ k.T_wc)[None], K[None])
    height, width = inv_depth.shape
    usable = valid[0] & in_image(uv[0], height, width, -max(height, width))
    return Edge(torch.where(usable[..., None], uv[0], 0.0), 0.5 * weight * usable[..., None])


def linked(pairs: Iterable[Pair]) -> list[set[int]]:
    """The ids of the pairs, those together that chains of pairs link."""
    parts: list[set[int]] = []
    for pair in pairs:
        touched = [part for part in parts if not part.isdisjoint(pair)]
        parts = [part for part in parts if part.isdisjoint(pair)] + [set(pair).union(*touched)]
    return parts

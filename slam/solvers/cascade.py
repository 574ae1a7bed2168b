"""Two correspondences in turn: one that finds large motions, then one that measures them to a fraction of a pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CascadeFeatures:
    """Features of one picture for both correspondences."""

    coarse: Any
    fine: Any


@dataclass(frozen=True)
class CascadeState:
    """State of both, and the number of updates so far."""

    coarse: Any
    fine: Any
    updates: int = 0


class Cascade:
    """A correspondence of the fine one's stride: its first updates come from the coarse one, the later from the fine.

    The fine one then starts at the pose that the coarse one led to, so the caller's iterations must be more than
    `coarse_updates`. The strides are a multiple of each other.
    """

    def __init__(self, coarse: Any, fine: Any, coarse_updates: int = 3) -> None:
        if coarse.stride % fine.stride:
            raise ValueError(f"the coarse stride {coarse.stride} must be a multiple of the fine {fine.stride}")
        self.coarse = coarse
        self.fine = fine
        self.coarse_updates = coarse_updates
        self.stride = fine.stride

    def encode(self, images: Tensor) -> list[CascadeFeatures]:
        """Pictures (N, 3, H, W) float RGB in [0, 1] -> features of each."""
        return [CascadeFeatures(a, b) for a, b in zip(self.coarse.encode(images), self.fine.encode(images))]

    def start(self, features_i: Sequence[CascadeFeatures], features_j: Sequence[CascadeFeatures]) -> CascadeState:
        """State of the edges (i, j), one for each pair of the two lists."""
        coarse = self.coarse.start([f.coarse for f in features_i], [f.coarse for f in features_j])
        fine = self.fine.start([f.fine for f in features_i], [f.fine for f in features_j])
        return CascadeState(coarse, fine)

    def update(self, state: CascadeState, uv: Tensor) -> tuple[CascadeState, Tensor, Tensor]:
        """As the update of the one whose turn it is, at the fine stride: uv (E, h, w, 2) cells of that."""
        if state.updates >= self.coarse_updates:
            fine, residual_uv, weight = self.fine.update(state.fine, uv)
            return replace(state, fine=fine, updates=state.updates + 1), residual_uv, weight
        factor = self.coarse.stride // self.stride
        pooled = F.avg_pool2d(uv.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
        coarse, residual_uv, weight = self.coarse.update(state.coarse, (pooled + 0.5) / factor - 0.5)
        both = torch.cat([residual_uv * factor, weight], -1).permute(0, 3, 1, 2)
        both = F.interpolate(both, uv.shape[1:3], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        state = replace(state, coarse=coarse, updates=state.updates + 1)
        return state, both[..., :2].to(uv), both[..., 2:].to(uv)

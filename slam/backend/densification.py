"""Dense depth of the map's keyframes by stereo, where no sensor measured it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from slam.backend.config import BackendConfig
from slam.frames import Keyframe
from slam.geometry import se3
from slam.geometry.camera import sample
from slam.geometry.flow import reproject
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.mapping.sensor import measured_dense
from slam.stereo.stereo import Stereo

MEASURED_RATIO = 0.9  # of the pixels with sensor depth, from which on stereo is left out
MIN_PARALLAX_PX = 1.0  # at the median depth, by the farthest neighbour: with less, stereo repeats what it was told
MOVING = 0.5  # of how far a cell stands still: below it, what it shows is no part of the map
AHEAD = 2  # later keyframes that a keyframe waits for, so that it has neighbours on both sides


class Densification:
    """Stereo of each keyframe once, when it has its neighbours; it holds no state of its own."""

    def __init__(self, stereo: Stereo, config: BackendConfig = BackendConfig()) -> None:
        self.stereo = stereo
        self.config = config

    def densify(self, chain: tuple[Keyframe, ...], ends: bool = False) -> list[Keyframe]:
        """Those keyframes of a chain that have their neighbours and no dense depth yet, with it: as measured, else by
        stereo.

        Args:
            ends: also those at its end, with the neighbours before them.
        """
        count = len(chain) if ends else len(chain) - AHEAD
        return self._densified([n for n in range(count) if is_wanting(chain[n])], chain)

    def densify_newest(self, chain: tuple[Keyframe, ...]) -> list[Keyframe]:
        """The newest keyframe of a chain at once, and again, better, the one that just got its neighbours."""
        chosen = sorted({len(chain) - 1, max(len(chain) - 1 - AHEAD, 0)})
        return self._densified([n for n in chosen if not _is_measured(chain[n])], chain)

    def _densified(self, chosen: list[int], chain: tuple[Keyframe, ...]) -> list[Keyframe]:
        """The chosen keyframes of a chain with dense depth, without those whose neighbours show no parallax."""
        dense = (self._by_neighbours(n, chain) for n in chosen)
        return [k for k in dense if k is not None]

    def _by_neighbours(self, n: int, chain: tuple[Keyframe, ...]) -> Keyframe | None:
        k = chain[n]
        near = sorted((m for m in range(len(chain)) if m != n), key=lambda m: (abs(m - n), m))
        others = [chain[m] for m in near[: self.config.neighbours]]
        T_jk = [se3.inverse(o.T_wc) @ k.T_wc for o in others]
        if max(map(k.shift_px, T_jk), default=0.0) < MIN_PARALLAX_PX:
            return None
        dense = _unhidden(self.stereo(k, [o.view for o in others], T_jk), k, others, T_jk)
        dense = k.view.image.masked(dense.composited(measured_dense(k.view, k.coarse.device)))
        return replace(k, dense=without_movers(dense, k.static), dense_version=k.dense_version + 1)


def _unhidden(dense: InvDepth, k: Keyframe, others: Sequence[Keyframe], T_jk: Sequence[Tensor]) -> InvDepth:
    """Dense depth (h, w) of a keyframe without the pixels that masks hide in most of its neighbours."""
    if all(o.view.image.mask is None for o in others):
        return dense
    hidden = torch.zeros_like(dense.value)
    for other, T in zip(others, T_jk, strict=True):
        if other.view.image.mask is not None:
            uv, _, valid = reproject(dense.value[None], T[None], k.view.K[None])
            mask = torch.from_numpy(~other.view.image.mask).to(hidden)[None, None]
            hidden += (valid * sample(mask, uv, mode="nearest")[:, 0])[0]
    return InvDepth(torch.where(2 * hidden > len(others), 0.0, dense.value), dense.sigma)


def without_movers(dense: InvDepth, static: Tensor | None) -> InvDepth:
    """Dense depth (h, w) without confidence where cells are taken to move, by how far they stand still (hc, wc)."""
    if static is None or bool((static >= MOVING).all()):
        return dense
    up = torch.nn.functional.interpolate(static[None, None], dense.size, mode="bilinear", align_corners=False)[0, 0]
    return InvDepth(dense.value, torch.where(up < MOVING, UNMEASURED_SIGMA * dense.value, dense.sigma))


def is_wanting(k: Keyframe) -> bool:
    """True if neither stereo nor a sensor gave it dense depth yet."""
    return k.dense_version == 0 and not _is_measured(k)


def _is_measured(k: Keyframe) -> bool:
    """True if it came with its depth."""
    return k.view.sensor_depth is not None and bool(measured_dense(k.view).known.float().mean() > MEASURED_RATIO)


def with_pooled_depth(k: Keyframe, stride: int) -> Keyframe:
    """The keyframe with its coarse depth taken from the dense one, weighed by confidence; as it was where that has
    none."""
    dense = k.dense
    weight = torch.nn.functional.avg_pool2d(dense.confidence[None], stride)[0]
    mean = torch.nn.functional.avg_pool2d((dense.confidence * dense.value)[None], stride)[0] / weight.clamp_min(1e-6)
    return replace(k, coarse=InvDepth.from_confidence(torch.where(weight > 0, mean, k.coarse.value), weight))

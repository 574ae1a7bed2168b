"""Whether refined depth is better: by pairs of frames that nothing was optimised on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.evaluation.consistency import log_ratio, reprojection_px
from slam.refinement.constraints import AT_ONCE, Constraints

MIN_CELLS = 50  # of a pair that can be judged
SLACK = 1.01  # the flow's noise in the reprojection error, which exact depth does not reduce
MIN_GAIN = 0.98  # of the log ratio: less of a change is noise


@dataclass(frozen=True)
class HeldOut:
    """Mean over the held-out pairs."""

    reprojection_px: float  # median distance of the flow by depth and pose from the measured one
    log_ratio: float  # mean |log(z_ij / z_j(f))|
    pairs: int


def held_out_errors(inv_depth: Tensor, constraints: Constraints) -> HeldOut:
    """Errors of depth (N, h, w), at the cells that both frames of a pair see and that do not move."""
    sums, count = [0.0, 0.0], 0
    for n in range(0, len(constraints), AT_ONCE):
        edges = torch.arange(n, min(n + AT_ONCE, len(constraints)))
        i, j = constraints.flows.index[edges].unbind(1)
        uv, T_ji = constraints.flows.uv(edges), constraints.T_ji[edges]
        counts = constraints.flows.mutual[edges] & (constraints.weight(edges, uv) > 0.5)
        pixels, cells = reprojection_px(inv_depth[i], uv, counts, T_ji, constraints.K, constraints.stride)
        ratio, _ = log_ratio(inv_depth[i], inv_depth[j], uv, counts, T_ji, constraints.K)
        good = (cells >= MIN_CELLS) & pixels.isfinite()
        count += int(good.sum())
        sums = [total + float(each[good].sum()) for total, each in zip(sums, (pixels, ratio), strict=True)]
    return HeldOut(sums[0] / max(count, 1), sums[1] / max(count, 1), count)


def is_better(after: HeldOut, before: HeldOut) -> bool:
    """True if the frames agree better on depth, and the depth still says where things are seen."""
    return (
        0 < before.pairs <= after.pairs
        and after.log_ratio <= MIN_GAIN * before.log_ratio
        and after.reprojection_px <= SLACK * before.reprojection_px
    )

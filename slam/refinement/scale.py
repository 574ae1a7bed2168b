"""The unit of a map in that of a network's depths, by medians.

Reference: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (CVD), eq. 1 and 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_KNOWN = 0.05  # share of a frame's cells whose depth the map knows, for the frame to count


@dataclass(frozen=True)
class ScaleCalibration:
    """How a network's depths relate to those of a map."""

    scale: float  # network depth over map depth: translations are multiplied by it to be in the network's unit
    spread: float  # median distance of the logarithms of the frames' own scales from their median
    frames: int  # that counted


def calibrated_scale(depth: Tensor, map_depth: Tensor) -> ScaleCalibration:
    """The median over the frames of the median ratio of their depths.

    The reference takes the mean over the frames; the median does not follow a frame that the network gets wrong.

    Args:
        depth: (N, h, w) of the network, > 0.
        map_depth: (N, h, w) of the map at the same pixels, map units, 0 unknown.

    Raises:
        ValueError: if no frame knows MIN_KNOWN of its cells.
    """
    logs = []
    for found, told in zip(depth, map_depth, strict=True):
        known = told > 0
        if float(known.float().mean()) >= MIN_KNOWN:
            logs.append((found[known] / told[known]).log().median())
    if not logs:
        raise ValueError("no frame has enough known depth to measure a scale")
    each = torch.stack(logs).double()
    middle = each.quantile(0.5)
    return ScaleCalibration(float(middle.exp()), float((each - middle).abs().quantile(0.5)), len(logs))

"""Depth of every frame optimised directly, cell by cell, without a network.

Unknown is the log inverse depth of every cell. The loss is the disagreement of pairs of frames, the distance from what
was measured by how sure that was, and the roughness of the correction where the image shows no edge.

Reference: Zhang et al., MegaSaM, CVPR 2025, sec. 3.3: poses fixed, no network, disparity itself the variable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.errors import check_range
from slam.refinement.constraints import Constraints
from slam.refinement.losses import ConsistencyWeights

BATCH = 96  # directed pairs of a step
RATE = 0.02  # of Adam: about 2 % of depth a step, at first
WARM_UP, LAST = 10, 0.1  # steps of rising rate; share of it at the end
TRUSTED_SIGMA = 0.05  # relative: what is measured so well is held with weight one
EDGE = 10.0  # of a gray level step of the whole range, in the exponent: how much an image edge loosens the smoothness
SEED = 5


@dataclass(frozen=True)
class DirectConfig:
    """The direct optimisation."""

    steps: int = 200
    anchor: float = 1.0  # weight of the distance from the measurement
    smoothness: float = 0.5  # weight of the steps of the correction between neighbouring cells

    def __post_init__(self) -> None:
        check_range(self, 0, 100_000, "steps")
        check_range(self, 0, 1e4, "anchor", "smoothness")


def optimised(
    measured: Tensor,
    relative_sigma: Tensor,
    gray: Tensor,
    constraints: Constraints,
    weights: ConsistencyWeights = ConsistencyWeights(),
    config: DirectConfig = DirectConfig(),
    tell: Callable[[int, dict[str, float]], None] = lambda step, parts: None,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Log inverse depth (N, h, w) on which the frames agree.

    Args:
        measured, relative_sigma: (N, h, w) log inverse depth to begin with and to stay near, and how sure it is.
        gray: (N, h, w) brightness of the cells in [0, 1].
        tell: is told the step and the parts of the loss.
        stop: ends it early, with what there is.
    """
    if not len(constraints):
        return measured
    log_inv_depth = measured.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([log_inv_depth], lr=RATE, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(SEED)
    hold = TRUSTED_SIGMA / relative_sigma.clamp_min(0.4 * TRUSTED_SIGMA)
    along, down = (torch.exp(-EDGE * gray.diff(dim=axis).abs()) for axis in (-1, -2))
    for step in range(config.steps):
        if stop():
            break
        optimiser.param_groups[0]["lr"] = rate(RATE, step, config.steps)
        edges = torch.randperm(len(constraints), generator=generator)[:BATCH]
        i, j = constraints.flows.index[edges].unbind(1)
        loss, parts = constraints.loss(edges, log_inv_depth[i], log_inv_depth[j], weights)
        frames = torch.cat([i, j]).unique()
        change = log_inv_depth[frames] - measured[frames]
        parts["anchor"] = (change.abs() * hold[frames]).mean()
        rough = (change.diff(dim=-1).abs() * along[frames]).mean() + (change.diff(dim=-2).abs() * down[frames]).mean()
        loss = loss + config.anchor * parts["anchor"] + config.smoothness * rough
        optimiser.zero_grad()
        loss.backward()
        if log_inv_depth.grad is not None and torch.isfinite(log_inv_depth.grad).all():
            optimiser.step()
        tell(step + 1, {name: float(part.detach()) for name, part in parts.items()})
    return log_inv_depth.detach()


def rate(highest: float, step: int, steps: int) -> float:
    """Learning rate: a short rise, then a straight way down to LAST of it."""
    return highest * min(1.0, (step + 1) / WARM_UP) * (1 - (1 - LAST) * step / steps)

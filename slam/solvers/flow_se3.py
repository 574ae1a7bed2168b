"""Flow-SE3: correspondence and Gauss-Newton in turn, whoever gives the correspondence.

Reference: Teed & Deng, DeepV2D, ICLR 2020, sec. 3.2 (keyframe mode).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from slam.geometry.flow import inpainted_holes
from slam.kernels.normal_equations import trust_of
from slam.kernels.reprojection import reproject_with_trust
from slam.solvers.gauss_newton import Damping, pose_step, redescending_weight

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class MotionStep:
    """One iteration of Flow-SE3 on E edges (i, j)."""

    T_ji: Tensor  # (E, 4, 4) float64 after the solve
    ok: Tensor  # (E,) bool: the solve was well conditioned
    uv: Tensor  # (E, h, w, 2) reprojection before the solve, pixels of view j
    residual_uv: Tensor  # (E, h, w, 2) flow that the correspondence found on top of uv
    weight: Tensor  # (E, h, w, 2 or 3) its confidence, 0 where the depth is unknown or the point behind the camera
    confidence: Tensor  # (E, h, w, 2 or 3) as the correspondence gave it


@dataclass(frozen=True)
class Consensus:
    """What pixels weigh beside each other: what moves by itself has residuals far beyond those of most.

    Huber's weight leaves such a pixel a constant pull, and a third of them shifts a pose by half the threshold. While
    most of the weight does not fit yet, nothing is left out: what is near moves most where the pose is far off. That is
    asked of the weight, because plain walls, where nothing was measured, seem to be wherever they are expected.
    """

    scale: float  # robust, pixels

    def of(self, residual_uv: Tensor, weight: Tensor) -> Tensor:
        """(E, h, w) factor in (0, 1] of residuals (E, h, w, 2) with weights (E, h, w, 2 or 3)."""
        square = residual_uv.square().sum(-1) / self.scale**2
        amount = trust_of(weight)
        fitting = ((square < 1) * amount).sum((1, 2), keepdim=True)
        return torch.where(2 * fitting > amount.sum((1, 2), keepdim=True), redescending_weight(square), 1.0)


def flow_se3(
    update: Callable[[State, Tensor], tuple[State, Tensor, Tensor]],
    state: State,
    inv_depth: Tensor,
    T_ji: Tensor,
    K: Tensor,
    iters: int,
    gn_steps: int = 2,
    damping: Damping = Damping(),
    huber_px: float | None = None,
    depth_noise: tuple[Tensor, float] | None = None,
    finished: Callable[[State], bool] = lambda state: False,
    consensus: Consensus | None = None,
    static: Tensor | None = None,
) -> list[MotionStep]:
    """Refine the poses of independent edges by the depth of their first view.

    Args:
        update: (state, uv (E, h, w, 2)) -> state, residual flow (E, h, w, 2) on top of uv, confidence (E, h, w, 2) in
            [0, 1], or (E, h, w, 3) with what couples u and v, as `pose_step` has it.
        state: given to the first update.
        inv_depth: (E, h, w) of views i at the correspondence's stride; 0 is unknown: such a pixel has no weight, and
            the correspondence looks for it where its neighbours went.
        T_ji: (E, 4, 4) start, view j from view i.
        K: (E, 3, 3) intrinsics at that stride.
        iters: most iterations; gradients do not flow through the pose from one to the next.
        gn_steps: Gauss-Newton steps in each.
        damping, huber_px: as `pose_step`.
        depth_noise: standard deviation (E, h, w) of the inverse depth, and of the flow, pixels. A pixel then weighs
            less the more of its position hangs on an unsure depth; in a pure rotation none does.
        consensus: what a pixel weighs beside others in the pose; None: all the same.
        static: (h, w) how far the pixels of views i stand still, in [0, 1]; None: all do.
        finished: whether a state says that further updates change nothing.

    Returns:
        The iterations in order; the last holds the result. Poses are where `T_ji` is, all else is where the depth is.
    """
    known = inv_depth > 0 if static is None else static * (inv_depth > 0)
    K = K.to(inv_depth)
    inv_depth = inpainted_holes(inv_depth)
    sigma, flow_sigma = (None, 1.0) if depth_noise is None else depth_noise
    steps: list[MotionStep] = []
    while len(steps) < iters and not finished(state):
        T_ji = T_ji.detach()
        uv, trust = reproject_with_trust(inv_depth, T_ji, K, sigma, flow_sigma)
        state, residual_uv, confidence = update(state, uv)
        weight = confidence * (known * trust)[..., None]
        agreeing = weight if consensus is None else weight * consensus.of(residual_uv, weight)[..., None]
        solution = pose_step(uv + residual_uv, agreeing, inv_depth, T_ji, K, gn_steps, damping, huber_px)
        T_ji = solution.T
        steps.append(MotionStep(T_ji, solution.ok, uv, residual_uv, weight, confidence))
    return steps

"""Structure from flow alone: poses and inverse depth of a first view from its flows to others, from several starts.

Bundle adjustment of the first map is not convex: from constant depth alone it ends in another shape now and then. So it
begins from constant and sloped depth, from the essential matrix and from what the first picture suggests, and what fits
best counts, unless another motion fits nearly as well (the bas-relief ambiguity: Belhumeur, Kriegman & Yuille, IJCV
1999).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import pixel_grid, scaled_intrinsics
from slam.geometry.flow import in_image, reproject, reprojection_jacobians
from slam.inv_depth import normalized_convolution
from slam.kernels.normal_equations import trust_of
from slam.matching.matcher import Match
from slam.matching.parallax import HUBER_PX, MIN_CELLS, TEXTURED
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import pose_step
from slam.solvers.two_view import essential_pose

SLOPES = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))  # of the inverse depth across the view
SAME_DIRECTION = 0.97  # cosine of 14 degrees between translations
POSE_STEPS = 6  # on the start's depth, before depth moves too
PRIOR_WEIGHT = 1e-3  # holds cells without flow at the start's depth and the scale near 1


@dataclass(frozen=True, eq=False)
class Candidate:
    """What one start of the adjustment led to."""

    T_cw: Tensor  # (N, 4, 4) of the other views; the first view is the world
    inv_depth: Tensor  # (hc, wc) of the first view
    information: Tensor  # (hc, wc)
    cost: float  # mean truncated misfit, cells
    error_cells: float  # median misfit


def solve(
    matches: Sequence[Match], K: Tensor, stride: int, steps: int, guesses: Sequence[Tensor] = ()
) -> list[Candidate]:
    """What all starts lead to, the best fitting first.

    Args:
        matches: of the first view to N others.
        K: (3, 3) intrinsics at network size.
        stride: side of a cell, pixels.
        steps: of the bundle adjustment.
        guesses: further starts (hc, wc) of the inverse depth, about 1.
    """
    K_cells = scaled_intrinsics(K, 1 / stride)
    h, w = matches[0].target_uv.shape[:2]
    device = matches[0].target_uv.device
    starts = [*(sloped(h, w, slope) for slope in SLOPES), triangulated(matches[-1], K_cells, stride), *guesses]
    candidates = [adjusted(matches, start.to(device), K_cells, stride, steps) for start in starts if start is not None]
    return sorted((c for c in candidates if c is not None), key=lambda c: c.cost)


def with_other_focal_lengths(
    best: Candidate,
    matches: Sequence[Match],
    K: Tensor,
    stride: int,
    steps: int,
    guesses: Sequence[Tensor],
    zooms: Sequence[float],
    ratio: float,
) -> Candidate:
    """The best candidate by K; or, where another motion fits clearly better by another focal length, what its shape
    leads to by K: with a wrong focal length a wrong shape may fit best.

    Args:
        zooms: factors of the focal length that are tried.
        ratio: of the misfits, from which on one fits clearly better.
        The others as `solve`.
    """
    for zoom in zooms:
        zoomed = K.clone()
        zoomed[0, 0], zoomed[1, 1] = zoom * K[0, 0], zoom * K[1, 1]
        for other in solve(matches, zoomed, stride, steps, guesses)[:1]:
            if ratio * other.cost < best.cost and not _is_same_motion(best, other):
                best = adjusted(matches, other.inv_depth, scaled_intrinsics(K, 1 / stride), stride, steps) or best
    return best


def _is_same_motion(a: Candidate, b: Candidate) -> bool:
    a_direction, b_direction = (torch.nn.functional.normalize(c.T_cw[-1, :3, 3], dim=0) for c in (a, b))
    return float(a_direction @ b_direction) >= SAME_DIRECTION


def is_ambiguous(candidates: Sequence[Candidate], ratio: float) -> bool:
    """True if another motion than the first candidate's fits nearly as well: with less than `ratio` times its cost."""
    best = candidates[0]
    return any(other.cost < ratio * best.cost and not _is_same_motion(best, other) for other in candidates[1:])


def sloped(height: int, width: int, slope: tuple[float, float]) -> Tensor:
    """Inverse depth (hc, wc), 1 in the middle, that changes by `slope` across the view and down it; on the host."""
    v, u = (torch.linspace(-0.5, 0.5, n) for n in (height, width))
    return 1 + slope[0] * u[None, :] + slope[1] * v[:, None]


def triangulated(match: Match, K_cells: Tensor, stride: int) -> Tensor | None:
    """Inverse depth (hc, wc) by the essential matrix of one match, median 1; None if that fixes no motion. It is found
    on the host, and left there."""
    target, weight = match.target_uv.cpu(), trust_of(match.weight).cpu()
    hc, wc = weight.shape
    textured = weight > TEXTURED
    uv_i, uv_j = pixel_grid(hc, wc, like=target)[textured], target[textured]
    T = essential_pose(uv_i.numpy(), uv_j.numpy(), K_cells.numpy(), HUBER_PX / stride)
    if T is None:
        return None
    T_ji = torch.from_numpy(T)
    far = torch.zeros(1, hc, wc, dtype=torch.float64)
    uv, q, _ = reproject(far, T_ji[None], K_cells[None])
    _, J = reprojection_jacobians(q, far, T_ji[None], K_cells[None])
    d = ((target - uv[0]) * J[0]).sum(-1) / J[0].square().sum(-1).clamp_min(1e-9)
    good = textured & (d > 0)
    if good.sum() < MIN_CELLS:
        return None
    d = (d / d[good].median()).clamp(0.05, 20.0).float()
    return normalized_convolution(d, (good * weight).float())


def adjusted(matches: Sequence[Match], start: Tensor, K_cells: Tensor, stride: int, steps: int) -> Candidate | None:
    """Poses and depth of the first view from a start (hc, wc) of its inverse depth; None if that leads nowhere."""
    N = len(matches) + 1
    inv_depth = start.expand(N, *start.shape).contiguous()
    target, weight = (torch.stack([getattr(m, name) for m in matches]) for name in ("target_uv", "weight"))
    placed = pose_step(
        *(target, weight, inv_depth[1:], torch.stack([m.T_ck for m in matches]), K_cells.expand(N - 1, 3, 3)),
        steps=POSE_STEPS,
        huber_px=2 * HUBER_PX / stride,
    )
    solution = bundle_adjust(
        target,
        weight,
        torch.tensor([(0, n) for n in range(1, N)]),
        torch.cat([se3.identity()[None], placed.T]),
        inv_depth,
        (inv_depth, torch.full_like(inv_depth, PRIOR_WEIGHT)),
        torch.tensor([n == 0 for n in range(N)]),
        K_cells,
        steps,
        huber_px=HUBER_PX / stride,
    )
    if not solution.ok:
        return None
    d = solution.inv_depth[0]
    uv, _, valid = reproject(d.expand(N - 1, *d.shape), solution.T_cw[1:], K_cells.expand(N - 1, 3, 3))
    error = (target - uv).norm(dim=-1)
    w = trust_of(weight) * (valid & in_image(uv, *d.shape))
    if not (w > TEXTURED).any():
        return None  # it moved everything out of view
    cost = (w * error.clamp_max(2 * HUBER_PX / stride)).sum() / w.sum()
    return Candidate(
        solution.T_cw[1:], d, solution.depth_information[0], float(cost), float(error[w > TEXTURED].median())
    )

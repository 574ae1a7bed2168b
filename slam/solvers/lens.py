"""What the flows from one view to others say of their motions, of the view's depths, and of the lens they all share.

The lens is a pinhole with one radial coefficient: `uv = c + f x (1 + k1 |x|^2)`. Its unknowns are the logarithm of a
factor of both focal lengths, and k1. The pixels of the view are where the lens put them, not a regular grid.

Reference: Triggs et al., Bundle adjustment: a modern synthesis, 2000; Hagemann et al., Deep geometry-aware camera
self-calibration from video, ICCV 2023.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import MIN_DEPTH_RATIO
from slam.geometry.lens import undistort
from slam.kernels.bundle_terms import BundleTerms
from slam.kernels.normal_equations import huber_weight, weighed


@dataclass(frozen=True, eq=False)
class RadialLens:
    """A pinhole with one radial coefficient."""

    focal: Tensor  # (2,) fx fy, float64 pixels
    centre: Tensor  # (2,) cx cy
    k1: float = 0.0

    def changed(self, step: Tensor) -> "RadialLens":
        """With log focal and, if there are two numbers, k1 changed by `step`."""
        k1 = self.k1 + float(step[1]) if len(step) > 1 else self.k1
        return RadialLens(self.focal * step[0].exp(), self.centre, k1)

    def ideal(self, uv: Tensor) -> Tensor:
        """Pixels (..., 2) -> points of their rays at z = 1."""
        return undistort((uv - self.centre) / self.focal, (self.k1, 0.0, 0.0, 0.0))

    def pixels(self, xy: Tensor) -> Tensor:
        """Points (..., 2) at z = 1 -> pixels."""
        return self.centre + self.focal * xy * (1 + self.k1 * xy.square().sum(-1, keepdim=True))

    def slope(self, xy: Tensor) -> Tensor:
        """(..., 2, 2) derivative of the distorted point by the point at z = 1."""
        r2 = xy.square().sum(-1)[..., None, None]
        return (1 + self.k1 * r2) * torch.eye(2).to(xy) + 2 * self.k1 * xy[..., :, None] * xy[..., None, :]


@dataclass(frozen=True, eq=False)
class FreeLens:
    """A lens that is unknown like the poses."""

    start: RadialLens
    uv: Tensor  # (h, w, 2) float64 pixels of every view, where the lens put them
    unknowns: int = 1  # 1: the focal length, 2: k1 too
    k1_weight: float = 0.0  # that holds k1 at 0, one over its variance in units of one pixel^2 of flow error


@dataclass(frozen=True, eq=False)
class LensSolution:
    """What an adjustment found of the lens."""

    lens: RadialLens
    covariance: Tensor  # (S, S) of log focal and k1, as if the errors of all pixels were independent


@dataclass(frozen=True, eq=False)
class LensTerms:
    """Sums over the pixels of each edge for S unknowns of the lens; P = h w."""

    H: Tensor  # (E, S, S) float64, of w J^T J
    b: Tensor  # (E, S)
    motion: Tensor  # (E, 6, S) of the edges' motions and the lens
    coupling: Tensor  # (E, S, P) of the lens and the depths
    misfit: Tensor  # (E,) of w r^2, pixels^2
    weight: Tensor  # (E,) of w


@dataclass(frozen=True, eq=False)
class LinearisedEdges:
    """All edges, in the order in which they were given."""

    motions: BundleTerms  # but `information` and `gradient` (E, P) of each edge
    lens: LensTerms

    def of_view(self, edges: slice) -> tuple[BundleTerms, LensTerms]:
        """Those that leave one view."""
        motions = {name: terms[edges] for name, terms in vars(self.motions).items()}
        for name in ("information", "gradient"):
            motions[name] = motions[name].sum(0)
        return BundleTerms(**motions), LensTerms(**{name: terms[edges] for name, terms in vars(self.lens).items()})


def lens_terms(
    uv: Tensor,
    target_uv: Tensor,
    weight: Tensor,
    inv_depth: Tensor,
    T_ji: Tensor,
    lens: RadialLens,
    unknowns: int,
    huber_px: float | None = None,
) -> LinearisedEdges:
    """Linearise edges.

    Args:
        uv: (h, w, 2) pixels of every view, as the lens put them.
        target_uv: (E, h, w, 2) where they lie in the others, likewise.
        weight: (E, h, w, 2), or (E, h, w, 3) with what couples u and v.
        inv_depth: (E, h, w) of the views that the edges leave.
        T_ji: (E, 4, 4) the others from these views.
        unknowns: 1 for the focal length, 2 for k1 too.
        huber_px: robust threshold; None is plain least squares.
    """
    xy_i = lens.ideal(uv)
    R, t, d = T_ji[:, :3, :3], T_ji[:, None, None, :3, 3], inv_depth[..., None]
    q, z, valid = _seen(xy_i, d, T_ji)
    xy = q[..., :2] * z
    by_q = torch.cat([_diagonal(z), -(xy * z)[..., None]], -1)  # (E, h, w, 2, 3), of xy
    by_q = lens.focal[:, None] * (lens.slope(xy) @ by_q)
    projected = lens.pixels(xy)
    r = target_uv - projected
    J = torch.cat([by_q * d[..., None], -(by_q @ se3.hat(q))], -1)
    J_d = (by_q @ t[..., None]).squeeze(-1)
    by_distorted = by_q @ R[:, None, None, :, :2] @ torch.linalg.inv(lens.slope(xy_i))  # of the point in view i
    columns = [projected - lens.centre - _times(by_distorted, (uv - lens.centre) / lens.focal)]
    if unknowns > 1:
        bulge = xy * xy.square().sum(-1, keepdim=True)
        columns.append(lens.focal * bulge - _times(by_distorted, xy_i * xy_i.square().sum(-1, keepdim=True)))
    J_l = torch.stack(columns, -1)
    w = weight * valid[..., None]
    if huber_px is not None:
        w = w * huber_weight(r, huber_px)
    J, J_l, J_d, r, w = (x.flatten(1, 2) for x in (J, J_l, J_d, r, w))  # (E, P, 2[, n])
    wJ, wJ_l = weighed(w, J), weighed(w, J_l)
    wJ_d, wr = (weighed(w, x[..., None])[..., 0] for x in (J_d, r))
    motions = BundleTerms(
        H=torch.einsum("epci,epcj->eij", wJ, J),
        b=torch.einsum("epci,epc->ei", wJ, r),
        coupling=torch.einsum("epci,epc->eip", wJ, J_d),
        information=(wJ_d * J_d).sum(-1),
        gradient=(wJ_d * r).sum(-1),
    )
    return LinearisedEdges(
        motions,
        LensTerms(
            H=torch.einsum("epci,epcj->eij", wJ_l, J_l),
            b=torch.einsum("epci,epc->ei", wJ_l, r),
            motion=torch.einsum("epci,epcj->eij", wJ, J_l),
            coupling=torch.einsum("epci,epc->eip", wJ_l, J_d),
            misfit=(wr * r).sum((1, 2)),
            weight=w[..., :2].sum((1, 2)),
        ),
    )


def lens_errors(uv: Tensor, target_uv: Tensor, inv_depth: Tensor, T_ji: Tensor, lens: RadialLens) -> Tensor:
    """(E, h, w) pixels between flows and what motions and inverse depths (E, h, w) induce; infinite behind the camera.
    The rest as `lens_terms`."""
    q, z, valid = _seen(lens.ideal(uv), inv_depth[..., None], T_ji)
    return torch.where(valid, (target_uv - lens.pixels(q[..., :2] * z)).norm(dim=-1), torch.inf)


def _seen(xy: Tensor, d: Tensor, T_ji: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rays through points (h, w, 2) at z = 1, moved, times inverse depth (E, h, w, 3); one over their z (E, h, w, 1),
    and whether they lie before the camera (E, h, w)."""
    q = torch.cat([xy, torch.ones_like(xy[..., :1])], -1) @ T_ji[:, None, :3, :3].mT + d * T_ji[:, None, None, :3, 3]
    return q, 1 / q[..., 2:].clamp_min(MIN_DEPTH_RATIO), q[..., 2] > MIN_DEPTH_RATIO


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None]).squeeze(-1)


def _diagonal(z: Tensor) -> Tensor:
    return z[..., None] * torch.eye(2).to(z)

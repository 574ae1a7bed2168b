"""The lens as an unknown of bundle adjustment: exact flows give it back, its derivatives are those of the projection,
and what cannot tell it says so."""

import math

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import pixel_grid
from slam.solvers.bundle import BundleSolution, bundle_adjust
from slam.solvers.gauss_newton import Damping
from slam.solvers.lens import FreeLens, RadialLens, lens_terms

F64 = torch.float64
H, W = 12, 16
TRUE = RadialLens(torch.tensor([150.0, 152.0], dtype=F64), torch.tensor([74.0, 58.0], dtype=F64), -0.2)
UV = pixel_grid(H, W, like=torch.empty(0, dtype=F64)) * 10  # of images of 160x120


def seen(lens: RadialLens, inv_depth: Tensor, T_ji: Tensor) -> Tensor:
    """Where the pixels UV of views with (E, h, w) inverse depths lie after motions (E, 4, 4)."""
    rays = torch.cat([lens.ideal(UV), torch.ones(H, W, 1, dtype=F64)], -1)
    points = rays / inv_depth[..., None] @ T_ji[:, None, :3, :3].mT + T_ji[:, None, None, :3, 3]
    return lens.pixels(points[..., :2] / points[..., 2:])


def solved(T_cw: Tensor, start: RadialLens, unknowns: int, inv_depth: Tensor | None = None) -> BundleSolution:
    """Adjustment from true poses and depths, but the lens of `start`, by exact flows between all pairs."""
    N = len(T_cw)
    generator = torch.Generator().manual_seed(1)
    d = 0.6 + 0.8 * torch.rand(N, H, W, dtype=F64, generator=generator) if inv_depth is None else inv_depth
    edges = torch.tensor([[a, b] for a in range(N) for b in range(N) if a != b])
    i, j = edges.unbind(-1)
    target = seen(TRUE, d[i], T_cw[j] @ se3.inverse(T_cw[i]))
    return bundle_adjust(
        target,
        torch.ones(len(edges), H, W, 2, dtype=F64),
        edges,
        T_cw,
        d,
        (d, torch.full_like(d, 1e-6)),
        torch.arange(N) == 0,
        torch.eye(3, dtype=F64),
        30,
        Damping(1e-10, 1e-7),
        free_lens=FreeLens(start, UV, unknowns),
    )


def poses(turn: float = 0.2, N: int = 5) -> Tensor:
    """Of a camera that moves and turns about all axes."""
    xi = torch.randn(N, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    xi = xi * torch.tensor([0.2] * 3 + [turn] * 3, dtype=F64)
    return se3.exp(xi * (torch.arange(N) > 0)[:, None])


@pytest.mark.parametrize(("factor", "k1"), [(0.9, -0.1), (0.75, TRUE.k1), (1.3, 0.0)])
def test_exact_flows_give_the_focal_length_and_k1_back(factor, k1):
    start = RadialLens(TRUE.focal * factor, TRUE.centre, k1)
    found = solved(poses(), start, 2).lens
    assert found is not None
    torch.testing.assert_close(found.lens.focal, TRUE.focal, rtol=1e-5, atol=0.0)
    assert found.lens.k1 == pytest.approx(TRUE.k1, abs=1e-4)


def test_the_focal_length_alone():
    start = RadialLens(TRUE.focal * 0.8, TRUE.centre, TRUE.k1)
    found = solved(poses(), start, 1).lens
    assert found is not None and found.covariance.shape == (1, 1)
    torch.testing.assert_close(found.lens.focal, TRUE.focal, rtol=1e-5, atol=0.0)
    assert found.lens.k1 == TRUE.k1


def deviation(T_cw: Tensor, inv_depth: Tensor | None = None) -> float:
    """Of log focal from noisy flows, per pixel of their error."""
    start = RadialLens(TRUE.focal * 1.01, TRUE.centre, TRUE.k1)
    N = len(T_cw)
    d = inv_depth if inv_depth is not None else 0.6 + 0.8 * torch.rand(N, H, W, dtype=F64)
    edges = torch.tensor([[a, b] for a in range(N) for b in range(N) if a != b])
    i, j = edges.unbind(-1)
    target = seen(TRUE, d[i], T_cw[j] @ se3.inverse(T_cw[i]))
    target = target + torch.randn(target.shape, dtype=F64, generator=torch.Generator().manual_seed(3))
    weight = torch.ones(len(edges), H, W, 2, dtype=F64)
    lens = bundle_adjust(
        *(target, weight, edges, T_cw, d, (d, torch.full_like(d, 1e-2)), torch.arange(N) == 0, torch.eye(3), 4),
        free_lens=FreeLens(start, UV, 1),
    ).lens
    assert lens is not None
    return math.sqrt(float(lens.covariance[0, 0]))


def test_a_camera_that_hardly_turns_is_far_less_sure():
    assert deviation(poses(turn=0.002)) > 3 * deviation(poses(turn=0.2))


def test_derivatives_are_those_of_the_projection():
    """Gradient of half the squared misfit by all unknowns, against differences."""
    d = 0.6 + 0.8 * torch.rand(H, W, dtype=F64, generator=torch.Generator().manual_seed(4))
    T_ji = se3.exp(torch.tensor([[0.1, -0.05, 0.08, 0.03, -0.06, 0.1]], dtype=F64))
    lens = RadialLens(torch.tensor([140.0, 149.0], dtype=F64), TRUE.centre, 0.15)
    target = seen(TRUE, d[None], T_ji) + 0.3
    weight = torch.rand(1, H, W, 2, dtype=F64, generator=torch.Generator().manual_seed(5))

    def misfit(step: Tensor, depth: Tensor) -> Tensor:
        moved = se3.exp(step[None, :6]) @ T_ji
        r = target - seen(lens.changed(step[6:]), depth[None], moved)
        return 0.5 * (weight * r.square()).sum()

    terms, of_lens = lens_terms(UV, target, weight, d[None], T_ji, lens, 2).of_view(slice(0, 1))
    h = 1e-6
    analytic = torch.cat([terms.b[0], of_lens.b[0]])
    for n in range(8):
        step = torch.zeros(8, dtype=F64)
        step[n] = h
        slope = (misfit(step, d) - misfit(-step, d)) / (2 * h)
        assert float(-slope) == pytest.approx(float(analytic[n]), rel=1e-5, abs=1e-6)
    change = torch.zeros(H, W, dtype=F64)
    change[3, 5] = h
    slope = (misfit(torch.zeros(8, dtype=F64), d + change) - misfit(torch.zeros(8, dtype=F64), d - change)) / (2 * h)
    assert float(-slope) == pytest.approx(float(terms.gradient.view(H, W)[3, 5]), rel=1e-5)

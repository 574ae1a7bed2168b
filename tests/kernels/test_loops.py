"""The loops of the CPU against the tensor versions, which an input with a gradient takes."""

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.kernels.bundle_terms import bundle_terms
from slam.kernels.normal_equations import normal_equations
from slam.kernels.reprojection import reproject_with_trust
from slam.kernels.standardise import standardised_blocks
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import pose_step

E, H, W = 3, 9, 14


@pytest.fixture
def edges() -> dict[str, Tensor]:
    """Flows of disturbed motions, one of them with points behind the camera, with weights and unsure depth."""
    g = torch.Generator().manual_seed(0)
    T_ji = se3.exp(0.1 * torch.randn(E, 6, generator=g, dtype=torch.float64))
    T_ji[2, 2, 3] = -2.0
    K = torch.tensor([[10.0, 0, 6.5], [0, 11.0, 4], [0, 0, 1]], dtype=torch.float64).expand(E, 3, 3)
    inv_depth = 0.3 + torch.rand(E, H, W, generator=g)
    uv, _ = reproject_with_trust(inv_depth, T_ji, K)
    return {
        "target_uv": uv + 0.3 * torch.randn(uv.shape, generator=g),
        "weight": torch.rand(E, H, W, 2, generator=g),
        "inv_depth": inv_depth,
        "sigma": 0.2 * torch.rand(E, H, W, generator=g),
        "T_ji": T_ji,
        "start": se3.exp(0.02 * torch.randn(E, 6, generator=g, dtype=torch.float64)) @ T_ji,
        "K": K,
    }


def both(function, *given: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Results as by loops, and as by tensors."""
    by_loops = function(*given)
    with torch.enable_grad():
        by_tensors = function(*(x.detach().clone().requires_grad_() for x in given))
    assert any(x.requires_grad for x in by_tensors) and not any(x.requires_grad for x in by_loops)
    return [(a, b.detach()) for a, b in zip(by_loops, by_tensors, strict=True)]


@pytest.mark.parametrize("unsure", [False, True])
def test_reprojection_and_trust(edges, unsure: bool):
    given = [edges[name] for name in ("inv_depth", "T_ji", "K")] + [edges["sigma"]] * unsure
    (uv, uv_b), (trust, trust_b) = both(lambda *x: reproject_with_trust(*x, flow_sigma=0.1), *given)
    torch.testing.assert_close(uv, uv_b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trust, trust_b, rtol=1e-4, atol=1e-5)
    assert (trust[2] == 0).any() and (trust > 0.1).any() and (not unsure or (trust[0] < 0.9).any())


@pytest.mark.parametrize("huber_px", [None, 0.3])
def test_normal_equations(edges, huber_px: float | None):
    given = [edges[name] for name in ("target_uv", "weight", "inv_depth", "start", "K")]
    for a, b in both(lambda *x: normal_equations(*x, huber_px), *given):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("huber_px", [None, 0.3])
def test_pose_steps(edges, huber_px: float | None):
    """Also of an edge without weight, which is refused and stays where it was."""
    edges["weight"][1] = 0
    given = [edges[name] for name in ("target_uv", "weight", "inv_depth", "start", "K")]

    def solved(*x: Tensor) -> tuple[Tensor, Tensor]:
        solution = pose_step(*x, steps=3, huber_px=huber_px)
        return solution.T, solution.ok * solution.T.sum()

    (T, T_b), (ok, ok_b) = both(solved, *given)
    torch.testing.assert_close(T, T_b, rtol=0, atol=1e-4)
    assert ((ok != 0) == (ok_b != 0)).all() and ok[1] == 0 and ok[0] != 0
    assert torch.equal(T[1], edges["start"][1]) and not torch.equal(T[0], edges["start"][0])


@pytest.mark.parametrize("huber_px", [None, 0.3])
def test_bundle_terms(edges, huber_px: float | None):
    given = [edges["target_uv"], edges["weight"], edges["inv_depth"][0], edges["start"], edges["K"][0]]
    for a, b in both(lambda *x: tuple(vars(bundle_terms(*x, huber_px)).values()), *given):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_bundle_adjustment(edges):
    """The whole solver on one view and three others."""
    weight = edges["weight"].clone()
    weight[2] = 0  # its points are behind the camera
    inv_depth = edges["inv_depth"][:1].expand(E + 1, H, W).contiguous()
    pairs = torch.tensor([(0, n) for n in range(1, E + 1)])
    T_cw = torch.cat([se3.identity()[None], edges["start"]])
    fixed = torch.tensor([True, False, False, True])

    def solved(target_uv: Tensor, weight: Tensor, T_cw: Tensor, inv_depth: Tensor) -> tuple[Tensor, ...]:
        prior = inv_depth.detach(), torch.full_like(inv_depth, 0.1).detach()
        solution = bundle_adjust(target_uv, weight, pairs, T_cw, inv_depth, prior, fixed, edges["K"][0], 3)
        assert solution.ok
        return solution.T_cw, solution.inv_depth, solution.depth_information

    for a, b in both(solved, edges["target_uv"], weight, T_cw, inv_depth):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("contrast", [0, 1, 120])
def test_standardised_blocks(contrast: int):
    """Of bytes by the loop, of the same as floats by tensors; one image is flat."""
    images = torch.randint(100 - contrast // 2, 101 + contrast, (2, 3, 8, 12), dtype=torch.uint8)
    found, expected = standardised_blocks(images), standardised_blocks(images.float() / 255)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

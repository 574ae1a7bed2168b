"""The loops of the CPU against the tensor versions: on the CPU, on a pretended device that keeps its tensors to itself,
and on a GPU where there is one."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.kernels.bundle_terms import bundle_terms
from slam.kernels.compile import runs_as_loop, tensors_only
from slam.kernels.depth_agreement import depth_agreement
from slam.kernels.flow_deviations import flow_deviations
from slam.kernels.lucas_kanade import UNKNOWN, photometric_step
from slam.kernels.normal_equations import normal_equations, weighed
from slam.kernels.reprojection import reproject_with_trust
from slam.kernels.splat import splat_inv_depth
from slam.kernels.standardise import standardised_blocks
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import pose_step, rotation_step
from tests.training.pretended import DEVICE, PretendedDevice

E, H, W = 3, 9, 14
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
Both = Callable[..., list[tuple[Tensor, Tensor]]]


@pytest.fixture(params=["tensors", "pretended", pytest.param("cuda", marks=GPU)])
def both(request) -> Iterator[Both]:
    """Results of a function as by loops, and as by tensors elsewhere, with maps there and state on the host."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # it rounds to ten bits

    def compared(function: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> list[tuple[Tensor, Tensor]]:
        by_loops = function(*given)
        if request.param == "tensors":
            with tensors_only():
                return list(zip(by_loops, function(*given), strict=True))
        if request.param == "cuda":
            elsewhere = function(*(there(x, torch.device("cuda")) for x in given))
            return list(zip(by_loops, (x.cpu() for x in elsewhere), strict=True))
        with PretendedDevice():
            elsewhere = function(*(there(x, DEVICE) for x in given))
            return list(zip(by_loops, [x.cpu() for x in elsewhere], strict=True))

    yield compared
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def there(x: Tensor, device: torch.device) -> Tensor:
    """Maps go over; poses and intrinsics, float64, stay on the host, and so do numbers of edges."""
    return x.to(device) if x.dtype in (torch.float32, torch.uint8) else x


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


def test_tensors_are_for_gradients_other_types_and_whoever_wants_them():
    x = torch.ones(2)
    assert runs_as_loop(x) and not runs_as_loop(x.double())
    assert not runs_as_loop(x, x, torch.ones(2, requires_grad=True))
    with tensors_only():
        assert not runs_as_loop(x)
    assert runs_as_loop(x)


@pytest.mark.parametrize("unsure", [False, True])
def test_reprojection_and_trust(both, edges, unsure: bool):
    given = [edges[name] for name in ("inv_depth", "T_ji", "K")] + [edges["sigma"]] * unsure
    (uv, uv_b), (trust, trust_b) = both(lambda *x: reproject_with_trust(*x, flow_sigma=0.1), *given)
    torch.testing.assert_close(uv, uv_b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trust, trust_b, rtol=1e-4, atol=1e-5)
    assert (trust[2] == 0).any() and (trust > 0.1).any() and (not unsure or (trust[0] < 0.9).any())


def test_deviations_of_flow(both, edges):
    """Also of cells of unknown depth and without weight, and of an edge of which nothing is known."""
    edges["inv_depth"][0, 2] = 0
    edges["weight"][1, 3], edges["weight"][1, 4, :, 0] = 0, 0
    edges["target_uv"][2] = -5.0
    given = [edges[name] for name in ("inv_depth", "sigma", "target_uv", "weight", "start", "K")]
    (deviation, deviation_b), (known, known_b) = both(flow_deviations, *given)
    assert torch.equal(known, known_b) and known[:2].float().mean() > 0.5 and not known[0, 2].any()
    assert not known[1, 3].any() and known[1, 4].any() and not known[2].any()
    torch.testing.assert_close(deviation[known], deviation_b[known], rtol=1e-3, atol=1e-3)


def coupled(weight: Tensor) -> Tensor:
    """Weights (..., 2) of u and v with what couples them, (..., 3)."""
    u, v = weight.unbind(-1)
    return torch.stack([u, v, 0.9 * (u * v).sqrt() * torch.linspace(-1, 1, W)], -1)


@pytest.mark.parametrize("is_coupled", [False, True])
@pytest.mark.parametrize("huber_px", [None, 0.3])
def test_normal_equations(both, edges, huber_px: float | None, is_coupled: bool):
    if is_coupled:
        edges["weight"] = coupled(edges["weight"])
    given = [edges[name] for name in ("target_uv", "weight", "inv_depth", "start", "K")]
    for a, b in both(lambda *x: normal_equations(*x, huber_px), *given):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("huber_px", [None, 0.3])
def test_pose_steps(both, edges, huber_px: float | None):
    """Also of an edge without weight, which is refused and stays where it was."""
    edges["weight"][1] = 0
    given = [edges[name] for name in ("target_uv", "weight", "inv_depth", "start", "K")]

    def solved(*x: Tensor) -> tuple[Tensor, Tensor]:
        solution = pose_step(*x, steps=3, huber_px=huber_px)
        assert solution.T.device == solution.ok.device == x[3].device  # solved where the poses are
        return solution.T, solution.ok * solution.T.sum()

    (T, T_b), (ok, ok_b) = both(solved, *given)
    torch.testing.assert_close(T, T_b, rtol=0, atol=1e-4)
    assert ((ok != 0) == (ok_b != 0)).all() and ok[1] == 0 and ok[0] != 0
    assert torch.equal(T[1], edges["start"][1]) and not torch.equal(T[0], edges["start"][0])


def test_weights_that_couple_are_those_of_turned_axes(edges):
    """An information [[u, c], [c, v]] is one without c in axes that are turned: residual and derivatives turn along."""
    u, v, c = coupled(edges["weight"]).double().unbind(-1)
    J = torch.randn(E, H, W, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    angle = 0.5 * torch.atan2(2 * c, u - v)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    half, spread = 0.5 * (u + v), torch.hypot(0.5 * (u - v), c)
    turned = turn @ J
    by_axes = turn.mT @ (torch.stack([half + spread, half - spread], -1)[..., None] * turned)
    torch.testing.assert_close(weighed(torch.stack([u, v, c], -1), J), by_axes)


@pytest.mark.parametrize("is_coupled", [False, True])
@pytest.mark.parametrize("huber_px", [None, 0.3])
def test_bundle_terms(both, edges, huber_px: float | None, is_coupled: bool):
    if is_coupled:
        edges["weight"] = coupled(edges["weight"])
    given = [edges["target_uv"], edges["weight"], edges["inv_depth"][0], edges["start"], edges["K"][0]]
    for a, b in both(lambda *x: tuple(vars(bundle_terms(*x, huber_px)).values()), *given):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_bundle_adjustment(both, edges):
    """The whole solver on one view and three others."""
    weight = edges["weight"].clone()
    weight[2] = 0  # its points are behind the camera
    inv_depth = edges["inv_depth"][:1].expand(E + 1, H, W).contiguous()
    pairs = torch.tensor([(0, n) for n in range(1, E + 1)])
    T_cw = torch.cat([se3.identity()[None], edges["start"]])
    fixed = torch.tensor([True, False, False, True])

    def solved(target_uv: Tensor, weight: Tensor, T_cw: Tensor, inv_depth: Tensor) -> tuple[Tensor, ...]:
        prior = inv_depth, torch.full_like(inv_depth, 0.1)
        solution = bundle_adjust(target_uv, weight, pairs, T_cw, inv_depth, prior, fixed, edges["K"][0], 3)
        assert solution.ok and solution.T_cw.device == T_cw.device and solution.inv_depth.device == weight.device
        return solution.T_cw, solution.inv_depth, solution.depth_information

    for a, b in both(solved, edges["target_uv"], weight, T_cw, inv_depth):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("contrast", [0, 1, 120])
def test_standardised_blocks(both, contrast: int):
    """Of bytes by the loop, of the same as floats by tensors; one image is flat."""
    images = torch.randint(100 - contrast // 2, 101 + contrast, (2, 3, 8, 12), dtype=torch.uint8)
    ((found, expected),) = both(lambda x: (standardised_blocks(x),), images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, standardised_blocks(images.float() / 255), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("moved_px", [0.4, 5.0, 60.0])
def test_splat(both, moved_px: float):
    """Points that are unknown, equally near, out of the image or nowhere at all; both sigma and ties agree exactly."""
    g = torch.Generator().manual_seed(0)
    v, u = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    uv = torch.stack([u, v], -1) + moved_px * torch.randn(24, 32, 2, generator=g)
    inv_depth = (8 * torch.rand(24, 32, generator=g)).floor() / 8  # 0 and ties
    sigma = torch.rand(24, 32, generator=g)
    uv[3, 4], uv[5, 6, 0], uv[7, 8, 1] = float("nan"), float("inf"), 1e9
    (value, value_b), (deviation, deviation_b) = both(splat_inv_depth, uv, inv_depth, sigma)
    assert torch.equal(value, value_b) and torch.equal(deviation, deviation_b)
    assert (value == 0).any() and 0 < value.max() < 1


def test_depth_agreement(both):
    """Two others, one of them partly behind the first; unknown depth on both sides."""
    g = torch.Generator().manual_seed(0)
    inv_depth = torch.rand(3, 24, 32, generator=g) * (torch.rand(3, 24, 32, generator=g) > 0.1)
    T_jk = se3.exp(0.2 * torch.randn(2, 6, generator=g, dtype=torch.float64))
    T_jk[1, 2, 3] = -1.0
    K = torch.tensor([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]], dtype=torch.float64)
    sigma = 0.01 + 0.1 * torch.rand(3, 24, 32, generator=g)

    def agreement(d: Tensor, s: Tensor, T: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        return depth_agreement((d[0], s[0]), list(T), K, [(d[1], s[1]), (d[2], s[2])], 0.2)

    (mean, mean_b), (votes, votes_b) = both(agreement, inv_depth, sigma, T_jk, K)
    assert torch.equal(votes, votes_b) and votes.dtype == torch.int32
    torch.testing.assert_close(mean, mean_b, rtol=1e-4, atol=1e-6)
    assert torch.equal(mean > 0, inv_depth[0] > 0) and (mean != inv_depth[0]).any()
    torch.testing.assert_close(mean[votes == 0], inv_depth[0][votes == 0])
    assert 0.05 < (votes > 0).float().mean() < 0.9 and votes.max() == 2


@pytest.mark.parametrize("patch_px", [4, 6, 10])
def test_photometric_step(both, patch_px: int):
    """Textures a fraction of a pixel apart, of other exposure; cells that lead far out of the image, or nowhere."""
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 1, 12, 16, generator=g)
    big = 255 * torch.nn.functional.interpolate(noise, (50, 66), mode="bicubic", align_corners=True)[:, 0]
    gray_i, gray_j = big[:, 1:49, 1:65].contiguous(), 0.9 * big[:, 2:50, :64].contiguous() + 10
    v, u = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    uv = torch.stack([u, v], -1) + 0.2 * torch.rand(2, 12, 16, 2, generator=g)
    uv[0, :, 10:] += 8
    uv[1, 3, 4] = float("nan")
    found = both(lambda *x: photometric_step(*x, patch_px, 0.5), gray_i, gray_j, uv)
    (shift, shift_b), (covariance, covariance_b) = found
    for a, b in found:  # a pixel whose place is that of the border, but for rounding, may count as seen or not
        off = (a - b).abs() > 2e-3 + 1e-2 * b.abs()
        assert off.float().mean() < 0.005
    assert 0 < (covariance[..., :2] == UNKNOWN).float().mean() < 0.5 and shift.abs().max() > 0.3


def test_rotation_steps(both, edges):
    found = both(lambda *x: (rotation_step(*x, huber_px=0.3),), edges["target_uv"], edges["weight"], edges["K"])
    torch.testing.assert_close(*found[0], rtol=0, atol=1e-4)


def test_inverse_depth_as_another_view_sees_it(both, edges):
    """Warped, inpainted and enlarged."""

    def carried(value: Tensor, sigma: Tensor, T_ji: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        warped = InvDepth(value[0], sigma[0]).warped(T_ji[0], K[0]).inpainted()
        return warped.value, warped.upsampled((18, 28)).sigma, warped.confidence

    for a, b in both(carried, *(edges[name] for name in ("inv_depth", "sigma", "T_ji", "K"))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

import pytest
import torch

from slam.geometry.camera import sample
from slam.kernels.correlation import (
    FeaturePyramid,
    Pyramid,
    correlation,
    lookup,
    pooled_levels,
    pyramid_of,
)


def correlation_pyramid(features_i: torch.Tensor, features_j: torch.Tensor, levels: int) -> list[torch.Tensor]:
    return [correlation(features_i, pooled) for pooled in pooled_levels(features_j, levels)]


def brute_force(features_i: torch.Tensor, features_j: torch.Tensor, uv: torch.Tensor, level: int, radius: int):
    """One level, pixel by pixel, by the definition of pooling, scalar product and bilinear reading."""
    C, h, w = features_i.shape
    pooled = torch.nn.functional.avg_pool2d(features_j[None], 2**level)[0] if level else features_j
    H, W = pooled.shape[-2:]
    out = torch.zeros((2 * radius + 1) ** 2, h, w)
    for y in range(h):
        for x in range(w):
            k = 0
            for dy in range(-radius, radius + 1):
                for dx in range(-radius, radius + 1):
                    u = float((uv[y, x, 0] + 0.5) / 2**level - 0.5) + dx
                    v = float((uv[y, x, 1] + 0.5) / 2**level - 0.5) + dy
                    for b in (int(v // 1), int(v // 1) + 1):
                        for a in (int(u // 1), int(u // 1) + 1):
                            if 0 <= a < W and 0 <= b < H:
                                weight = (1 - abs(u - a)) * (1 - abs(v - b))
                                out[k, y, x] += weight * float(features_i[:, y, x] @ pooled[:, b, a]) / C**0.5
                    k += 1
    return out


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    h, w = 5, 7
    uv = torch.rand(1, h, w, 2) * torch.tensor([w + 4.0, h + 4.0]) - 2.5  # also outside
    return torch.randn(1, 6, h, w), torch.randn(1, 6, h, w), uv


@pytest.mark.parametrize("loops", [False, True])
def test_lookup_equals_brute_force_on_every_level(pair, loops: bool):
    features_i, features_j, uv = pair
    volumes = correlation_pyramid(features_i, features_j, 2)
    found = Pyramid.build(volumes).lookup(uv, 1) if loops else lookup(volumes, uv, 1)
    expected = torch.cat([brute_force(features_i[0], features_j[0], uv[0], level, 1) for level in (0, 1)])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)  # float32 sums of 6 products


def test_loops_and_tensors_give_the_same_gradient_over_several_lookups(pair):
    features_i, features_j, uv = pair
    places = [uv, uv + 0.3, uv - 1.7]
    gradients = []
    for loops in (False, True):
        fi, fj = features_i.clone().requires_grad_(), features_j.clone().requires_grad_()
        pyramid = Pyramid.build(correlation_pyramid(fi, fj, 2))
        looked = [pyramid.lookup(p, 2) if loops else lookup(pyramid.volumes, p, 2) for p in places]
        sum((k + 1) * (x * x).sum() for k, x in enumerate(looked)).backward()
        gradients.append((fi.grad, fj.grad))
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_undefined_and_far_positions_read_zero(pair):
    features_i, features_j, uv = pair
    volumes = correlation_pyramid(features_i, features_j, 2)
    for value in (float("nan"), 1e9, -1e9):
        nowhere = torch.full_like(uv, value)
        assert Pyramid.build(volumes).lookup(nowhere, 3).abs().max() == 0
        assert lookup(volumes, nowhere, 3).abs().max() == 0


@pytest.mark.parametrize("loops", [False, True])
def test_a_level_finer_than_the_flow_is_read_at_twice_the_place(pair, loops: bool):
    """Cell u of 1/8 has its centre at 2 u + 0.5 of a map of 1/4; radius 0 reads the bilinear value there."""
    features_i, _, uv = pair
    fine = torch.randn(1, 6, 10, 14)
    volumes = [correlation(features_i, fine)]
    found = Pyramid.build(volumes, -1).lookup(uv, 0) if loops else lookup(volumes, uv, 0, -1)
    read = sample(fine, 2 * uv + 0.5)  # (1, 6, 5, 7)
    torch.testing.assert_close(found[:, 0], (features_i * read).sum(1) / 6**0.5, rtol=0, atol=1e-5)


def test_products_on_demand_equal_those_of_volumes(pair):
    """Three levels, from twice as fine as the flow on; positions inside, outside and undefined."""
    features_i, features_j, uv = pair
    fine = torch.randn(1, 6, 10, 14)
    uv = torch.cat([uv, torch.full_like(uv[:, :1], float("nan")), torch.full_like(uv[:, :1], 1e9)], 1)[:, 2:]
    pairs = [(features_i, fine), *((features_i, pooled) for pooled in pooled_levels(features_j, 2))]
    expected = lookup([correlation(i, j) for i, j in pairs], uv, 2, -1)
    torch.testing.assert_close(FeaturePyramid(pairs, 2, -1).lookup(uv, 2), expected, rtol=0, atol=1e-5)


def test_gradients_take_the_way_of_volumes(pair):
    features_i, features_j, _ = pair
    assert isinstance(pyramid_of([(features_i, features_j)], 1), FeaturePyramid)
    assert isinstance(pyramid_of([(features_i.requires_grad_(), features_j)], 1), Pyramid)

"""The prior network: what it says before training, what reaches it, and what it costs."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from slam.networks.encoder import EncoderConfig, FeatureMaps
from slam.networks.motion import FlowSE3, MotionNetConfig
from slam.networks.precision import prepare
from slam.networks.prior import FIRST_SIGMA, STRIDE, PriorNet, PriorNetConfig
from slam.networks.storage import PROFILES

ENCODER = EncoderConfig(8, 12, 16, blocks_4=1, blocks_8=1, matching=8, fine=8, stereo=8, image=8)
SIZES = [(48, 64), (64, 48), (16, 24), (40, 104), (104, 40)]  # down to a single cell at 1/32, sides odd at 1/8


def network(seed: int | None = None) -> PriorNet:
    """Untrained; with a seed all its weights are random, as after training."""
    torch.manual_seed(0)
    prior = PriorNet(ENCODER, PriorNetConfig(12, 12, 16, 16))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    return prior


def features(height: int, width: int, count: int = 2) -> FeatureMaps:
    """Of images of noise."""
    torch.manual_seed(1)
    motion = FlowSE3(ENCODER, MotionNetConfig(8, 8, levels=2, radius=2))
    return motion.encode(torch.rand(count, 3, height, width))


def lens(height: int, width: int, focal: float = 0.9) -> Tensor:
    """(1, 3, 3) intrinsics; `focal` in longer sides of the image."""
    f = focal * max(height, width)
    return torch.tensor([[[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]]], dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_begins_with_a_constant_depth_of_one_that_is_half_sure(height: int, width: int):
    output = network()(features(height, width), lens(height, width).expand(2, 3, 3))
    cells = (2, height // STRIDE, width // STRIDE)
    torch.testing.assert_close(output.log_inv_depth, torch.zeros(cells))
    torch.testing.assert_close(output.log_sigma.exp(), torch.full(cells, FIRST_SIGMA))
    torch.testing.assert_close(output.full_size(), torch.ones(2, height, width))
    assert output.log_inv_depth.dtype == output.log_sigma.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_trained_one_tells_the_cells_of_an_image_of_any_size_apart(height: int, width: int):
    output = network(2)(features(height, width), lens(height, width).expand(2, 3, 3))
    assert torch.isfinite(output.log_inv_depth).all() and torch.isfinite(output.log_sigma).all()
    assert (output.log_inv_depth.flatten(1).std(1) > 1e-3).all()
    assert not torch.equal(output.log_inv_depth[0], output.log_inv_depth[1])


def test_no_gradient_reaches_the_features():
    """Whatever trains the prior, tracking stays as it is; the prior's own weights all learn."""
    maps = features(48, 64)
    assert maps.trunk.requires_grad and maps.trunk_4.requires_grad
    prior = network(3)
    leaves = FeatureMaps(**{name: m.detach().requires_grad_() for name, m in vars(maps).items()})
    output = prior(leaves, lens(48, 64).expand(2, 3, 3))
    (output.log_inv_depth.square().sum() + output.log_sigma.square().sum()).backward()
    assert all(m.grad is None for m in vars(leaves).values())
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_the_scale_is_the_mean_of_the_log_and_the_shape_has_none():
    """A larger output of the scale moves the whole picture, and nothing in it; the shape's bias moves nothing."""
    maps = FeatureMaps(**{name: x.float() for name, x in vars(features(48, 64)).items()})
    prior, K = network(4), lens(48, 64).expand(2, 3, 3)
    prepare(prior, "float32")  # bfloat16, where the processor is fast at it, rounds more than the tolerances allow
    before = prior(maps, K).log_inv_depth
    prior.scale.bias += 0.7
    torch.testing.assert_close(prior(maps, K).log_inv_depth, before + 0.7)
    prior.shape.bias[0] += 0.4
    torch.testing.assert_close(prior(maps, K).log_inv_depth, before + 0.7, rtol=1e-4, atol=1e-5)
    prior.scale.weight.zero_()
    prior.scale.bias.fill_(-1.2)
    found = prior(maps, K).log_inv_depth
    torch.testing.assert_close(found.mean((1, 2)), torch.full((2,), -1.2), rtol=0, atol=1e-5)
    assert found.std() > 1e-3


@torch.no_grad()
def test_the_lens_enters_and_its_principal_point_too():
    """The same features, seen through another lens: another depth."""
    maps, prior = features(48, 64, count=1), network(5)
    K = lens(48, 64)
    shifted = K.clone()
    shifted[:, 0, 2] += 8
    first, wide, moved = (prior(maps, told).log_inv_depth for told in (K, lens(48, 64, 0.5), shifted))
    for other in (wide, moved):
        assert float((other - first).abs().max()) > 1e-3


@torch.no_grad()
def test_full_size_is_the_inverse_depth_at_the_pixels():
    """Cell c is centred between pixels 4 c + 1 and 4 c + 2: a log that grows by 0.4 a cell grows by 0.1 a pixel."""
    output = network()(features(48, 64, 1), lens(48, 64))
    output.log_inv_depth[:] = 0.4 * torch.arange(16.0)
    expected = (0.1 * (torch.arange(64.0) - 1.5))[2:-2].exp().expand(44, 60)
    torch.testing.assert_close(output.full_size()[0, 2:-2, 2:-2], expected)


@torch.no_grad()
def test_a_picture_of_the_fast_profile_costs_less_than_a_billion_operations():
    """Multiplications and additions, without the encoder, whose features tracking has computed anyway."""
    config = PROFILES["fast"]
    h, w, e = config.height, config.width, config.encoder
    maps = {n: torch.zeros(1, 1, 1, 1) for n in ("matching", "fine_i", "fine_j")}
    maps |= {"trunk": torch.zeros(1, e.width_8, h // 8, w // 8), "trunk_4": torch.zeros(1, e.width_4, h // 4, w // 4)}
    prior = PriorNet(e, config.prior)
    with FlopCounterMode(display=False) as counter:
        prior(FeatureMaps(**maps), lens(h, w))
    assert (w, h) == (256, 192) and 0.5e9 < counter.get_total_flops() < 1e9


@torch.no_grad()
def test_depths_out_of_any_proportion_are_cut_off():
    prior = network()
    prior.scale.bias.fill_(50.0)
    found = prior(features(48, 64, 1), lens(48, 64))
    assert float(found.log_inv_depth.max()) == 6.0 and math.isfinite(float(found.full_size().max()))

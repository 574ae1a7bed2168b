"""The prior in the system: cells of the correspondence, features of tracking, and how sure it may be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import ConfigError
from slam.frames import Image, View
from slam.matching.learned_flow import LearnedFlow
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import FlowSE3
from slam.networks.prior import PriorNet, PriorNetConfig
from slam.stereo.prior import LearnedPrior, PriorConfig, build_prior

H, W = 48, 64
ENCODER = EncoderConfig(8, 8, 8, matching=8, fine=8, stereo=8, image=8)
LENS = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]], dtype=torch.float64)


def view(number: int) -> View:
    image = Image(np.random.default_rng(number).integers(0, 255, (H, W, 3), np.uint8))
    return View(number, number, image, LENS)


@pytest.fixture
def networks() -> tuple[FlowSE3, PriorNet]:
    """With random weights, as far as they were zero."""
    torch.manual_seed(0)
    motion, prior = FlowSE3(ENCODER), PriorNet(ENCODER, PriorNetConfig(8, 8, 8, 8))
    for parameter in prior.shape.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return motion, prior


@pytest.mark.parametrize("stride", [4, 8])
def test_cells_have_the_mean_log_of_those_of_the_network(networks, stride):
    motion, network = networks
    v = view(0)
    found = LearnedPrior(LearnedFlow(motion), network, stride, PriorConfig(min_deviation=0.15))(v)
    with torch.no_grad():
        output = network(motion.encode(torch.from_numpy(v.image.rgb).permute(2, 0, 1)[None]), LENS[None])
    blocks = output.log_inv_depth[0].view(H // stride, stride // 4, W // stride, stride // 4)
    assert found.size == (H // stride, W // stride) and found.value.dtype == torch.float32
    torch.testing.assert_close(found.value.log(), blocks.mean((1, 3)), rtol=1e-4, atol=1e-5)


def test_it_is_never_surer_than_it_may_be_and_says_how_unsure_it_is(networks):
    motion, network = networks
    flow, v = LearnedFlow(motion), view(0)
    free = LearnedPrior(flow, network, 4, PriorConfig(min_deviation=0.15))(v).relative_sigma
    held = LearnedPrior(flow, network, 4, PriorConfig(min_deviation=0.5))(v).relative_sigma
    assert free.min() >= 0.15 * 0.999 and (free < 0.5).any() and (free > 0.5).any()
    torch.testing.assert_close(held, free.clamp_min(0.5))


def test_a_view_is_looked_at_once_and_its_features_are_those_of_tracking(networks, monkeypatch):
    motion, network = networks
    encoded: list[int] = []
    encode = motion.encode
    monkeypatch.setattr(motion, "encode", lambda images: encoded.append(len(images)) or encode(images))
    flow = LearnedFlow(motion)
    prior, views = LearnedPrior(flow, network, 4), [view(0), view(1)]
    flow.encode([v.image for v in views])
    ran: list[int] = []
    network.register_forward_hook(lambda *_: ran.append(1))
    first, again, other = prior(views[0]), prior(views[0]), prior(views[1])
    assert sum(encoded) == 2 and len(ran) == 2
    assert torch.equal(first.value, again.value) and not torch.equal(first.value, other.value)
    wider = LENS.clone()
    wider[0, 0] = wider[1, 1] = 40.0
    assert not torch.equal(prior(replace(views[0], K=wider)).value, first.value)  # the same image, another lens
    assert len(ran) == 3 and sum(encoded) == 2


def test_there_is_a_prior_where_there_are_networks_and_it_is_wanted(networks):
    motion, network = networks
    flow = LearnedFlow(motion)
    assert build_prior(PriorConfig(), flow, network, 4) is not None
    assert build_prior(PriorConfig(enabled=False), flow, network, 4) is None
    assert build_prior(PriorConfig(), None, None, 4) is None
    with pytest.raises(ConfigError, match=r"min_deviation must be from 0\.15 to 10, got 0\.1"):
        PriorConfig(min_deviation=0.1)

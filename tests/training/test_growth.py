import pytest
import torch

from slam.errors import WeightsError
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.stereo import StereoNetConfig
from slam.networks.storage import NetworkConfig, Networks
from slam.training.growth import grow_weights

SMALL = NetworkConfig(
    "small",
    64,
    48,
    EncoderConfig(8, 16, 24, blocks_4=1, blocks_8=1, matching=24, fine=8, stereo=8, image=8),
    MotionNetConfig(hidden=16, motion=12, levels=2, radius=2),
    StereoNetConfig(groups=4, width=8, planes=16, near_planes=8),
)
LARGE = NetworkConfig(
    "large",
    64,
    48,
    EncoderConfig(12, 20, 40, blocks_4=2, blocks_8=3, matching=24, fine=8, stereo=8, image=12),
    MotionNetConfig(hidden=24, motion=20, levels=3, radius=2),
    StereoNetConfig(groups=4, width=12, planes=16, near_planes=8),
)


def networks(config: NetworkConfig, weights: dict | None = None) -> Networks:
    torch.manual_seed(0)
    made = Networks(config)
    state = made.state_dict()
    if weights is None:  # every weight has a part in the result, also those that begin at zero
        weights = {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}
    made.load_weights(weights, "test")
    return made.eval()


@torch.no_grad()
def test_a_grown_network_computes_what_the_small_one_does():
    small = networks(SMALL)
    large = networks(LARGE, grow_weights(small.state_dict(), SMALL, LARGE))
    images = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    T_jk = torch.eye(4, dtype=torch.float64).repeat(1, 2, 1, 1)
    T_jk[0, :, 0, 3] = torch.tensor([0.1, -0.2], dtype=torch.float64)
    K = torch.tensor([[[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]], dtype=torch.float64)
    found = []
    for motion, stereo in ((n.motion, n.stereo) for n in (small, large)):
        with torch.autocast("cpu", enabled=False):
            maps = motion.encode(images)
            uv = torch.rand(1, 6, 8, 2, generator=torch.Generator().manual_seed(2)) * 6
            state = motion.start(motion.context(maps[:1]), maps[:1], maps[1:2])
            for _ in range(2):
                state, residual_uv, weight = motion.update(state, uv)
            seen = motion.encode_for_stereo(maps, images)
            depth = stereo(seen[:1], [seen[1:2], seen[2:3]], T_jk, K, torch.tensor([0.2]), torch.tensor([2.0]))
        found.append([residual_uv, weight, depth.inv_depth, depth.sigma])
    for a, b in zip(*found):
        assert a.std() > 1e-3
        torch.testing.assert_close(a, b, rtol=0, atol=0.02 * a.abs().max().item())


def test_new_channels_learn():
    """What reads them begins at zero and moves at the first step."""
    small = networks(SMALL)
    motion = networks(LARGE, grow_weights(small.state_dict(), SMALL, LARGE)).motion
    maps = motion.encode(torch.rand(2, 3, 48, 64))
    state = motion.start(motion.context(maps[:1]), maps[:1], maps[1:])
    _, residual_uv, _ = motion.update(state, torch.rand(1, 6, 8, 2) * 6)
    residual_uv.square().sum().backward()
    grad, weight = motion.head.weight.grad, motion.head.weight
    assert (weight[:64, 16:] == 0).all() and (grad[:64, 16:].abs() > 0).any()


def test_what_is_matched_must_have_the_same_size():
    other = NetworkConfig("other", 64, 48, LARGE.encoder, LARGE.motion, StereoNetConfig(groups=8, width=12))
    with pytest.raises(WeightsError, match=r"stereo.groups must be equal to 4, is 8"):
        grow_weights(networks(SMALL).state_dict(), SMALL, other)
    with pytest.raises(WeightsError, match=r"at least 12, is 8"):
        grow_weights(networks(LARGE).state_dict(), LARGE, SMALL)

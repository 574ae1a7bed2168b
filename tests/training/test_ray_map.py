"""One prior for lenses of 60 and of 90 degrees: the directions of the pixels enter the network."""

import math

import torch
from torch import Tensor

from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import rays
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import FlowSE3, MotionNetConfig
from slam.networks.prior import STRIDE, PriorNet, PriorNetConfig
from slam.training.losses import prior_loss

HEIGHT, WIDTH = 48, 64
STEPS = 400
WALL = 0.2  # inverse depth; the floor is one unit below the camera, so its inverse depth is the slope of the ray


def lens(degrees: float) -> Tensor:
    """(3, 3) intrinsics of a field of view across."""
    focal = 0.5 * WIDTH / math.tan(math.radians(degrees) / 2)
    return torch.tensor([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]], dtype=torch.float64)


def floor_and_wall(K: Tensor) -> Tensor:
    """(B, h, w) inverse depth at the cells of a level camera."""
    ray = rays(scaled_intrinsics(K, 1 / STRIDE), HEIGHT // STRIDE, WIDTH // STRIDE)
    return ray[..., 1].clamp_min(WALL).float()


def test_the_same_room_through_two_lenses_has_the_same_depth():
    """One picture of noise through both lenses: nothing but the directions tells them apart. The slope of a pixel's ray
    is 1.73 times as large through the wide one: a network that takes both for 75 degrees is wrong by a fifth."""
    torch.manual_seed(0)
    config = EncoderConfig(8, 12, 16, blocks_4=1, blocks_8=1, matching=8, stereo=8, image=8)
    motion = FlowSE3(config, MotionNetConfig(hidden=8, motion=8, levels=2, radius=2))
    prior = PriorNet(config, PriorNetConfig(16, 16, 24, 24))
    optimiser = torch.optim.Adam(prior.parameters(), 5e-3)
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = motion.encode(image.expand(2, -1, -1, -1))
    K = torch.stack([lens(60), lens(90)])
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * (1 - step / STEPS)
        loss, _ = prior_loss(prior(maps, K), floor_and_wall(K), scale_weight=1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def errors(told: Tensor) -> Tensor:
        with torch.no_grad():
            found = prior(maps, told).log_inv_depth
        error = (found - floor_and_wall(K).log()).abs()
        return error[:, HEIGHT // STRIDE // 2 + 2 :].mean((1, 2))  # of the floor

    assert errors(K).max() < 0.08
    assert errors(lens(75).expand(2, 3, 3)).min() > 0.14

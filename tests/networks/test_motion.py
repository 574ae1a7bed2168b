import pytest
import torch

from slam.geometry.camera import pixel_grid
from slam.geometry.flow import reproject
from slam.kernels.standardise import standardise
from slam.networks.encoder import EncoderConfig, ResidualBlock
from slam.networks.motion import FlowSE3, MotionNetConfig
from slam.solvers.flow_se3 import flow_se3

H, W = 48, 64
K = torch.tensor([[7.0, 0, 3.5], [0, 7.0, 2.5], [0, 0, 1]], dtype=torch.float64)  # at 1/8


@pytest.fixture
def network() -> FlowSE3:
    torch.manual_seed(0)
    return FlowSE3(
        EncoderConfig(8, 16, 24, matching=24, stereo=8, image=8), MotionNetConfig(16, 16, levels=2, radius=2)
    )


def eye(count: int) -> torch.Tensor:
    return torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)


def test_gradients_reach_every_weight_of_motion_through_the_unrolled_solver(network):
    """The loss sees poses alone, so everything must come through Gauss-Newton."""
    for module in network.modules():
        if isinstance(module, ResidualBlock):  # born at zero, where its first convolution has no gradient
            torch.nn.init.normal_(module.second.weight, std=0.05)
    images = torch.rand(2, 3, H, W)
    maps = network.encode(images)
    edges = torch.tensor([[0, 1], [1, 0]])
    steps = network(maps, edges, torch.full((2, H // 8, W // 8), 0.7), eye(2), K.expand(2, 3, 3), iters=2)
    assert all(step.ok.all() for step in steps)
    sum((step.T_ji[:, :3] ** 2).sum() for step in steps).backward()
    for name, parameter in network.named_parameters():
        if not name.startswith(("encoder.stereo", "encoder.from_8")):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("height", "width"), [(16, 24), (40, 104), (96, 64)])
def test_any_multiple_of_eight_runs_and_weights_are_probabilities(network, height: int, width: int):
    maps = network.encode(torch.rand(2, 3, height, width))
    first = maps[torch.tensor([0, 0])]
    state = network.start(network.context(first), first, maps)
    uv = pixel_grid(height // 8, width // 8, like=torch.zeros(1)).expand(2, -1, -1, -1)
    with torch.no_grad():
        state, residual_uv, weight = network.update(state, uv)
        state, residual_uv, weight = network.update(state, uv + residual_uv)
    assert residual_uv.shape == weight.shape == (2, height // 8, width // 8, 2)
    assert weight.min() >= 0 and weight.max() <= 1
    assert residual_uv.dtype == weight.dtype == torch.float32 and torch.isfinite(residual_uv).all()
    with pytest.raises(ValueError, match="multiples of 8"):
        network.encode(torch.rand(1, 3, height + 4, width))


@torch.no_grad()
def test_edges_of_a_batch_do_not_influence_each_other(network):
    """Three edges at once against one at a time."""
    maps = network.encode(torch.rand(3, 3, H, W))
    pairs = [(0, 1), (0, 2), (2, 1)]
    depth = torch.rand(3, H // 8, W // 8) + 0.5

    def run(i: list[int], j: list[int], inv_depth: torch.Tensor) -> torch.Tensor:
        maps_i, maps_j = maps[torch.tensor(i)], maps[torch.tensor(j)]
        state = network.start(network.context(maps_i), maps_i, maps_j)
        return flow_se3(network.update, state, inv_depth, eye(len(i)), K.expand(len(i), 3, 3), 2)[-1].T_ji

    together = run([i for i, _ in pairs], [j for _, j in pairs], depth)
    for e, (i, j) in enumerate(pairs):
        # half precision may round other batch sizes differently: 1e-2 of motions of about 0.1
        torch.testing.assert_close(run([i], [j], depth[e : e + 1])[0], together[e], rtol=0, atol=1e-2)


def test_unknown_depth_gets_no_weight_and_the_solver_recovers_a_motion_from_perfect_flow():
    """A correspondence that knows the truth: three iterations end at the true pose to 1e-6."""
    torch.manual_seed(0)
    inv_depth = torch.rand(1, 6, 8, dtype=torch.float64) + 0.5
    inv_depth[0, 2, 3] = 0
    T_true = eye(1)
    T_true[0, 0, 3], T_true[0, 2, 3] = 0.1, -0.05
    target, _, _ = reproject(inv_depth, T_true, K[None])

    def update(state, uv):
        return state, target - uv, torch.ones_like(uv)

    steps = flow_se3(update, None, inv_depth, eye(1), K[None], iters=3)
    assert steps[0].weight[0, 2, 3].max() == 0 and steps[0].weight[0, 0, 0].min() == 1
    torch.testing.assert_close(steps[-1].T_ji, T_true, rtol=0, atol=1e-6)


def test_exposure_and_contrast_do_not_reach_the_network():
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(standardise(0.3 * images + 0.2), standardise(images), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(standardise(torch.zeros(1, 3, 8, 8))).all()

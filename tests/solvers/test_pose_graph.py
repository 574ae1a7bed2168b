"""The pose graph: a chain that drifts in place and scale, and a loop that tells."""

import torch

from slam.geometry import se3, sim3
from slam.solvers.pose_graph import pose_graph

COUNT = 24
WEIGHT = torch.tensor([1e4] * 3 + [1e5] * 3 + [2.5e3], dtype=torch.float64)


def ring() -> torch.Tensor:
    """(COUNT, 4, 4) cameras on a circle of radius 3, each turned to the next."""
    angle = 2 * torch.pi * torch.arange(COUNT, dtype=torch.float64) / COUNT
    omega = torch.stack([0 * angle, angle, 0 * angle], -1)
    centre = torch.stack([3 * angle.sin(), 0 * angle, 3 * angle.cos()], -1)
    return se3.from_rt(se3.so3_exp(omega), centre)


def drifting(S: torch.Tensor, scale_change: float, turn: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The chain as a system with drift measures it, and its steps: each grows and turns a little more than is true."""
    error = sim3.exp(torch.tensor([0, 0, 0, 0, turn, 0, scale_change], dtype=torch.float64))
    steps = sim3.inverse(S[:-1]) @ S[1:] @ error
    chain = [S[0]]
    for step in steps:
        chain.append(chain[-1] @ step)
    return torch.stack(chain), steps


def distance(S: torch.Tensor, truth: torch.Tensor) -> float:
    return float((S[:, :3, 3] - truth[:, :3, 3]).norm(dim=-1).max())


def chain_edges() -> torch.Tensor:
    return torch.tensor([(n, n + 1) for n in range(COUNT - 1)])


def test_a_loop_takes_out_drift_of_place_and_scale():
    truth = ring()
    chain, steps = drifting(truth, scale_change=0.01, turn=0.003)
    assert distance(chain, truth) > 0.5
    edges = torch.cat([chain_edges(), torch.tensor([(0, COUNT - 1)])])
    measured = torch.cat([steps, (sim3.inverse(truth[:1]) @ truth[-1:])])
    solution = pose_graph(chain, edges, measured, WEIGHT.expand(len(edges), 7))
    assert distance(solution.S_wk, truth) < 0.15 * distance(chain, truth)
    assert float((sim3.scale(solution.S_wk) - 1).abs().max()) < 0.15
    torch.testing.assert_close(solution.S_wk[0], chain[0])


def test_exact_measurements_are_met_from_any_start():
    truth = ring()
    generator = torch.Generator().manual_seed(0)
    start = sim3.exp(0.05 * torch.randn(COUNT, 7, generator=generator, dtype=torch.float64)) @ truth
    start[0] = truth[0]
    edges = torch.cat([chain_edges(), torch.tensor([(0, COUNT - 1), (5, 17)])])
    measured = sim3.inverse(truth[edges[:, 0]]) @ truth[edges[:, 1]]
    solution = pose_graph(start, edges, measured, WEIGHT.expand(len(edges), 7))
    torch.testing.assert_close(solution.S_wk, truth, atol=1e-6, rtol=0)
    assert float(solution.residual.max()) < 1e-3


def test_the_kernel_bounds_a_wrong_loop():
    truth = ring()
    edges = torch.cat([chain_edges(), torch.tensor([(0, COUNT - 1), (2, 12)])])
    measured = sim3.inverse(truth[edges[:, 0]]) @ truth[edges[:, 1]]
    measured[-1] = sim3.exp(torch.tensor([1.0, 0, 0, 0, 0.5, 0, 0.3], dtype=torch.float64)) @ measured[-1]
    weight = WEIGHT.expand(len(edges), 7)
    believed = pose_graph(truth, edges, measured, weight)
    doubted = pose_graph(truth, edges, measured, weight, huber=3.0)
    assert distance(doubted.S_wk, truth) < 0.75 * distance(believed.S_wk, truth)
    assert float(doubted.residual[-1]) > 10 * float(doubted.residual[:-1].median())


def test_metric_edges_keep_the_scale():
    """A large weight of the scale makes it a graph over rigid motions."""
    truth = ring()
    chain, steps = drifting(truth, scale_change=0.0, turn=0.01)
    edges = torch.cat([chain_edges(), torch.tensor([(0, COUNT - 1)])])
    measured = torch.cat([steps, sim3.inverse(truth[:1]) @ truth[-1:]])
    weight = WEIGHT.expand(len(edges), 7).clone()
    weight[:, 6] = 1e12
    solution = pose_graph(chain, edges, measured, weight)
    assert float((sim3.scale(solution.S_wk) - 1).abs().max()) < 1e-5
    assert distance(solution.S_wk, truth) < 0.3 * distance(chain, truth)

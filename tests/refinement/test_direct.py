"""Depth optimised directly: what holds it, and what it follows. All frames begin 10 % too near."""

import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.refinement.constraints import Constraints
from slam.refinement.direct import DirectConfig, optimised
from slam.refinement.losses import ConsistencyWeights

STEPS = 25  # of at most a hundredth each


@pytest.fixture(scope="module")
def exact(room) -> Constraints:
    return room.constraints([(n, n + 6) for n in range(0, 18)])


def moved(room, constraints: Constraints, sigma: Tensor, config: DirectConfig) -> Tensor:
    """(N, h, w) by how much the log inverse depth has gone back to the truth."""
    measured = room.cells.log() + 0.1
    return measured - optimised(measured, sigma, torch.zeros_like(measured), constraints, config=config)


def test_what_was_measured_well_stays_longer(room, exact):
    """The left half is known to 2 %, the right one is a guess; without smoothness they do not know of each other."""
    sigma = torch.full_like(room.cells, 1.0)
    sigma[..., :16] = 0.02
    found = moved(room, exact, sigma, DirectConfig(steps=STEPS, anchor=10.0, smoothness=0.0))
    assert found[..., 16:].mean() > 0.02
    assert found[..., :16].mean() < 0.5 * found[..., 16:].mean()
    free = moved(room, exact, sigma, DirectConfig(steps=STEPS, anchor=0.0, smoothness=0.0))
    assert free[..., :16].mean() > 0.6 * free[..., 16:].mean() > 0.02  # they see other things, at other depths


def test_cells_that_no_pair_tells_of_follow_those_beside_them(room, exact):
    """Every other column does not count."""
    static = torch.ones_like(room.cells)
    static[..., ::2] = 0
    flows = type(exact.flows)(
        exact.flows.index,
        torch.zeros_like(exact.flows.displacement),  # to the same column, so that the weights of both ends agree
        exact.flows.confidence,
        torch.ones_like(exact.flows.mutual),
    )
    still = torch.eye(4).expand(len(exact), 4, 4)
    constraints = Constraints(flows, still, exact.K, static, exact.stride)
    generator = torch.Generator().manual_seed(0)
    flicker = 0.1 * torch.randn(len(room.cells), 1, 1, generator=generator)
    measured = room.cells[:1].log() + flicker  # one view of a still camera; its depths flicker
    sigma, gray = torch.full_like(measured, 1.0), torch.zeros_like(measured)
    for smoothness in (5.0, 0.0):
        config = DirectConfig(steps=STEPS, anchor=0.0, smoothness=smoothness)
        found = optimised(measured, sigma, gray, constraints, ConsistencyWeights(), config)
        told, others = ((found - measured)[..., n::2].mean((1, 2)) for n in (1, 0))
        assert told.abs().mean() > 0.02
        if smoothness:
            assert (others - told).abs().mean() < 0.3 * told.abs().mean()
        else:
            assert others.abs().max() == 0


def test_nothing_to_agree_on_changes_nothing(room, exact):
    measured = room.cells.log()
    none = exact.flows.chosen(torch.tensor([], dtype=torch.int64))
    constraints = Constraints(none, exact.T_ji[:0], exact.K, exact.static, exact.stride)
    sigma = torch.ones_like(measured)
    assert torch.equal(optimised(measured, sigma, sigma, constraints), measured)
    assert torch.equal(optimised(measured, sigma, sigma, exact, stop=lambda: True), measured)
    assert torch.equal(optimised(measured, sigma, sigma, exact, config=DirectConfig(steps=0)), measured)


def test_settings_out_of_range_are_refused():
    for values in ({"steps": -1}, {"anchor": float("nan")}, {"smoothness": -0.1}):
        with pytest.raises(ConfigError, match="must be from"):
            DirectConfig(**values)

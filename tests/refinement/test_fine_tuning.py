"""A head that learns one video: the network that it was copied from stays, broken steps are left out, it goes on."""

from types import SimpleNamespace

import pytest
import torch

from slam.matching.learned_flow import LearnedFlow
from slam.refinement.fine_tuning import FineTuningConfig, TrunkMaps, TunedHead


@pytest.fixture(scope="module")
def setting(room, untrained) -> SimpleNamespace:
    """Untrained networks, the maps of the room's frames, its true depth as measured, and exact constraints."""
    networks = untrained
    maps = TrunkMaps.of(room.clip.views, LearnedFlow(networks.motion))
    constraints = room.constraints([(n, n + 1) for n in range(23)])
    sigma = torch.full_like(room.cells, 0.02)
    return SimpleNamespace(
        networks=networks, maps=maps, constraints=constraints, measured=room.cells.log(), sigma=sigma, K=room.clip.K
    )


def fit(setting: SimpleNamespace, head: TunedHead, steps: int, **changes) -> list[dict[str, float]]:
    """Train up to so many steps, counted from the first; returns the parts of the loss, step by step."""
    told: list[dict[str, float]] = []
    values = vars(setting) | changes
    head.fit(
        *(values[name] for name in ("maps", "measured", "sigma", "constraints")),
        config=FineTuningConfig(steps=steps),
        tell=lambda step, parts: told.append(parts),
        stop=values.get("stop", lambda: False),
    )
    return told


def state_of(head: TunedHead) -> dict[str, torch.Tensor]:
    """A copy; on the CPU the state itself is the memory of the weights."""
    return {name: x.clone() for name, x in head.state().items()}


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_what_was_measured_and_the_networks_stay(setting):
    """The rate is the program's; an untrained network begins at a factor of several. Bit by bit the networks are
    unchanged: tracking reads the same trunk."""
    before = weights(setting.networks)
    trainable = {name for name, p in setting.networks.named_parameters() if p.requires_grad}
    head = TunedHead(setting.networks.prior, setting.K)
    distances = [(head.outputs(setting.maps).log_inv_depth - setting.measured).abs().mean()]
    fit(setting, head, 40)
    distances.append((head.outputs(setting.maps).log_inv_depth - setting.measured).abs().mean())
    assert head.done == 40 and distances[1] < 0.7 * distances[0]
    assert_same(before, weights(setting.networks))
    assert trainable == {name for name, p in setting.networks.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in setting.networks.parameters())
    learned = head.network.state_dict()
    assert any(not torch.equal(learned[name], value) for name, value in setting.networks.prior.state_dict().items())


def test_the_same_seed_gives_the_same_head(setting):
    heads = [TunedHead(setting.networks.prior, setting.K) for _ in range(2)]
    for head in heads:
        fit(setting, head, 5)
    assert_same(heads[0].state(), heads[1].state())


def test_a_step_that_is_no_number_is_left_out(setting):
    """What was measured has a NaN for its sigma: in all frames, so that no step is taken, or in the last ones."""
    head = TunedHead(setting.networks.prior, setting.K)
    fit(setting, head, 3)
    before = state_of(head)
    everywhere = torch.full_like(setting.sigma, torch.nan)
    fit(setting, head, 6, sigma=everywhere)
    assert head.done == 6
    after = state_of(head)
    assert_same(*({name: x for name, x in state.items() if name != "done"} for state in (before, after)))
    somewhere = setting.sigma.clone()
    somewhere[20:] = torch.nan
    fit(setting, head, 30, sigma=somewhere)
    assert all(torch.isfinite(x).all() for x in state_of(head).values())
    assert any(not torch.equal(after[name], x) for name, x in state_of(head).items() if name != "done")


def test_it_goes_on_from_its_state(setting):
    head = TunedHead(setting.networks.prior, setting.K)
    head.log_scale = 0.7
    fit(setting, head, 4)
    other = TunedHead(setting.networks.prior, setting.K)
    kept = state_of(head)
    other.restore(kept)
    assert (other.done, other.log_scale) == (4, pytest.approx(0.7))
    assert_same(state_of(head), other.state())
    for name in ("log_inv_depth", "log_sigma"):
        assert torch.equal(getattr(head.outputs(setting.maps), name), getattr(other.outputs(setting.maps), name))
    assert len(fit(setting, other, 6)) == 2  # steps that were left
    assert_same(state_of(head), kept)  # and the state that was given to it is not its own


def test_asking_for_depth_changes_nothing(setting):
    """The averaged weights answer, the current ones are trained."""
    head = TunedHead(setting.networks.prior, setting.K)
    fit(setting, head, 3)
    before = state_of(head)
    first = head.outputs(setting.maps)
    assert_same(before, state_of(head))
    assert torch.equal(first.log_inv_depth, head.outputs(setting.maps).log_inv_depth)
    current = weights(head.network)
    assert any(not torch.equal(head.average[name], x) for name, x in current.items())


def test_the_unit_of_the_map_is_added_to_depth_alone(setting):
    head = TunedHead(setting.networks.prior, setting.K)
    plain = head.outputs(setting.maps)
    head.log_scale = 0.5
    scaled = head.outputs(setting.maps)
    torch.testing.assert_close(scaled.log_inv_depth, plain.log_inv_depth + 0.5)
    assert torch.equal(scaled.log_sigma, plain.log_sigma)


def test_it_ends_when_it_is_told_to(setting):
    head = TunedHead(setting.networks.prior, setting.K)
    asked = iter([False, False, True])
    assert len(fit(setting, head, 100, stop=lambda: next(asked))) == 2
    assert fit(setting, head, 100, stop=lambda: True) == [] and head.done == 2
    nothing = setting.constraints.flows.chosen(torch.tensor([], dtype=torch.int64))
    constraints = type(setting.constraints)(
        nothing, setting.constraints.T_ji[:0], setting.constraints.K, setting.constraints.static, 4
    )
    assert fit(setting, head, 100, constraints=constraints) == []  # without pairs there is nothing to learn


def test_trunk_maps_are_those_of_the_encoder(setting, room):
    """What the head sees in training is what the network saw in the run, up to half precision."""
    maps = LearnedFlow(setting.networks.motion).encode([room.clip.views[3].image])[0]
    kept = setting.maps.features(torch.tensor([3]))
    for name in ("trunk", "trunk_4"):
        torch.testing.assert_close(getattr(kept, name), getattr(maps, name).float(), rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        direct = setting.networks.prior(maps, room.clip.K[None].float()).log_inv_depth
    head = TunedHead(setting.networks.prior, setting.K)
    torch.testing.assert_close(head.outputs(setting.maps).log_inv_depth[3:4], direct, rtol=0, atol=0.02)

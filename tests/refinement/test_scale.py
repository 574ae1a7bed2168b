"""The unit of a map in that of a network."""

import pytest
import torch

from slam.refinement.scale import MIN_KNOWN, calibrated_scale

GENERATOR = torch.Generator().manual_seed(0)
DEPTH = 1 + 3 * torch.rand(9, 24, 32, generator=GENERATOR)  # of the network


def test_the_unit_is_found():
    """A map whose depths are 2.7 times the network's: its translations are multiplied by 1 / 2.7."""
    found = calibrated_scale(DEPTH, 2.7 * DEPTH)
    assert found.scale == pytest.approx(1 / 2.7, rel=1e-6)
    assert found.spread == pytest.approx(0, abs=1e-6) and found.frames == 9


def test_holes_do_not_count():
    """Whatever the network says there."""
    holes = torch.rand(DEPTH.shape, generator=GENERATOR) < 0.7
    told = torch.where(holes, torch.zeros_like(DEPTH), 2.7 * DEPTH)
    network = torch.where(holes, 1000 * DEPTH, DEPTH)
    assert calibrated_scale(network, told).scale == pytest.approx(1 / 2.7, rel=1e-6)


def test_one_frame_changes_nothing():
    """A mean of nine would move by a factor of 1.7 with a frame that is 100 times as far."""
    network = DEPTH.clone()
    network[4] *= 100
    assert calibrated_scale(network, 2.7 * DEPTH).scale == pytest.approx(1 / 2.7, rel=1e-6)
    told = 2.7 * DEPTH
    told[4] = 0
    found = calibrated_scale(network, told)  # and one that the map does not know is not counted
    assert found.scale == pytest.approx(1 / 2.7, rel=1e-6) and found.frames == 8


def test_cells_of_a_frame_vote_too():
    """A third of each frame is wrong by a factor of 5."""
    network = DEPTH.clone()
    network[:, :8] *= 5
    assert calibrated_scale(network, 2.7 * DEPTH).scale == pytest.approx(1 / 2.7, rel=1e-6)


def test_spread_is_that_of_the_frames():
    """Half of the frames lie farther than 0.2 from the median, in logarithms."""
    logs = torch.tensor([-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4])
    found = calibrated_scale(DEPTH * logs.exp()[:, None, None], DEPTH)
    assert found.scale == pytest.approx(1.0) and found.spread == pytest.approx(0.2, rel=1e-4)


def test_a_map_that_knows_nothing_is_refused():
    told = torch.zeros_like(DEPTH)
    told.flatten(1)[:, : int(0.9 * MIN_KNOWN * told[0].numel())] = 1
    with pytest.raises(ValueError, match="known depth"):
        calibrated_scale(DEPTH, told)

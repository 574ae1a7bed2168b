"""The mean over neighbouring frames takes flicker away and nothing else."""

import torch

from slam.refinement.filtering import temporally_filtered


def test_depth_on_which_the_frames_agree_stays(room):
    """Exact depth, off edges: what bilinear samples of a logarithm of inverse depth leave on a slanted plane."""
    still = torch.ones_like(room.inv_depth, dtype=torch.bool)
    change = (temporally_filtered(room.inv_depth.log(), still, room.clip) - room.inv_depth.log()).abs()
    assert change.median() < 5e-4 and change.quantile(0.9) < 5e-3


def test_flicker_between_frames_is_averaged(room):
    """Noise of 2 % that is independent from frame to frame falls to less than half: five frames, twice."""
    generator = torch.Generator().manual_seed(4)
    noise = 0.02 * torch.randn(room.inv_depth.shape, generator=generator)
    still = torch.ones_like(room.inv_depth, dtype=torch.bool)
    left = temporally_filtered(room.inv_depth.log() + noise, still, room.clip) - room.inv_depth.log()
    assert left.abs().median() < 0.5 * noise.abs().median()


def test_what_moves_and_what_disagrees_is_left_alone(room):
    """A pixel that may not be averaged keeps its value; a frame that is wrong by half does not spread."""
    logs = room.inv_depth.log()
    wrong = logs.clone()
    wrong[10] += 0.4
    still = torch.ones_like(logs, dtype=torch.bool)
    still[5] = False
    filtered = temporally_filtered(wrong, still, room.clip)
    assert torch.equal(filtered[5], logs[5])
    assert (filtered[9] - logs[9]).abs().median() < 2e-3

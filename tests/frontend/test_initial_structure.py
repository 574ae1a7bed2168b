"""What is refused because two shapes explain the same flow."""

import pytest
import torch

from slam.frontend.initial_structure import SAME_DIRECTION, Candidate, is_ambiguous
from slam.geometry import se3


def candidate(direction: tuple[float, float, float], cost: float) -> Candidate:
    """A motion of the last view into a direction, and its misfit."""
    T_cw = torch.stack([se3.identity(), se3.identity()])
    T_cw[-1, :3, 3] = torch.tensor(direction, dtype=torch.float64)
    return Candidate(T_cw, torch.ones(3, 4), torch.ones(3, 4), cost, cost)


@pytest.mark.parametrize(
    ("other", "ambiguous"),
    [
        (candidate((0.0, 0.0, 1.0), 1.05), True),  # forward instead of sideways, and fits nearly as well
        (candidate((-1.0, 0.0, 0.0), 1.05), True),
        (candidate((0.0, 0.0, 1.0), 1.07), False),  # fits worse
        (candidate((2.0, 0.1, 0.0), 1.0), False),  # the same motion in another unit
    ],
)
def test_a_rival_is_another_motion_that_fits_nearly_as_well(other: Candidate, ambiguous: bool) -> None:
    best = candidate((1.0, 0.0, 0.0), 1.0)
    assert is_ambiguous([best, other], ratio=1.06) == ambiguous
    assert is_ambiguous([best, candidate((1.0, 0.05, 0.0), 1.0), other], ratio=1.06) == ambiguous
    assert 0.9 < SAME_DIRECTION < 1 and not is_ambiguous([best], ratio=1.06)

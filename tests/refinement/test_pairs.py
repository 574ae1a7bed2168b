"""Which pairs of frames are compared: the counts and the definition of the reference, and those held out."""

import pytest

from slam.refinement.pairs import MOST_HELD_OUT, held_out_pairs, hierarchical_pairs


def test_counts():
    """By hand: of 5 frames 4 neighbours, 3 pairs two apart from every frame, 1 four apart from every second."""
    assert [len(hierarchical_pairs(count)) for count in range(2, 10)] == [1, 3, 5, 8, 10, 13, 15, 19]


def test_a_pair_is_a_neighbour_or_a_power_of_two_apart_from_a_multiple_of_half_of_that():
    for count in range(41):
        pairs = hierarchical_pairs(count)
        expected = {(i, i + 1) for i in range(count - 1)}
        for k in range(1, 7):
            expected |= {(i, i + 2**k) for i in range(count) if i % 2 ** (k - 1) == 0 and i + 2**k < count}
        assert set(pairs) == expected and len(pairs) == len(expected)


def test_pairs_grow_with_the_frames_and_reach_all_of_them():
    """300 frames: 299 neighbours, 298 + 148 + 73 + ... others."""
    assert len(hierarchical_pairs(300)) == pytest.approx(880, abs=10)
    for count in (2, 3, 17, 300, 1000):
        pairs = hierarchical_pairs(count)
        assert len(pairs) < 3 * count
        assert {n for pair in pairs for n in pair} == set(range(count))
        assert max(j - i for i, j in pairs) >= (count - 1) / 2  # the longest gap spans half of the video or more


@pytest.mark.parametrize("count", [*range(4, 41), 60, 300, 464, 1000])
def test_nothing_is_optimised_on_the_held_out_pairs_and_they_are_spread_over_the_time(count: int):
    """Each quarter of the video in which the shortest of them fits has some, of 60 frames or more each eighth."""
    pairs = held_out_pairs(count)
    assert 0 < len(pairs) <= MOST_HELD_OUT and len(set(pairs)) == len(pairs)
    assert all(0 <= i < j < count for i, j in pairs)
    assert not set(pairs) & set(hierarchical_pairs(count))
    if count >= 60:
        reached = {8 * i // count for i, _ in pairs}
        assert reached >= set(range(7))
        assert len({j - i for i, j in pairs}) == 3  # short and long ones


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_frames_have_nothing_held_out(count: int):
    assert held_out_pairs(count) == []

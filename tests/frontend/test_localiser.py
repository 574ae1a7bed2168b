"""Gaps in time, and which keyframe is the reference."""

import pytest

from slam.frontend.localiser import GapDetector


def gaps(times_s: list[float]) -> list[bool]:
    detector = GapDetector()
    return [detector.is_after_gap(round(1e9 * t)) for t in times_s]


@pytest.mark.parametrize(
    "times_s",
    [[1 + 0.5 * n for n in range(10)], [1 + n / 30 for n in range(10)] + [1.4, 1.5]],
    ids=["two images a second", "single lost frames"],
)
def test_a_slow_source_and_lost_frames_are_no_gap(times_s):
    assert not any(gaps(times_s))


def test_a_second_without_images_is_a_gap_once():
    assert gaps([1 + n / 30 for n in range(10)] + [2.3, 2.33]) == [False] * 10 + [True, False]

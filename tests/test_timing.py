"""Durations by stage."""

import pytest

from slam import timing
from slam.timing import StageTimes


def test_table_has_count_median_and_p90_in_order_of_appearance():
    times = StageTimes()
    times.add("track", 0.5)
    for n in range(11):
        times.add("map", n / 100)
    track, mapping = times.table()
    assert (track.name, track.count, track.median_ms, track.p90_ms, track.total_s) == ("track", 1, 500, 500, 0.5)
    assert (mapping.name, mapping.count) == ("map", 11)
    assert (mapping.median_ms, mapping.p90_ms, mapping.total_s) == pytest.approx((50, 90, 0.55))
    assert StageTimes().table() == []


def test_measure_takes_the_time_of_its_block(monkeypatch):
    clock = iter([3.0, 3.25, 10.0, 10.75])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    times = StageTimes()
    for _ in range(2):
        with times.measure("track"):
            pass
    (line,) = times.table()
    assert line.count == 2 and line.total_s == 1.0 and line.median_ms == 500

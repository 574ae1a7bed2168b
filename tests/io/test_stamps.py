"""Units of times are read from their column; what is written twice or out of order is told once."""

import logging

import numpy as np
import pytest

from slam.io.stamps import epoch_unit_ns, gap_remark, order_of, other_unit_ns, times_ns
from slam.io.trajectory import read_tum


@pytest.mark.parametrize(
    ("texts", "unit_ns"),
    [
        (["1551915398.6", "1551915398.6333"], 10**9),
        (["1551915398", "1551915399"], 10**9),
        (["1551915398600", "1551915398633"], 10**6),
        (["1551915398600000", "1551915398633333"], 10**3),
        (["1403636579763555584", "1403636579813555456"], 1),
        (["1.403636579763555584e+18", "1.403636579813555456e+18"], 1),  # as numpy writes integers
        (["1551915398"], 10**9),
        (["0000000001", "0000000002"], None),  # counters with zeros in front
        (["1551915398600", "1551915398601"], 10**6),
        (["1551915398601", "1587248731934"], None),  # ten hours from image to image: not milliseconds
    ],
)
def test_unix_times_show_their_unit(texts: list[str], unit_ns: int | None):
    assert epoch_unit_ns(texts) == unit_ns


@pytest.mark.parametrize(
    ("texts", "unit_ns"),
    [
        (["0.5", "1"], 10**9),
        (["0", "1", "2"], None),
        (["0", "10", "20", "30"], None),
        (["100000", "133333", "166666"], 10**3),
        (["4512345678901", "4512379012234", "4512412345567"], 1),  # a clock that began when the machine did
        (["7"], None),
    ],
)
def test_other_clocks_are_told_from_counters(texts: list[str], unit_ns: int | None):
    assert other_unit_ns(texts) == unit_ns


def test_times_are_exact_and_bounded():
    assert times_ns(["1551915398.6", "-0.0000000014", "1.5e3"], 10**9) == [1551915398600000000, -1, 1500 * 10**9]
    for text in ("nan", "inf", "", "1e999", "9" * 25, "1_0", "0x1"):
        with pytest.raises(ValueError, match="is no time in seconds"):
            times_ns([text], 10**9)


def test_order_and_gaps():
    assert order_of([5, 3, 5, 4, 3]) == ([1, 3, 0], 3, 2)
    steady = [n * 10**8 for n in range(50)]
    assert gap_remark(steady) == ""
    assert gap_remark([*steady, 10**12]).startswith("a gap of 995.1 s, 4.9 s after the start")
    assert "2 gaps, the longest of 1000 s" in gap_remark([*steady, 10**12, 2 * 10**12])
    assert gap_remark([0, 10**12, 2 * 10**12]) == ""  # that is its pace


POSE = "1 2 3 0 0 0.6 0.8"
TIMES = [1403636579763555584, 1403636579813555456]


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{t // 10**9}.{t % 10**9:09d} {POSE}\n" for t in TIMES),
        "".join(f"{t} {POSE}\n" for t in TIMES),
        "".join(f"{t},{POSE.replace(' ', ',')}\n" for t in TIMES),
        "#t,x\ntimestamp, tx, ty, tz, qx, qy, qz, qw\r\n"
        + "".join(f"{t}, {POSE.replace(' ', ', ')}\r\n" for t in TIMES),
        "".join(f"{t};{POSE.replace(' ', ';')}\n" for t in TIMES),
        "".join(f"{t}\t{POSE.replace(' ', chr(9))}\r" for t in TIMES),
        "".join(f"{t} {POSE}\n" for t in (TIMES[1], TIMES[0], TIMES[1])),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_one_truth_in_many_hands(tmp_path, text: str, encoding: str):
    (tmp_path / "t.txt").write_bytes(text.encode(encoding))
    truth = read_tum(tmp_path / "t.txt")
    assert truth.time_ns.tolist() == TIMES
    np.testing.assert_allclose(truth.T_wc[:, :3, 3], [[1, 2, 3]] * 2)
    np.testing.assert_allclose(truth.T_wc[1, 0, :2], [0.28, -0.96])


def test_disorder_is_told_once_for_each_kind(tmp_path, caplog):
    times = [*range(100, 200), *range(50, 150)]
    (tmp_path / "t.txt").write_text("".join(f"{t}.0 {POSE}\n" for t in times))
    assert read_tum(tmp_path / "t.txt").time_ns.tolist() == [t * 10**9 for t in range(50, 200)]
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [t.partition("t.txt")[2] for t in told] == [
        " goes back in time 1 times (first: line 101): sorted",
        ": 50 of 200 lines repeat a time and are left out (first: line 151)",
    ]

"""Times from the names of images: one rule, one table."""

from pathlib import Path

import pytest

from slam.sources.names import NamedImages, by_name, natural_key

S = 10**9


def named(*names: str) -> NamedImages:
    """Given in reverse: the order comes from the names."""
    return by_name([Path(name) for name in reversed(names)])


@pytest.mark.parametrize(
    ("names", "times_ns"),
    [
        (("1551915398.6.jpg", "1551915398.6333.jpg", "1551915398.66.jpg"), (600000000, 633300000, 660000000)),
        (("frame_1551915398.05.jpg", "frame_1551915398.1.jpg"), (50000000, 100000000)),
        (("1551915398600000000.png", "1551915398650000000.png"), (600000000, 650000000)),
        (("1551915398600000.png", "1551915398650001.png"), (600000000, 650001000)),
        (("cam0-1551915398600.png", "cam0-1551915398633.png"), (600000000, 633000000)),
        (("1551915398.png", "1551915399.png"), (0, S)),
        (("000007_1551915398.5_left.png", "000008_1551915398.75_left.png"), (500000000, 750000000)),
        (("1551915398_600000000.png", "1551915398_650000000.png"), (600000000, 650000000)),
        (("1551915398-50000000.png", "1551915398-600000000.png"), (50000000, 600000000)),
    ],
)
def test_unix_times(names: tuple[str, ...], times_ns: tuple[int, ...]):
    result = named(*names)
    assert [file.name for file in result.files] == list(names)
    assert result.time_ns == tuple(1551915398 * S + time_ns for time_ns in times_ns)


@pytest.mark.parametrize(
    ("names", "times_ns"),
    [
        (("0.033333.png", "0.066667.png", "10.5.png"), (33333000, 66667000, 10500000000)),
        (("9.25.png", "10.5.png"), (9250000000, 10500000000)),
        (("4512345678901.png", "4512379012234.png"), (4512345678901, 4512379012234)),
    ],
)
def test_other_clocks(names: tuple[str, ...], times_ns: tuple[int, ...]):
    assert named(*names).time_ns == times_ns


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_20260101_120000.jpg", "IMG_20260101_120001.jpg"),
        ("PXL_20260101_120000000.jpg", "PXL_20260101_120001000.jpg"),
        ("2026-01-01 12.00.00.jpg", "2026-01-01 12.00.01.jpg"),
        ("Screenshot 2026-01-01T12-00-00.123.png", "Screenshot 2026-01-01T12-00-01.123.png"),
        ("20260101120000.png", "20260101120001.png"),
    ],
)
def test_dates(names: tuple[str, ...]):
    times = named(*names).time_ns
    assert times is not None and times[1] - times[0] == S and times[0] // S == 1767268800


@pytest.mark.parametrize(
    "names",
    [
        ("0.png", "1.png", "2.png", "10.png"),
        ("000001.png", "000002.png"),
        ("frame.000001.jpg", "frame.000002.jpg"),
        ("image-000123.png", "image-000124.png"),
        ("0000000000000000001.png", "0000000000000000002.png"),  # 19 digits, and a counter
        ("IMG_0001.JPG", "IMG_0002.JPG"),
        ("1551915398_0001.png", "1551915398_0002.png"),  # when it began, and a counter
        ("a.png", "b.png"),
        ("0.png", "30.png", "60.png"),
    ],
)
def test_counters_and_words_have_no_times(names: tuple[str, ...]):
    result = named(*names)
    assert result.time_ns is None and result.remarks == ()
    assert [file.name for file in result.files] == list(names)


@pytest.mark.parametrize(
    ("names", "is_timed", "remark"),
    [
        (("1551915398.6.jpg", "1551915398.6333.jpg"), True, "read as decimal numbers (.6 is 600 ms)"),
        (
            tuple(f"1551915398.{n * 16666666}.jpg" for n in range(30)),
            True,
            "(.0 is .000000000), which makes even steps",
        ),
        (tuple(f"{n // 10}.{50 + n % 10 * 99000}.jpg" for n in range(30)), True, "(.50 is .000050), which makes even"),
        (("1.1.png", "1.9.png", "1.10.png"), False, "they are taken as counters"),
        (("1.5.png", "1.5.jpg", "2.5.png"), True, "1 of 3 images repeat a time stamp and are left out (first: 1.5."),
        (("1.5.png", "2.5.png", "preview.png"), True, "1 of 3 images are left out: their names have no time stamp"),
        (("1_1551915398.5.png", "2_1551915390.5.png"), True, "the stamps go back 1 times while the names count on"),
        (("1.25.png", "2.25.png", "3.25.png", "90.25.png"), True, "a gap of 87 s, 2 s after the start"),
        (("IMG_20260101_120000_1.jpg", "IMG_20260101_120000_2.jpg"), False, "taken in their order"),
    ],
)
def test_doubts_are_remarked_once(names: tuple[str, ...], is_timed: bool, remark: str):
    result = named(*names)
    assert (result.time_ns is not None) is is_timed
    assert len(result.remarks) == 1 and remark in result.remarks[0]


def test_fractions_without_the_zeros_in_front_are_in_the_order_of_time():
    """Whole nanoseconds, as `f"{seconds}.{nanoseconds}"` writes them."""
    times = [1551915398 * S + n * 33333333 for n in range(60)]
    names = [f"{t // S}.{t % S}.jpg" for t in times]
    result = named(*sorted(names))
    assert result.time_ns == tuple(times) and [file.name for file in result.files] == names


def test_zeros_in_front_of_decimals_leave_no_doubt():
    """Five thousand stamps whose zeros at the end were dropped."""
    names = [f"{1551915398 + n / 30:.4f}".rstrip("0").rstrip(".") + ".jpg" for n in range(5000)]
    result = named(*names)
    assert result.remarks == () and [file.name for file in result.files] == names


def test_numbers_in_names_count_as_numbers_of_any_length():
    names = ["a1", "a02", "a10", "a10b", "a" + "9" * 5000, "a1" + "0" * 5000, "b"]
    assert [file.name for file in sorted(map(Path, reversed(names)), key=natural_key)] == names

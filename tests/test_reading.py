"""Files of users: plain ones, of a bounded size; whatever is none is refused at once, in one line."""

import os
import threading

import pytest

from slam.config import SlamConfig, load_config
from slam.errors import MAX_SHOWN, CalibrationError, ConfigError, MapError, SourceError, WeightsError, shown
from slam.io.calibration import read_calibration
from slam.io.files import read_json
from slam.io.images import read_color
from slam.io.map_file import load_map
from slam.io.ply import read_ply
from slam.io.trajectory import read_tum
from slam.networks.storage import load_networks
from slam.parsing import MAX_VALUES, parse_json, parse_yaml
from slam.reading import open_file, read_bytes, read_text
from slam.sources.depth_format import DepthFormat, read_npy
from slam.sources.image_lists import read_image_list
from slam.sources.video import VideoSource

READERS = {
    "calibration": (read_calibration, CalibrationError),
    "configuration": (lambda path: load_config(SlamConfig, path), ConfigError),
    "json": (lambda path: read_json(path, dict), SourceError),
    "list": (lambda path: read_image_list(path, path.parent), SourceError),
    "trajectory": (read_tum, SourceError),
    "image": (read_color, SourceError),
    "cloud": (read_ply, SourceError),
    "map": (load_map, MapError),
    "weights": (load_networks, WeightsError),
    "array": (lambda path: read_npy(path, DepthFormat()), SourceError),
    "video": (VideoSource, SourceError),
}


def refused_at_once(read, path, kind) -> str:
    """The message; a reader that waits would wait for ever."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            read(path)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for a pipe"
    assert isinstance(found[0], kind), found
    return str(found[0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_no_file(tmp_path, name):
    path = tmp_path / "a"
    os.mkfifo(path)
    assert "pipe" in (message := refused_at_once(*(READERS[name][0], path, READERS[name][1]))) or "no file" in message


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no endless file")
def test_an_endless_device_is_no_file(tmp_path):
    with pytest.raises(OSError, match="it is a device, not a file"):
        open_file("/dev/zero")
    (tmp_path / "rgb.txt").write_text("1.5 /dev/zero\n")
    (_, file), *_ = read_image_list(tmp_path / "rgb.txt", tmp_path)
    with pytest.raises(SourceError, match="/dev/zero: it is a device"):
        read_color(file)


def test_a_file_larger_than_any_such_is_not_read(tmp_path):
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(300 << 20)  # takes no room on the disk
    for read, kind in ((READERS["calibration"]), (READERS["configuration"]), (READERS["list"])):
        with pytest.raises(kind, match=r"it is larger than \d+ MiB, which no such file is"):
            read(path)
    path.write_bytes(b"x" * 11)
    assert read_bytes(path, 11) == b"x" * 11
    with pytest.raises(OSError, match="it is larger"):
        read_bytes(path, 10)
    path.write_bytes(b"1\n" * 2_600_000)
    with pytest.raises(SourceError, match="has more than 2500000 lines"):
        read_text(path, "list")


def test_yaml_that_unfolds_without_end_is_refused_before_it_unfolds():
    levels = [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(9 * ['*' + chr(97 + n)])}]" for n in range(9)]
    merges = [f"{chr(98 + n)}: &{chr(98 + n)}\n  <<: [{', '.join(99 * ['*' + chr(97 + n)])}]" for n in range(4)]
    for bomb in ("\n".join(["a: &a [1]", *levels]), "\n".join(["a: &a {k: 1}", *merges])):
        with pytest.raises(ValueError, match="its aliases unfold without end"):
            parse_yaml(bomb)
    with pytest.raises(ValueError, match="an alias holds itself"):
        parse_yaml("a: &a {b: [*a]}")
    assert parse_yaml("a: &a {k: 1}\nb:\n  <<: *a\n  l: [2, 3]") == {"a": {"k": 1}, "b": {"k": 1, "l": [2, 3]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" * 5000, "thousands of digits|a value cannot be read"),
        (f"[{'1' * 40}]", "bits is no number"),
        ("[" * 9000, "nested too deeply"),
        ("[" + 3 * MAX_VALUES * "1," + "1]", "more than 1000000 values|longer than"),
    ],
)
def test_what_no_reader_can_use_is_refused_by_both_parsers(text, message):
    for parse in (parse_json, parse_yaml):
        with pytest.raises(ValueError, match=message):
            parse(text)


@pytest.mark.parametrize("text", ["!!float x", "!!int x", "2001-99-99", "? [1, 2]\n: 3", "!!timestamp x", "!!binary é"])
def test_odd_scalars_of_yaml_are_one_line(text):
    with pytest.raises(ValueError) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


def test_keys_are_numbers_of_a_bounded_size_too():
    with pytest.raises(ValueError, match="bits is no number"):
        parse_yaml(f"? 0x{'f' * 9000}\n: 1")


def test_values_in_messages_are_short():
    bomb = [["x" * 50] * 10_000] * 10_000
    for value in ("y" * 10**6, bomb, {n: bomb for n in range(99)}, 10**6000, [10**100], b"z" * 10**6):
        assert len(shown(value)) < 3 * MAX_SHOWN
    assert shown("fast") == "'fast'" and shown([1, 2.5]) == "[1, 2.5]" and shown(12345678901234) == "12345678901234"


def test_a_bomb_of_settings_is_one_short_line(tmp_path):
    """The value that is refused is part of the message."""
    lists = "".join(f"a{n + 1}: &a{n + 1} [{', '.join(8 * [f'*a{n}'])}]\n" for n in range(6))  # 260 000 values
    (tmp_path / "a.yaml").write_text(f"a0: &a0 [x]\n{lists}".replace("a6:", "seed:"))
    with pytest.raises(ConfigError) as error:
        load_config(SlamConfig, tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(f"seed: [{', '.join(9 * ['[[1, 2], [3, 4]]'])}]\n")
    with pytest.raises(ConfigError) as other:
        load_config(SlamConfig, tmp_path / "b.yaml")
    assert len(str(error.value)) < 300 and len(str(other.value)) < 300

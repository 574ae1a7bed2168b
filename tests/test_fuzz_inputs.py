"""Files damaged at random: every reader gives a value or one line, soon, and without swallowing the memory.

A reader is one row of READERS; the layouts of data sets are damaged one file at a time.
"""

import contextlib
import random
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from slam.config import SlamConfig, load_config
from slam.errors import SlamError
from slam.frames import Image, Keyframe, View
from slam.inv_depth import InvDepth
from slam.io.calibration import read_calibration
from slam.io.images import read_color, read_depth
from slam.io.map_file import load_map, save_map
from slam.io.ply import PointCloud, read_ply, write_ply
from slam.io.run import Run
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import known_truth, read_groundtruth
from slam.sources.image_lists import read_image_list

EACH = 30  # damaged versions of each file
EACH_LAYOUT = 12
LIMIT_S = 5.0  # a reader takes milliseconds
LIMIT_MB = 400  # growth of the process over all versions of a file

POSE = "0.1 -0.2 0.3 0 0 0.6 0.8"
NUMBERS = ["nan", "inf", "-inf", "1e308", "-1", "0", "", "9" * 400, "1e999", "0x10", "1_000", "١٢", "--5", "2**64"]
PIECES = [
    "&a [*a, *a]",
    "!!python/object:os.system ls",
    "*nowhere",
    "\0",
    "\ufeff",
    "{",
    "[[[[",
    ": : :",
    "%YAML:1.0",
    "é",
]


@dataclass(frozen=True)
class Reader:
    read: Callable[[Path], Any]
    name: str  # of the file, as a user has it
    sound: str | Callable[[Path], None]  # the text, or what writes the file


def text_of_matrices(columns: int) -> str:
    rows = [np.eye(4)[: columns // 4].ravel() + 0.001 * n for n in range(4)]
    return "".join(" ".join(f"{x if abs(x) > 0.5 else 0:g}" for x in row) + "\n" for row in rows)


def write_map(path: Path) -> None:
    view = View(
        1,
        10**9,
        Image(np.zeros((16, 16, 3), np.uint8)),
        torch.tensor([[50.0, 0, 7.5], [0, 50, 7.5], [0, 0, 1]], dtype=torch.float64),
    )
    dense, coarse = (InvDepth(torch.ones(size), torch.ones(size)) for size in ((16, 16), (4, 4)))
    save_map(path, [Keyframe(1, view, torch.eye(4, dtype=torch.float64), dense, coarse)])


def write_cloud(path: Path) -> None:
    write_ply(path, PointCloud(np.ones((5, 3), np.float32), np.ones((5, 3), np.uint8)))


def write_image(path: Path, dtype: type = np.uint8) -> None:
    shape = (24, 32, 3) if dtype is np.uint8 else (24, 32)
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, shape).astype(dtype))


def write_config(path: Path) -> None:
    path.write_text("seed: 3\nmatcher:\n  min_weight: 1e-3\nbackend: {held: 2}\ninitialiser:\n  views: 3\n")


def read_list(path: Path) -> Any:
    return read_image_list(path, path.parent)


CALIBRATIONS = {
    "ours": "width: 32\nheight: 24\ncalibration: [30, 31, 15.5, 11.5, 0.1, -0.2, 0.001, 0.002, 0.1]\n",
    "line": "30 31 15.5 11.5 0.1 -0.2 0.001 0.002\n",
    "opencv": "%YAML:1.0\nimage_width: 32\nimage_height: 24\ncamera_matrix: !!opencv-matrix\n  rows: 3\n  cols: 3\n"
    "  dt: d\n  data: [30., 0., 15.5, 0., 31., 11.5, 0., 0., 1.]\n"
    "distortion_coefficients: {rows: 1, cols: 4, data: [0.1, 0, 0, 0]}\n",
    "euroc": "resolution: [32, 24]\nintrinsics: [30, 31, 15.5, 11.5]\ndistortion_model: radial-tangential\n"
    "distortion_coefficients: [-0.28, 0.07, 0.0002, 1.8e-05]\n",
    "orb": "Camera.fx: 30.0\nCamera.fy: 31.0\nCamera.cx: 15.5\nCamera.cy: 11.5\nCamera.width: 32\nCamera.height: 24\n",
    "kalibr": "cam0:\n  camera_model: pinhole\n  distortion_model: equidistant\n  distortion_coeffs: [0.1, 0, 0, 0]\n"
    "  intrinsics: [30, 31, 15.5, 11.5]\n  resolution: [32, 24]\n",
    "json": '{"camera_model": "OPENCV", "w": 32, "h": 24, "fl_x": 30, "fl_y": 31, "cx": 15.5, "cy": 11.5, "k1": 0.1}\n',
}
READERS = {
    **{
        f"calibration-{kind}": Reader(lambda path: read_calibration(path, (32, 24)), "calibration.yaml", text)
        for kind, text in CALIBRATIONS.items()
    },
    "rgb.txt": Reader(read_list, "rgb.txt", "# a list\n" + "".join(f"{n}.5 rgb/{n}.5.png\n" for n in range(8))),
    "data.csv": Reader(read_list, "data.csv", "#t,name\n" + "".join(f"{n}000000000,{n}.png\r\n" for n in range(8))),
    "tum": Reader(read_groundtruth, "groundtruth.txt", "# t\n" + "".join(f"{n}.25 {POSE}\n" for n in range(8))),
    "kitti": Reader(read_groundtruth, "00.txt", text_of_matrices(12)),
    "matrices": Reader(read_groundtruth, "traj.txt", text_of_matrices(16)),
    "euroc truth": Reader(
        read_groundtruth,
        "data.csv",
        "#t,p,q\n" + "".join(f"140363657976355{n}584,1,2,3,0.6,0.8,0,0,1,1,1\n" for n in range(6)),
    ),
    "map": Reader(load_map, "room.map", write_map),
    "ply": Reader(read_ply, "map.ply", write_cloud),
    "png": Reader(read_color, "a.png", write_image),
    "jpeg": Reader(read_color, "a.jpg", write_image),
    "depth": Reader(read_depth, "a.png", lambda path: write_image(path, np.uint16)),
    "config": Reader(lambda path: load_config(SlamConfig, path, []), "slam.yaml", write_config),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to three kinds of damage."""
    for _ in range(chance.randint(1, 3)):
        data = chance.choice(DAMAGES)(data, chance)
    return data


def flipped(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if out:
            out[chance.randrange(len(out))] = chance.randrange(256)
    return bytes(out)


def flipped_in_front(data: bytes, chance: random.Random) -> bytes:
    return flipped(data[:64], chance) + data[64:]


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def lines_shuffled(data: bytes, chance: random.Random) -> bytes:
    """A line twice, gone, or elsewhere."""
    lines = data.splitlines(keepends=True) or [b""]
    i, j = chance.randrange(len(lines)), chance.randrange(len(lines))
    line = lines[i]
    what = chance.randrange(3)
    if what > 0:
        del lines[i]
    if what != 1:
        lines.insert(j, line)
    return b"".join(lines)


def number_replaced(data: bytes, chance: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+\.?\d*(e[-+]?\d+)?", data))
    if not found:
        return data
    match = chance.choice(found)
    return data[: match.start()] + chance.choice(NUMBERS).encode() + data[match.end() :]


def piece_inserted(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(PIECES).encode() + data[at:]


def encoded_otherwise(data: bytes, chance: random.Random) -> bytes:
    return data.decode("latin-1").encode(chance.choice(["utf-16", "utf-16-be", "utf-8-sig", "utf-32", "utf-7"]))


def nested(data: bytes, chance: random.Random) -> bytes:
    """Deeper than any parser goes."""
    return chance.choice([b"[", b"{a: ", b"- ", b'{"a":', b"(", b"&a "]) * chance.choice([50, 5000]) + data


DAMAGES = [
    flipped, flipped, flipped_in_front, truncated, lines_shuffled, number_replaced, number_replaced, piece_inserted,
    encoded_otherwise, nested,
]  # fmt: skip


def peak_mb() -> float:
    resource = pytest.importorskip("resource", reason="this system does not say how much memory a process takes")
    peak: float = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """A reader that hangs fails instead of stopping the tests."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def expire(*_: Any) -> None:
        raise TimeoutError(f"a reader took longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(read: Callable[[], Any], what: str) -> bool:
    """True if it was read; a refusal is one line, anything else fails with the damage that did it."""
    try:
        with in_time(), warnings.catch_warnings():
            warnings.simplefilter("error")  # such as overflow in numpy: the reader did not see what it read
            read()
    except SlamError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) <= 2000, f"{what}: {error}"
        return False
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return True


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(tmp_path, name: str):
    reader = READERS[name]
    path = tmp_path / reader.name
    if isinstance(reader.sound, str):
        path.write_text(reader.sound)
    else:
        reader.sound(path)
    sound = path.read_bytes()
    with contextlib.suppress(SlamError):  # a list of poses without stamps is sound, and refused alone
        reader.read(path)
    before = peak_mb()
    for seed in range(EACH):
        path.write_bytes(damaged(sound, random.Random(f"{name} {seed}")))
        check(lambda: reader.read(path), f"{name} damaged by {seed}")
    assert peak_mb() - before < LIMIT_MB


@pytest.mark.parametrize("name", ["run.json", "keyframes/keyframes.json"])
def test_damaged_records_of_a_run(tmp_path, run_record, name: str):
    import json

    (tmp_path / "keyframes").mkdir()
    record = asdict(run_record)
    (tmp_path / "run.json").write_text(json.dumps(record, indent=1))
    entry = {"id": 0, "time_ns": 5, "T_wc": np.eye(4).tolist(), "K": np.eye(3).tolist()}
    (tmp_path / "keyframes/keyframes.json").write_text(json.dumps([entry], indent=1))
    sound = (tmp_path / name).read_bytes()
    for seed in range(EACH):
        (tmp_path / name).write_bytes(damaged(sound, random.Random(f"{name} {seed}")))
        run = Run(tmp_path)
        check(run.record if name == "run.json" else run.keyframes, f"{name} damaged by {seed}")


KINDS = ["kitti", "tartanair", "scannet", "replica", "icl", "nerfstudio", "record3d", "openloris", "euroc", "tumvi"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_data_sets(layouts, rendered, tmp_path, kind: str):
    """One small file of a layout at a time; then it is opened, and its truth read."""
    path = layouts.LAYOUTS[kind].write(tmp_path / kind, rendered.frames[:4], rendered.truth.T_wc[:4])
    texts = sorted(file for file in (tmp_path / kind).rglob("*") if file.is_file() and b"\0" not in file.read_bytes())
    for seed in range(EACH_LAYOUT):
        chance = random.Random(f"{kind} {seed}")
        file = chance.choice(texts)
        sound = file.read_bytes()
        file.write_bytes(damaged(sound, chance))
        what = f"{file.relative_to(tmp_path)} damaged by {seed}"
        check(lambda: list(open_source(SourceSpec(str(path), max_frames=2))), what)
        check(lambda: read_groundtruth(path), what)
        check(lambda: known_truth(path), what)
        file.write_bytes(sound)

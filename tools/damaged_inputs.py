"""Inputs of every kind, how they are damaged, and the programs' own ways to open them; for `fuzz_inputs.py` and tests.

A case is a number: of a seed and a number follow the kind, the file of it that is damaged, and the damage.
"""

import contextlib
import importlib.util
import io
import os
import random
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # before cv2 is imported

import cv2
import numpy as np
import torch

from slam.frames import Frame, Image, Keyframe, Trajectory, View
from slam.inv_depth import InvDepth
from slam.io.map_file import load_map, save_map
from slam.io.ply import PointCloud
from slam.io.run import write_cloud, write_keyframes, write_record, write_trajectories
from slam.io.run_directory import RunDirectory
from slam.io.run_record import Outcome, RunRecord, SourceRecord, SystemRecord
from slam.io.trajectory import format_time_ns, write_tum
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.prior import PriorNetConfig
from slam.networks.stereo import StereoNetConfig
from slam.networks.storage import NetworkConfig, Networks, load_networks, save_network
from slam.sources.demo import DemoConfig, DemoSource

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 5
OPENED = 3  # frames that are read of a source
HUGE_BYTES = 3 << 30  # of a file that takes no room on the disk
SWAPPED = 0.03  # share of cases in which another thing altogether lies where the file was
POSE = "0.1 -0.2 0.3 0 0 0.6 0.8"
NUMBERS = [
    *("nan", "inf", "-inf", "1e308", "-1", "0", "", "9" * 400, "9" * 5000, "1e999", "0x10", "1_000", "١٢", "--5"),
    *("2**64", "1e-300", "-0.0", "2026-11-27", "2026-99-99", "12:34:56", "!!float x", "true", "null", "1" + 60 * "0"),
]
PIECES = [
    *(
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
    ),
    *("!!float x", "!!timestamp 2026-13-45", "\u2028", "../../../etc/passwd", "<<: *a\n", "{{{{{{", "\x1b[31m", '"'),
]
Damage = Callable[[bytes, random.Random], bytes]


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


def large_number_in_front(data: bytes, chance: random.Random) -> bytes:
    """Sizes and counts stand in headers."""
    at, width = chance.randrange(max(min(len(data), 400) - 8, 1)), chance.choice([2, 4, 8])
    value = chance.choice([2**31 - 1, 2**32 - 1, 2**63 - 1, 2**16 - 1, 30000]) % 2 ** (8 * width)
    return data[:at] + value.to_bytes(width, chance.choice(["little", "big"])) + data[at + width :]


def part_repeated(data: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(data) + 1)
    part = data[begin : begin + chance.randrange(1, 4096)]
    return data[:begin] + chance.randrange(1, 50) * part + data[begin:]


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
    found = list(re.finditer(rb"-?\d+\.?\d*(e[-+]?\d+)?", data[: 1 << 16]))
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


def unfolding(data: bytes, chance: random.Random) -> bytes:
    """Aliases of aliases of YAML, and what follows them."""
    levels = b"".join(b"z%d: &z%d [%s]\n" % (n + 1, n + 1, b", ".join(9 * [b"*z%d" % n])) for n in range(9))
    return b"z0: &z0 [x]\n" + levels + data


DAMAGES: list[Damage] = [
    flipped, flipped, flipped_in_front, truncated, large_number_in_front, part_repeated, lines_shuffled,
    number_replaced, number_replaced, number_replaced, piece_inserted, encoded_otherwise, nested, unfolding,
]  # fmt: skip


def swap(path: Path, chance: random.Random) -> str:
    """Put something else where a file was; says what."""
    path.unlink()
    what = chance.choice(["pipe", "device", "folder", "nothing", "empty", "huge", "text"])
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    elif what == "huge":
        with path.open("wb") as file:
            file.truncate(HUGE_BYTES)
    elif what != "nothing":
        path.write_text("a text\n" * (what == "text"))
    return what


@dataclass(frozen=True)
class Kind:
    """An input: what writes a sound one into a folder, the patterns of its files that are damaged, and what opens it.

    `open` raises SlamError, or gives the exit code where it is a program.
    """

    write: Callable[[Path], object]
    open: Callable[[Path], object]
    files: tuple[str, ...] = ("*",)


class Case:
    """A kind in a folder of its own; one damaged file at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.kind = name, KINDS[name]
        self.folder = folder
        folder.mkdir(parents=True)
        self.kind.write(folder)
        found = (path for pattern in self.kind.files for path in folder.rglob(pattern))
        self.files = sorted(path for path in found if path.is_file())
        assert self.files, f"{name} wrote no {self.kind.files}"

    def open(self) -> bool:
        """Open it; True if a program refused it by its exit code. Raises SlamError, where it is not a program's."""
        found = self.kind.open(self.folder)
        return isinstance(found, int) and found != 0

    @contextlib.contextmanager
    def spoilt(self, seed: object, can_swap: bool = True) -> Iterator[str]:
        """Within it a file is damaged; gives its name and what was done to it."""
        chance = random.Random(f"{self.name} {seed}")
        file = chance.choice(self.files)
        sound = file.read_bytes()
        what = f"{self.name}: {file.relative_to(self.folder)} damaged by {seed}"
        try:
            if can_swap and chance.random() < SWAPPED:
                what += f", a {swap(file, chance)}"
            else:
                file.write_bytes(damaged(sound, chance))
            yield what
        finally:
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
            file.write_bytes(sound)


# what opens them


def tracked(*arguments: object, names: str = "") -> Callable[[Path], None]:
    """Opens a source as v2d-slam does, and reads frames; `{}` in arguments is the folder."""

    def opened(folder: Path) -> None:
        from apps.inputs import open_input
        from apps.run import build_parser

        words = [str(argument).format(folder) for argument in arguments]
        given = open_input(build_parser().parse_args(words))
        try:
            for number, _ in enumerate(given.source, 1):
                if number == OPENED:
                    break
        finally:
            given.source.close()

    return opened


def program(name: str, *arguments: object) -> Callable[[Path], int]:
    """Runs a program in this process, what it says kept to itself."""

    def run(folder: Path) -> int:
        module = importlib.import_module(f"apps.{name}")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code: int = module.main([str(argument).format(folder) for argument in arguments])
        assert code in (0, 1, 2), f"exit code {code}"
        return code

    return run


def configured(folder: Path) -> None:
    from slam.config import SlamConfig, load_config

    load_config(SlamConfig, folder / "slam.yaml", [])


def of_truth(name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        from slam.sources.groundtruth import read_groundtruth

        return read_groundtruth(folder / name)

    return read


def surface(folder: Path) -> object:
    from slam.evaluation.surface import read_surface

    return read_surface(folder / "mesh.ply", np.random.default_rng(0))


# what writes them


def text(name: str, content: str) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_text(content)


@cache
def rendered() -> tuple[list[Frame], np.ndarray]:
    """A few frames of a room with depth, and their poses T_wc (N, 4, 4)."""
    source = DemoSource(
        DemoConfig(kind="office", variant="orbit", frames=FRAMES, width=96, height=72, fps=15.0), with_depth=True
    )
    return list(source), source.groundtruth().T_wc


@cache
def from_tests(name: str) -> ModuleType:
    """A module below `tests/`, which is no package."""
    path = ROOT / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fuzz_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def encode(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, pixels)
    assert done
    path.write_bytes(data.tobytes())


def write_tum_folder(folder: Path) -> None:
    frames, T_wc = rendered()
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    for frame in frames:
        stamp = format_time_ns(frame.time_ns)
        assert frame.depth is not None
        images = {"rgb": frame.image[..., ::-1], "depth": np.rint(5000 * frame.depth).astype(np.uint16)}
        for kind, pixels in images.items():
            encode(folder / kind / f"{stamp}.png", np.ascontiguousarray(pixels))
            lists[kind].append(f"{stamp} {kind}/{stamp}.png\n")
    for kind, lines in lists.items():
        (folder / f"{kind}.txt").write_text("# timestamp filename\n" + "".join(lines))
    write_tum(folder / "groundtruth.txt", Trajectory(np.array([f.time_ns for f in frames], np.int64), T_wc))
    write_calibration(folder)


def write_calibration(folder: Path) -> None:
    c = rendered()[0][0].camera
    lines = f"width: {c.width}\nheight: {c.height}\ncalibration: [{c.fx}, {c.fy}, {c.cx}, {c.cy}]\n"
    (folder / "calibration.yaml").write_text(lines)


def images(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for n, frame in enumerate(rendered()[0]):
            pixels = frame.image[..., 0] if suffix == ".pgm" else frame.image[..., ::-1]
            encode(folder / f"{n:04d}{suffix}", np.ascontiguousarray(pixels))

    return write


def write_exr(path: Path, depth: np.ndarray) -> None:
    """Uncompressed lines of one channel of floats; OpenCV is mostly built without the writer."""
    height, width = depth.shape

    def attribute(name: str, kind: str, data: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + len(data).to_bytes(4, "little") + data

    window = np.array([0, 0, width - 1, height - 1], "<i4").tobytes()
    channel = b"Y\0" + np.array([2, 0, 1, 1], "<i4").tobytes() + b"\0"
    head = b"\x76\x2f\x31\x01\2\0\0\0" + attribute("channels", "chlist", channel)
    head += attribute("compression", "compression", b"\0") + attribute("dataWindow", "box2i", window)
    head += attribute("displayWindow", "box2i", window) + attribute("lineOrder", "lineOrder", b"\0")
    head += attribute("pixelAspectRatio", "float", np.array([1], "<f4").tobytes())
    head += attribute("screenWindowCenter", "v2f", np.zeros(2, "<f4").tobytes())
    head += attribute("screenWindowWidth", "float", np.array([1], "<f4").tobytes()) + b"\0"
    step = 8 + 4 * width
    offsets = (len(head) + 8 * height + step * np.arange(height)).astype("<u8").tobytes()
    rows = b"".join(np.array([y, 4 * width], "<i4").tobytes() + depth[y].astype("<f4").tobytes() for y in range(height))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + offsets + rows)


def write_record3d_exr(folder: Path) -> None:
    frames, T_wc = rendered()
    path = from_tests("sources/layouts").LAYOUTS["record3d"].write(folder, frames, T_wc)
    for old in path.rglob("*.depth"):
        old.unlink()
    for n, frame in enumerate(frames):
        assert frame.depth is not None
        write_exr(path / "depth" / f"{n}.exr", frame.depth)


def layout(name: str) -> Callable[[Path], object]:
    return lambda folder: from_tests("sources/layouts").LAYOUTS[name].write(folder, *rendered())


def write_video(name: str, code: str) -> Callable[[Path], object]:
    return lambda folder: from_tests("sources/scenes").video(folder / name, 12, code=code)


def write_zip(folder: Path) -> None:
    write_tum_folder(folder / "content")
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((folder / "content").rglob("*.*")):
            file.write(path, f"room/{path.relative_to(folder / 'content')}")
    shutil.rmtree(folder / "content")


def write_tar(mode: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_tum_folder(folder / "content")
        with tarfile.open(folder / "a.tar", f"w:{mode}") as file:
            file.add(folder / "content", "room")
        shutil.rmtree(folder / "content")

    return write


def bag(kind: str, compression: str = "", encoding: str = "rgb8") -> Callable[[Path], object]:
    def write(folder: Path) -> object:
        ros = from_tests("sources/ros_recording")
        coding = ros.Coding(encoding=encoding, with_depth="16UC1", compression=compression)
        return ros.write_walk(ros.path_of(folder, kind), rendered()[0], kind, coding)

    return write


def keyframes() -> list[Keyframe]:
    frames, T_wc = rendered()
    found = []
    for n, (frame, T) in enumerate(zip(frames, T_wc)):
        assert frame.depth is not None
        view = View(n, frame.time_ns, Image(frame.image), frame.camera.matrix())
        value = torch.from_numpy(np.where(frame.depth > 0, 1 / np.maximum(frame.depth, 0.1), 0)).float()
        dense = InvDepth(value, 0.01 * torch.ones_like(value))
        coarse = InvDepth(torch.ones(18, 24), 0.1 * torch.ones(18, 24))
        found.append(Keyframe(n, view, torch.from_numpy(T).double(), dense, coarse, refined=True, parent_id=n - 1))
    return found


def write_weights(folder: Path) -> None:
    config = NetworkConfig(
        encoder=EncoderConfig(8, 8, 8, 1, 1, 8, 8, 8, 8),
        motion=MotionNetConfig(8, 8, 2, 1),
        stereo=StereoNetConfig(2, 4, 8, 4),
        prior=PriorNetConfig(8, 8, 8, 8),
    )
    save_network(folder / "a.safetensors", config, Networks(config).state_dict(), {})


def write_run(folder: Path) -> None:
    """The directory of a run over a recording in TUM layout, which lies in `recording`."""
    (folder / "recording").mkdir()
    write_tum_folder(folder / "recording")
    frames, T_wc = rendered()
    camera, found = frames[0].camera, keyframes()
    trajectory = Trajectory(np.array([frame.time_ns for frame in frames], np.int64), T_wc)
    run = RunDirectory(folder / "run")
    source = SourceRecord("recording", "tum", str(folder / "recording"), camera)
    record = RunRecord(
        *("0", source, SystemRecord("dis", "dis", "none", threads=False, live=False), Outcome("complete"), "unknown"),
        *(len(frames), len(frames), 0, 0, 0, len(found), 0, 1.0, 5.0),
    )
    write_record(run, record)
    write_trajectories(run, trajectory, trajectory, "a run")
    write_keyframes(run, found)
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    write_cloud(run, PointCloud(points, np.full((500, 3), 99, np.uint8), points), "a run")


def write_cloud_and_mesh(folder: Path) -> None:
    from slam.io.mesh_file import Mesh, write_mesh

    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [0, 1, 3], [1, 2, 3]], np.int32)
    write_mesh(folder / "mesh.ply", Mesh(corners, triangles, np.full((4, 3), 99, np.uint8), corners))


def matrices(columns: int) -> str:
    rows = [np.eye(4)[: columns // 4].ravel() + 0.001 * n for n in range(4)]
    return "".join(" ".join(f"{x if abs(x) > 0.5 else 0:g}" for x in row) + "\n" for row in rows)


CALIBRATIONS = {
    "ours": "width: 96\nheight: 72\ncalibration: [90, 91, 47.5, 35.5, 0.1, -0.2, 0.001, 0.002, 0.1]\n",
    "line": "90 91 47.5 35.5 0.1 -0.2 0.001 0.002\n",
    "opencv": "%YAML:1.0\nimage_width: 96\nimage_height: 72\ncamera_matrix: !!opencv-matrix\n  rows: 3\n  cols: 3\n"
    "  dt: d\n  data: [90., 0., 47.5, 0., 91., 35.5, 0., 0., 1.]\n"
    "distortion_coefficients: {rows: 1, cols: 4, data: [0.1, 0, 0, 0]}\n",
    "euroc": "resolution: [96, 72]\nintrinsics: [90, 91, 47.5, 35.5]\ndistortion_model: radial-tangential\n"
    "distortion_coefficients: [-0.28, 0.07, 0.0002, 1.8e-05]\n",
    "orb": "Camera.fx: 90.0\nCamera.fy: 91.0\nCamera.cx: 47.5\nCamera.cy: 35.5\nCamera.width: 96\nCamera.height: 72\n",
    "kalibr": "cam0:\n  camera_model: pinhole\n  distortion_model: equidistant\n  distortion_coeffs: [0.1, 0, 0, 0]\n"
    "  intrinsics: [90, 91, 47.5, 35.5]\n  resolution: [96, 72]\n",
    "json": '{"camera_model": "OPENCV", "w": 96, "h": 72, "fl_x": 90, "fl_y": 91, "cx": 47.5, "cy": 35.5, "k1": 0.1}\n',
}
SETTINGS = "max_keyframes: 30\nmatcher:\n  min_weight: 1e-3\nbackend: {held: 2}\ninitialiser:\n  views: 3\n"
SEQUENCE = tracked("--sequence", "{}")
WITH_DEPTH = tracked("--sequence", "{}", "--use-depth", "on")
LAYOUTS = ("kitti", "tartanair", "scannet", "replica", "icl", "nerfstudio", "record3d", "openloris", "euroc", "tumvi")
WITHOUT_DEPTH = ("kitti", "record3d", "euroc", "tumvi")
TEXTS = ("*.txt", "*.json", "*.yaml", "*.csv", "*.freiburg", "metadata")


def calibrated(folder: Path) -> None:
    tracked("--images", "{}", "--calib", "{}/a.yaml")(folder)


def write_calibrated(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        images(".png")(folder)
        (folder / "a.yaml").write_text(content)

    return write


KINDS: dict[str, Kind] = {
    **{f"calibration {k}": Kind(write_calibrated(v), calibrated, ("a.yaml",)) for k, v in CALIBRATIONS.items()},
    "configuration": Kind(text("slam.yaml", SETTINGS), configured),
    "rgb.txt": Kind(write_tum_folder, SEQUENCE, ("rgb.txt",)),
    "depth.txt": Kind(write_tum_folder, WITH_DEPTH, ("depth.txt",)),
    "groundtruth.txt": Kind(write_tum_folder, SEQUENCE, ("groundtruth.txt", "calibration.yaml")),
    "images of TUM": Kind(write_tum_folder, WITH_DEPTH, ("*.png",)),
    **{f"images{suffix}": Kind(images(suffix), tracked("--images", "{}")) for suffix in (
        ".png", ".jpg", ".pgm", ".ppm", ".bmp", ".tif", ".webp", ".jp2")},
    "depth.exr": Kind(write_record3d_exr, WITH_DEPTH, ("*.exr",)),
    **{f"texts of {name}": Kind(layout(name), SEQUENCE, TEXTS) for name in LAYOUTS},
    **{f"depth of {name}": Kind(layout(name), WITH_DEPTH) for name in LAYOUTS if name not in WITHOUT_DEPTH},
    "video.mp4": Kind(write_video("a.mp4", "mp4v"), tracked("--video", "{}/a.mp4")),
    "video.avi": Kind(write_video("a.avi", "MJPG"), tracked("--video", "{}/a.avi")),
    "video.mkv": Kind(write_video("a.mkv", "MJPG"), tracked("--sequence", "{}/a.mkv")),
    "archive.zip": Kind(write_zip, tracked("--sequence", "{}/a.zip")),
    "archive.tar": Kind(write_tar(""), tracked("--sequence", "{}/a.tar")),
    "archive.tgz": Kind(write_tar("gz"), tracked("--sequence", "{}/a.tar")),
    "archive.txz": Kind(write_tar("xz"), tracked("--sequence", "{}/a.tar")),
    "bag": Kind(bag("ros1"), tracked("--sequence", "{}/walk.bag", "--use-depth", "on")),
    "bag bz2": Kind(bag("ros1", "bz2", "png"), tracked("--sequence", "{}/walk.bag")),
    "bag lz4": Kind(bag("ros1", "lz4", "jpg"), tracked("--sequence", "{}/walk.bag")),
    "bag sqlite": Kind(bag("sqlite3"), tracked("--sequence", "{}/walk", "--use-depth", "on")),
    "bag mcap": Kind(bag("mcap"), tracked("--sequence", "{}/walk", "--use-depth", "on")),
    "bag mcap zstd": Kind(bag("mcap", "storage", "jpg"), tracked("--sequence", "{}/walk")),
    "map": Kind(lambda folder: save_map(folder / "a.map", keyframes()), lambda folder: load_map(folder / "a.map")),
    "weights": Kind(write_weights, lambda folder: load_networks(folder / "a.safetensors")),
    "run, evaluated": Kind(
        write_run,
        program("evaluate", "{}/run", "--groundtruth", "{}/recording", "--depth", "{}/recording/depth", "--no-plots"),
        ("run/*.json", "run/*.txt", "groundtruth.txt", "*_depth.png", "keyframes.json"),
    ),
    "run, exported": Kind(
        write_run,
        program("export", "{}/run", "--to", "ply", "tum", "depth", "nerfstudio", "--overwrite", "--out", "{}/out"),
        ("run.json", "trajectory.txt", "keyframes.json", "*_color.jpg"),
    ),
    "cloud": Kind(
        write_run,
        program("evaluate", "{}/run", "--groundtruth", "{}/recording", "--mesh", "{}/run/map.ply", "--no-plots"),
        ("map.ply",),
    ),
    "mesh": Kind(write_cloud_and_mesh, surface),
    "truth, TUM": Kind(text("a.txt", "# t\n" + "".join(f"{n}.25 {POSE}\n" for n in range(8))), of_truth("a.txt")),
    "truth, KITTI": Kind(text("00.txt", matrices(12)), of_truth("00.txt")),
    "truth, matrices": Kind(text("traj.txt", matrices(16)), of_truth("traj.txt")),
    "truth, EuRoC": Kind(
        text("data.csv", "#t,p\n" + "".join(f"140363657976355{n}584,1,2,3,0.6,0.8,0,0,1,1,1\n" for n in range(6))),
        of_truth("data.csv"),
    ),
}  # fmt: skip

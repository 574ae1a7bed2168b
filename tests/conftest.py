"""What tests of several parts share: a short rendered recording, and a small textured world."""

import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from slam.frames import Frame, Trajectory
from slam.geometry.camera import Camera
from slam.io.run_record import Outcome, RunRecord, SourceRecord, SystemRecord
from slam.io.trajectory import format_time_ns, write_tum
from slam.sources.demo import DemoConfig, DemoSource

RENDERED = DemoConfig(kind="office", variant="orbit", frames=75, width=160, height=120, fps=15.0)


class ListSource:
    """Frames from memory, as a recorded source."""

    live = False

    def __init__(self, frames: list[Frame], truth: Trajectory) -> None:
        self.frames = frames
        self.truth = truth
        self.camera = frames[0].camera
        self.count = len(frames)
        self.skipped = 0

    def __iter__(self):
        return iter(self.frames)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="session")
def rendered() -> ListSource:
    """75 frames of a camera that goes around a desk in an office, with depth."""
    source = DemoSource(RENDERED, with_depth=True)
    return ListSource(list(source), source.groundtruth())


@pytest.fixture(scope="session")
def run_record() -> RunRecord:
    """What `run.json` says of a run of 80 frames."""
    camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    return RunRecord(
        version="0",
        source=SourceRecord("recording", "tum", "/recording", camera),
        system=SystemRecord("dis", "dis", "none", threads=False, live=False),
        outcome=Outcome("complete"),
        scale_source="unknown",
        frames_seen=80,
        frames_tracked=80,
        frames_lost=0,
        frames_dropped=0,
        frames_skipped=0,
        keyframes=2,
        keyframes_on_disk=0,
        seconds=1.0,
        fps=80.0,
    )


@pytest.fixture(scope="session")
def recording(rendered: ListSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in TUM layout. Tests must not change it."""
    path = tmp_path_factory.mktemp("recording")
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    for frame in rendered.frames:
        stamp = format_time_ns(frame.time_ns)
        images = {"rgb": frame.image[..., ::-1], "depth": np.rint(5000 * frame.depth).astype(np.uint16)}
        for kind, pixels in images.items():
            (path / kind).mkdir(exist_ok=True)
            assert cv2.imwrite(str(path / kind / f"{stamp}.png"), np.ascontiguousarray(pixels))
            lists[kind].append(f"{stamp} {kind}/{stamp}.png\n")
    for kind, lines in lists.items():
        (path / f"{kind}.txt").write_text("".join(lines))
    write_tum(path / "groundtruth.txt", rendered.truth)
    camera = rendered.camera
    numbers = [camera.fx, camera.fy, camera.cx, camera.cy]
    (path / "calibration.yaml").write_text(f"width: {camera.width}\nheight: {camera.height}\ncalibration: {numbers}\n")
    return path


@pytest.fixture(scope="session")
def short_recording(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first 40 frames. Tests must not change it."""
    path = tmp_path_factory.mktemp("short") / "recording"
    path.mkdir()
    for name in ("rgb", "depth", "groundtruth.txt", "calibration.yaml"):
        (path / name).symlink_to(recording / name)
    for name in ("rgb.txt", "depth.txt"):
        (path / name).write_text("".join((recording / name).read_text().splitlines(keepends=True)[:40]))
    return path


def helper(path: str) -> ModuleType:
    """A module below `tests/`; test folders are no packages, so they cannot import each other."""
    file = Path(__file__).parent / path
    spec = importlib.util.spec_from_file_location(f"v2d_test_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def wall_and_box() -> ModuleType:
    """A slanted wall and a box before it, with exact depth."""
    return helper("mapping/wall_and_box.py")


@pytest.fixture(scope="session")
def scenes() -> ModuleType:
    """Hand-made recordings."""
    return helper("sources/scenes.py")


@pytest.fixture(scope="session")
def layouts() -> ModuleType:
    """Writers of the layouts of data sets."""
    return helper("sources/layouts.py")


@pytest.fixture(scope="session")
def mjpeg_server() -> ModuleType:
    """A camera on the network."""
    return helper("sources/mjpeg_server.py")


@pytest.fixture(scope="session")
def ros_recording() -> ModuleType:
    """Bags by the writers of rosbags; skips where that is not installed."""
    pytest.importorskip("rosbags", reason="rosbags is not installed (the extra ros)")
    return helper("sources/ros_recording.py")


@pytest.fixture(scope="session")
def board_images() -> ModuleType:
    """Photographs of calibration boards by formula."""
    return helper("calibration/board_images.py")


@pytest.fixture(scope="session")
def realsense_recording() -> ModuleType:
    """Recordings of a software RealSense; skips where the library is not installed."""
    pytest.importorskip("pyrealsense2", reason="pyrealsense2 cannot be loaded", exc_type=ImportError)
    return helper("sources/realsense_recording.py")


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Within it a write that makes a file of this process larger than so many bytes is refused, as by a full disk.

    It must not outlast the lines it is for: the test runner writes too, and its output may be a file.
    """
    resource = pytest.importorskip("resource", reason="this system sets no limits")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def development_data() -> Path:
    """The folder of real development sequences; skips where there is none."""
    root = os.environ.get("V2D_TEST_DATA")
    if not root:
        pytest.skip("V2D_TEST_DATA does not name the development sequences")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> None:
    """A shell starts jobs of the background with Ctrl-C ignored, nohup with SIGHUP ignored; programs would keep it so.

    Not SIG_DFL: the tests themselves go on.
    """
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """With two threads, tiny tensors spend their time at OpenMP's barriers."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(wall_and_box: ModuleType) -> Any:
    """A slanted wall and a box before it."""
    return wall_and_box.World()


@pytest.fixture(autouse=True)
def own_levels() -> None:
    """Programs set levels of loggers, in fixtures of whole sessions too: every test begins without."""
    for name in ("slam", "apps", "__main__"):
        logging.getLogger(name).setLevel(logging.NOTSET)

"""A short rendered recording that the tests of the programs and of the system share."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from slam.frames import Frame, Trajectory
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
def recording(rendered: ListSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in TUM layout. Tests must not change it."""
    path = tmp_path_factory.mktemp("recording")
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    for frame in rendered.frames:
        stamp = format_time_ns(frame.time_ns)
        pictures = {"rgb": frame.image[..., ::-1], "depth": np.rint(5000 * frame.depth).astype(np.uint16)}
        for kind, pixels in pictures.items():
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

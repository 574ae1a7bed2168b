"""The pictures of a run that `tools/draw_run.py` makes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence

from slam.io.run import write_record
from slam.io.run_directory import RunDirectory
from slam.viewer.driver import count_devices

ROOT = Path(__file__).resolve().parents[2]
SEEN = (20, 60, 220)  # RGB of the frames of the source


@pytest.fixture
def run_with_source(run_path, run_record, tmp_path) -> Path:
    """The small run, and the eight frames that it is said to be made of."""
    folder = tmp_path / "recording"
    (folder / "rgb").mkdir(parents=True)
    for n in range(1, 9):
        assert cv2.imwrite(str(folder / f"rgb/{n}.000000.png"), np.full((48, 64, 3), SEEN[::-1], np.uint8))
    (folder / "rgb.txt").write_text("".join(f"{n}.000000 rgb/{n}.000000.png\n" for n in range(1, 9)))
    source = replace(run_record.source, path=str(folder))
    write_record(RunDirectory(run_path), replace(run_record, source=source))
    return run_path


def drawn(run: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/draw_run.py", str(run), "--out", str(out), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.skipif(count_devices() < 1, reason="no Vulkan driver (libvulkan1, mesa-vulkan-drivers)")
def test_the_map_grows_beside_what_the_camera_sees(run_with_source, tmp_path):
    done = drawn(run_with_source, tmp_path, "--frames", "4", "--keyframes", "2")
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "keyframes.jpg")).shape == (3 * 48, 2 * 64, 3)
    with Image.open(tmp_path / "run.webp") as file:
        assert file.n_frames == 4 and file.info["loop"] == 0
        frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(file)]
    assert [frame.shape for frame in frames] == [(360, 640, 3)] * 4
    for frame in frames:
        assert np.abs(frame[8:172, 8:232] - SEEN).max() < 25  # lossy, most along edges; 200 if red is blue
    in_color = [(np.ptp(frame[:, 240:], axis=2) > 100).sum() for frame in frames]
    assert in_color[0] > 100 and in_color[-1] > 1.05 * in_color[0]  # the wall, and more of it and of the path


def test_what_cannot_be_drawn_is_one_line(run_with_source, tmp_path):
    few = drawn(run_with_source, tmp_path, "--frames", "1")
    assert few.returncode == 2 and few.stderr == (
        "draw_run: --keyframes must be at least 1 and --frames at least 2, got 5 and 1\n"
    )
    none = drawn(tmp_path / "gone", tmp_path)
    assert none.returncode == 1 and len(none.stderr.splitlines()) == 1 and "gone" in none.stderr

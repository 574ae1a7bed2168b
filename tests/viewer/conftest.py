"""A small run to look at: four keyframes before a wall of four colours."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from slam.frames import Image, Keyframe, Trajectory, View
from slam.inv_depth import InvDepth
from slam.io.ply import PointCloud, read_ply
from slam.io.run import write_cloud, write_keyframes, write_trajectories
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import read_tum

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
SMALL = ["--set", "pixels=19200"]  # 160x120
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
SIZE = (48, 64)  # rows, columns
K = torch.tensor([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]], dtype=torch.float64)
WALL_Z = 2.0
QUARTERS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 230), "white": (230, 230, 230)}  # from top left


@pytest.fixture
def run_path(tmp_path) -> Path:
    """A run directory: cameras 0.1 apart that look straight at the wall; rows below the middle are half sure."""
    H, W = SIZE
    image = np.zeros((H, W, 3), np.uint8)
    red, green, blue, white = QUARTERS.values()
    image[: H // 2, : W // 2], image[: H // 2, W // 2 :] = red, green
    image[H // 2 :, : W // 2], image[H // 2 :, W // 2 :] = blue, white
    inv_depth = torch.full(SIZE, 1 / WALL_Z)
    confidence = torch.ones(SIZE)
    confidence[H // 2 :] = 0.6
    dense, keyframes = InvDepth.from_confidence(inv_depth, confidence), []
    for n in range(4):
        T_wc = torch.eye(4, dtype=torch.float64)
        T_wc[0, 3] = 0.1 * n
        view = View(2 * n, 10**9 * (1 + 2 * n), Image(image), K)
        keyframes.append(Keyframe(n, view, T_wc, dense, InvDepth.unknown((6, 8)), parent_id=max(n - 1, 0) if n else -1))
    T_wc_all = np.tile(np.eye(4), (8, 1, 1))
    T_wc_all[:, 0, 3] = 0.05 * np.arange(8)
    trajectory = Trajectory(10**9 * (1 + np.arange(8, dtype=np.int64)), T_wc_all)
    v, u = np.mgrid[:H, :W].reshape(2, -1)
    points = WALL_Z * np.stack([(u - 31.5) / 50, (v - 23.5) / 50, np.ones(H * W)], -1)
    run = RunDirectory(tmp_path / "run")
    write_keyframes(run, keyframes)
    write_trajectories(run, trajectory, trajectory, "")
    write_cloud(run, PointCloud(points.astype(np.float32), image[v, u]), "")
    assert not run.missing
    return run.path


@pytest.fixture
def display_server() -> Iterator[subprocess.Popen[bytes]]:
    """A virtual display of its own; its `args[-1]` is the name."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "+extension", "GLX"]
    server = subprocess.Popen(command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as answer:
        server.args = [*command, f":{answer.readline().strip()}"]
    try:
        yield server
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def display(display_server: subprocess.Popen[bytes]) -> str:
    """The name of a virtual display."""
    return display_server.args[-1]


@pytest.fixture
def stream(rendered, mjpeg_server) -> Iterator[str]:
    """The address of an endless camera: the rendered recording there and back."""
    images = [cv2.imencode(".jpg", frame.image[..., ::-1])[1].tobytes() for frame in rendered.frames]
    server = mjpeg_server.MjpegServer(images + images[::-1], 30.0)
    yield server.url
    server.stop()


class Program:
    """v2d-slam in a process of its own, until it is ended by what the test does."""

    def __init__(self, out: Path, *options: str, **environment: str) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        self.environment = {k: v for k, v in os.environ.items() if k not in DISPLAYS} | environment
        command = [sys.executable, "-m", "apps.run", "--out", str(out), *SMALL, *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def poses(self) -> int:
        """Lines of the online trajectory, written about every second."""
        path = self.out / "trajectory_online.txt"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def wait_until(self, claim: Callable[[], bool]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not claim():
            assert self.process.poll() is None and time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.1)

    def check_ended_in_order(self) -> dict[str, Any]:
        """Everything is written; what `run.json` says."""
        assert self.process.wait(LIMIT_S) == 0, self.log.read_text()
        record = json.loads((self.out / "run.json").read_text())
        assert record["missing"] == {} and record["outcome"]["end"] == "stopped by the user"
        assert len(read_tum(self.out / "trajectory.txt")) == record["frames_tracked"] > 0
        assert len(read_ply(self.out / "map.ply")) > 0
        return record


@pytest.fixture
def start_program(tmp_path) -> Iterator[Callable[..., Program]]:
    """Starts v2d-slam with options, and further environment; nothing is left of it after the test."""
    programs = []

    def started(*options: str, **environment: str) -> Program:
        programs.append(Program(tmp_path / "run", *options, **environment))
        return programs[-1]

    yield started
    for program in programs:
        program.process.kill()
        program.process.wait(10)

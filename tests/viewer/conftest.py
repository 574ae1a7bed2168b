"""A small run to look at: four keyframes before a wall of four colours."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from slam.frames import Image, Keyframe, Trajectory, View
from slam.inv_depth import InvDepth
from slam.io.ply import PointCloud
from slam.io.run import write_cloud, write_keyframes, write_trajectories
from slam.io.run_directory import RunDirectory

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

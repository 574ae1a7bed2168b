"""The window on a virtual display, with keys from outside."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from slam.io.images import read_color
from slam.io.ply import read_ply
from slam.viewer.driver import count_devices

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60
MISSING = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed"),
    pytest.mark.skipif(count_devices() < 1, reason="no Vulkan driver (libvulkan1, mesa-vulkan-drivers)"),
]


def wait_for(path: Path) -> None:
    """Until a file is there (files appear whole)."""
    end_s = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < end_s, f"{path.name} was not written"
        time.sleep(0.1)


SHOTS = 20  # images taken at most while the window is still being drawn


def shows_the_wall(image: np.ndarray) -> bool:
    """True if the red, the green and the blue quarter of the wall are all seen; image (H, W, 3) int."""
    seen = []
    for channel in range(3):
        others = [c for c in range(3) if c != channel]
        seen.append(((image[..., channel] > 150) & (image[..., others].max(-1) < 40)).sum() > 200)
    return all(seen)


def test_keys_save_points_and_a_image_and_quit(run_path, display, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "WAYLAND_DISPLAY"} | {"DISPLAY": display}

    def xdotool(*words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
        return done.stdout.strip()

    command = [sys.executable, "-m", "apps.view", str(run_path), "--size", "640", "480"]
    with (tmp_path / "log").open("w") as log:
        program = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        window = xdotool("search", "--sync", "--onlyvisible", "--name", "v2d-view").splitlines()[0]
        xdotool("windowfocus", "--sync", window)
        xdotool("key", "p")
        wait_for(run_path / "view_001.ply")
        xdotool("key", "bracketright", "bracketright", "p")  # only what is at least 0.7 sure: the upper half
        wait_for(run_path / "view_002.ply")
        xdotool("key", "bracketleft", "bracketleft", "g")
        for shot in range(1, SHOTS + 1):  # an image shows what was drawn last, which may be older than the keys
            xdotool("key", "s")
            wait_for(run_path / f"view_{shot:03d}.png")
            image = read_color(run_path / f"view_{shot:03d}.png").astype(int)
            if shows_the_wall(image):
                break
            time.sleep(1.0)
        xdotool("key", "q")
        assert program.wait(LIMIT_S) == 0, (tmp_path / "log").read_text()
    finally:
        program.kill()
        program.wait(10)
    everything, surer = (len(read_ply(run_path / f"view_00{n}.ply")) for n in (1, 2))
    assert everything > 24 * 32 and surer == pytest.approx(everything / 2, rel=0.1)
    assert shows_the_wall(image)


def test_an_interrupt_closes_the_window_in_order(run_path, display):
    environment = {k: v for k, v in os.environ.items() if k != "WAYLAND_DISPLAY"} | {"DISPLAY": display}
    program = subprocess.Popen(
        [sys.executable, "-m", "apps.view", str(run_path)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        search = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "v2d-view"]
        subprocess.run(search, env=environment, capture_output=True, timeout=LIMIT_S, check=True)
        program.send_signal(signal.SIGINT)
        assert program.wait(LIMIT_S) == 0
    finally:
        program.kill()
        program.wait(10)

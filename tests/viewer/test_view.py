"""v2d-view in a process of its own: the renderer cannot be closed and opened again within one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.view import main
from slam.io.images import read_color
from slam.io.refined import FramesWriter
from slam.io.run_directory import RunDirectory
from slam.viewer.driver import count_devices
from slam.viewer.run import FinishedRun

ROOT = Path(__file__).resolve().parents[2]


def view(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program without a display, with further environment."""
    clean = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, "-m", "apps.view", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(count_devices() < 1, reason="no Vulkan driver (libvulkan1, mesa-vulkan-drivers)")
def test_the_screenshot_shows_the_map_upright_and_in_its_colours(run_path, tmp_path):
    done = view(run_path, "--screenshot", tmp_path / "view.png", "--size", 320, 240)
    assert done.returncode == 0, done.stderr
    image = read_color(tmp_path / "view.png").astype(int)
    assert image.shape == (240, 320, 3)
    middles = {}
    for name, channel in {"red": 0, "green": 1, "blue": 2}.items():
        others = np.delete(image, channel, axis=2).max(-1)
        is_color = (image[..., channel] > 150) & (others < 40)
        assert is_color.sum() > 200, f"{name}: {is_color.sum()} pixels"
        middles[name] = np.argwhere(is_color).mean(0)  # row, column
    assert middles["red"][1] + 20 < middles["green"][1]  # left of
    assert middles["red"][0] + 20 < middles["blue"][0]  # above
    assert (image.max(-1) < 40).mean() > 0.1  # background around it


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Vulkan is asked for only on Linux")
def test_no_driver_is_one_line(run_path, tmp_path, monkeypatch, capfd):
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "/nowhere")
    assert main([str(run_path), "--screenshot", str(tmp_path / "view.png")]) == 1
    said = capfd.readouterr().err
    assert said.startswith("v2d-view: no Vulkan driver") and said.count("\n") == 1
    assert not (tmp_path / "view.png").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are asked for only on Linux")
@pytest.mark.parametrize(("display", "words"), [("", "no display"), (":4711", "the display :4711 does not answer")])
def test_no_display_is_one_line(run_path, display, words, monkeypatch, capfd):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    assert main([str(run_path)]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"v2d-view: {words}") and said.count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are asked for only on Linux")
def test_refined_depth_is_mentioned_and_is_a_run_itself(run_path, monkeypatch, caplog):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def infos(path: Path) -> list[str]:
        """Lines of a viewer that ends for want of a display, after the run was read."""
        caplog.clear()
        assert main([str(path)]) == 1
        return [record.getMessage() for record in caplog.records if record.name == "apps.view"]

    assert infos(run_path) == []
    refined = run_path / "refined"
    shutil.copytree(run_path, refined)
    assert infos(run_path) == []  # broken off before its listing
    one = FinishedRun(run_path).keyframes[0]
    with FramesWriter(RunDirectory(refined), one.view.K, one.dense.size, 5000.0, (1.0, 4.0)) as writer:
        writer.add(one.view, one.T_wc, one.dense, one.dense)
    (line,) = infos(run_path)
    assert f"v2d-view {refined}" in line
    assert infos(refined) == [] and len(FinishedRun(refined).keyframes) == 4


def test_mistakes_are_one_line(run_path, tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--screenshot", str(tmp_path / "view.png")]) == 1
    assert "no run directory" in capsys.readouterr().err
    assert main([str(run_path), "--screenshot", str(tmp_path / "view.png"), "--size", "0", "9"]) == 2
    assert "--size 0 9" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--screenshot", str(tmp_path / "view.txt")]) == 2
    assert "view.txt: the name must end in .png" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(run_path), "--screenshot", str(tmp_path / "file/view.png")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert main([str(run_path), "--map", "2"]) == 2
    assert f"--map 2: {run_path} has one map" in capsys.readouterr().err

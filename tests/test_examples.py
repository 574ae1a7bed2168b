"""The examples run as they stand, each in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from apps.run import main
from slam.io.ply import read_ply
from slam.io.trajectory import read_tum

ROOT = Path(__file__).resolve().parents[1]


def example(name: str, *words: object) -> str:
    """What it prints."""
    command = [sys.executable, str(ROOT / "tools/examples" / name), *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_your_video(short_recording, tmp_path):
    printed = example("your_video.py", short_recording, "--out", tmp_path / "walk")
    assert len(re.findall(r"^frame \d+ TRACKING at ", printed, re.MULTILINE)) == 40
    assert len(read_tum(tmp_path / "walk/trajectory.txt")) == 40 and len(read_ply(tmp_path / "walk/map.ply")) > 1000


def test_evaluate(short_recording):
    lines = example("evaluate.py", short_recording, "backend.window=4").splitlines()
    assert [line.split(":")[0] for line in lines] == ["defaults", "backend.window=4"]
    for line in lines:
        assert float(re.findall(r"ATE (\S+) m, 100 %", line)[0]) < 0.02


def test_export_to_nerfstudio(recording, tmp_path):
    run, out = tmp_path / "run", tmp_path / "ns"
    assert main(["--sequence", str(recording), "--out", str(run), "--headless", "--quiet", "--max-frames", "30"]) == 0
    count = int(re.findall(r"(\d+) pictures with poses", example("export_nerfstudio.py", run, "--out", out))[0])
    assert count == len(list((out / "images").iterdir())) > 1

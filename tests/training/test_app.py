import io
import logging
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from apps import train
from slam.errors import ConfigError
from slam.networks.storage import PROFILES, load_networks
from slam.settings import load_config
from slam.training import rendered
from slam.training.trainer import TrainConfig

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_configurations_of_the_profiles_load(profile: str):
    config = load_config(TrainConfig, ROOT / "configs" / f"train_{profile}.yaml", ["stage=joint"])
    assert config.stage == "joint"
    assert PROFILES[profile].profile == profile
    assert config.augment.crop_width <= PROFILES[profile].width


def test_without_pyyaml_the_settings_read_the_same(tmp_path, monkeypatch):
    """On a machine with little beside torch; what only PyYAML can read is refused."""
    paths, overrides = sorted((ROOT / "configs").glob("train_*.yaml")), ["stage=joint", "augment.flip=0.25"]
    with_library = [load_config(TrainConfig, path, overrides) for path in paths]
    monkeypatch.setattr("slam.settings.yaml", None)
    assert [load_config(TrainConfig, path, overrides) for path in paths] == with_library
    (tmp_path / "list.yaml").write_text("augment:\n  - crop_width: 8\n")
    with pytest.raises(ConfigError, match="needs PyYAML"):
        load_config(TrainConfig, tmp_path / "list.yaml")


SMALL = ["clips=1", "views=2", "edges=2", "iters=1", "pool_start=1", "augment.crop_height=48", "augment.crop_width=64"]


@pytest.fixture
def short_clips(monkeypatch) -> None:
    """Three views instead of six, and one clip for validation."""
    monkeypatch.setattr(rendered, "RenderedClips", partial(rendered.RenderedClips, views=3))
    monkeypatch.setattr("slam.training.rendered.VALIDATION_CLIPS", 1)


def call(monkeypatch, out: Path, *options: str) -> int:
    arguments = ["v2d-train", "--out", str(out), "--threads", "1", *[f"--set={s}" for s in SMALL], *options]
    monkeypatch.setattr(sys, "argv", arguments)
    return train.main()


@pytest.mark.usefixtures("short_clips")
def test_program_trains_resumes_and_leaves_weights_with_their_card(tmp_path, monkeypatch, capsys):
    """A few steps on rendered clips; the second run goes on from the first and counts on."""

    def pairs(folder: Path) -> int:
        return int(re.search(r"Samples: ([\d,]+) pairs", (folder / "weights.md").read_text())[1].replace(",", ""))

    assert call(monkeypatch, tmp_path, "--steps", "3") == 0
    load_networks(tmp_path / "weights.safetensors")
    before = pairs(tmp_path)
    assert before > 0 and "epe_" in (tmp_path / "weights.md").read_text()
    assert call(monkeypatch, tmp_path, "--resume", "--steps", "5") == 0
    assert pairs(tmp_path) > before
    new = tmp_path / "new"
    assert call(monkeypatch, new, "--steps", "1", "--resume", "slam/networks/weights/fast.safetensors") == 0
    assert pairs(new) > 100_000
    assert call(monkeypatch, tmp_path, "--steps", "1", "--set", "edgs=3") != 0
    assert "edgs" in capsys.readouterr().err


def test_a_call_whose_time_is_over_says_that_the_schedule_is_not(tmp_path, monkeypatch, caplog):
    """Its checkpoint goes on; a call that did not look at its time would finish the schedule."""
    with caplog.at_level(logging.INFO):
        assert call(monkeypatch, tmp_path, "--minutes", "0.2", "--stop-after", "0.001") == 0
    assert "the schedule is not finished; --resume goes on" in caplog.text
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["is_finished"] is False


BARE = """
import sys
for name in ("yaml", "safetensors", "matplotlib", "tqdm", "open3d", "pyrealsense2", "scipy", "pooch", "cv2"):
    sys.modules[name] = None
"""


@pytest.mark.skipif(os.name != "posix", reason="a script for bash")
def test_a_machine_with_little_beside_torch_trains_in_calls(tmp_path):
    """Each call, on a machine that has of the last one only its OUT, goes on with step, clips and weights.

    A step begins with the clip that it adds: who sees a file of the next number knows that a step is under way.
    """
    (tmp_path / "sitecustomize.py").write_text(BARE)
    environment = os.environ | {"PYTHON": sys.executable, "DEVICE": "cpu", "PYTHONPATH": str(tmp_path)}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    settings = [*SMALL, "pool=2", "stage=motion", "steps_per_render=1"]
    options = ["--threads", "1", "--config", "configs/train_fast.yaml", *[f"--set={s}" for s in settings]]
    script = [str(ROOT / "tools" / "train_on_gpu.sh"), str(tmp_path / "out"), str(tmp_path / "out"), *options]

    def call(machine: str, clip: int) -> tuple[str, dict[str, Any]]:
        """Until it has that clip and is told to stop: what it said, and its checkpoint."""
        work, end_s = tmp_path / machine, time.monotonic() + 200
        with (tmp_path / "log").open("w") as log:
            run = subprocess.Popen(script, stdout=log, stderr=log, env=environment | {"WORK": str(work)})
        wanted = work / "clips" / f"{clip}.safetensors"
        while run.poll() is None and not wanted.exists() and time.monotonic() < end_s:
            time.sleep(0.02)
        run.terminate()
        said = (run.wait(100), (tmp_path / "log").read_text())
        assert said[0] == 0, said[1]
        parts = sorted((tmp_path / "out").glob("checkpoint.pt.*"))
        assert max(part.stat().st_size for part in parts) < 16e6
        return said[1], torch.load(io.BytesIO(b"".join(part.read_bytes() for part in parts)), weights_only=True)

    said, first = call("first", 2)
    assert "not finished" in said and first["counts"]["step"] >= 1 and first["clips_added"] > 2
    said, second = call("second", first["clips_added"])
    assert f"goes on at step {first['counts']['step']}," in said and "not finished" in said
    assert second["counts"]["step"] > first["counts"]["step"] and second["clips_added"] > first["clips_added"]
    load_networks(tmp_path / "out" / "weights.safetensors")
    (tmp_path / "out" / "checkpoint.pt.00").write_bytes(b"damaged")
    refused = subprocess.run(
        script, capture_output=True, text=True, env=environment | {"WORK": str(tmp_path / "third")}
    )
    assert refused.returncode == 1 and "do not fit together" in refused.stderr


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--minutes", "0"], "--minutes must be positive"),
        (["--steps", "-1"], "--steps must be positive, got -1"),
        (["--stop-after", "nan"], "--stop-after must be positive, got nan"),
        (["--device", "toaster"], "--device toaster"),
        (["--out", "/dev/null/inside"], "--out /dev/null/inside"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--resume"], "checkpoint.pt is no checkpoint"),
    ],
)
def test_mistakes_end_in_one_line(extra: list[str], message: str, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["v2d-train", "--out", str(tmp_path), *extra])
    assert train.main() != 0
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1

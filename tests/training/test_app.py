import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from apps import train
from slam.errors import ConfigError
from slam.networks.storage import PROFILES, load_networks
from slam.settings import load_config
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


def test_program_trains_resumes_and_leaves_weights_with_their_card(tmp_path, monkeypatch, capsys):
    """A few steps on rendered clips; the second run goes on from the first and counts on."""
    monkeypatch.setattr("slam.training.rendered.VALIDATION_CLIPS", 1)
    settings = [
        "clips=1",
        "views=2",
        "edges=2",
        "iters=1",
        "pool_start=1",
        "augment.crop_height=48",
        "augment.crop_width=64",
    ]
    arguments = ["v2d-train", "--steps", "8", "--out", str(tmp_path), "--threads", "1"]
    arguments += [f"--set={s}" for s in settings]
    monkeypatch.setattr(sys, "argv", arguments)
    assert train.main() == 0
    load_networks(tmp_path / "weights.safetensors")
    card = (tmp_path / "weights.md").read_text()
    pairs = int(re.search(r"Samples: ([\d,]+) pairs", card).group(1))
    assert pairs > 0 and "epe_" in card
    monkeypatch.setattr(sys, "argv", [*arguments, "--resume", "--steps", "12"])
    assert train.main() == 0
    assert int(re.search(r"Samples: ([\d,]+) pairs", (tmp_path / "weights.md").read_text()).group(1)) > pairs
    shipped = "slam/networks/weights/fast.safetensors"
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path / "new"), "--resume", shipped])
    assert train.main() == 0
    card = (tmp_path / "new" / "weights.md").read_text()
    assert int(re.search(r"Samples: ([\d,]+) pairs", card).group(1).replace(",", "")) > 100_000
    monkeypatch.setattr(sys, "argv", [*arguments, "--set", "edgs=3"])
    assert train.main() != 0
    assert "edgs" in capsys.readouterr().err


BARE = """
import sys
for name in ("yaml", "safetensors", "matplotlib", "tqdm", "open3d", "pyrealsense2", "scipy", "pooch", "cv2"):
    sys.modules[name] = None
"""


def test_a_machine_with_little_beside_torch_trains_in_calls(tmp_path):
    """Each call, on a machine that has of the last one only its OUT, goes on with step, clips and weights."""
    (tmp_path / "sitecustomize.py").write_text(BARE)
    environment = os.environ | {"PYTHON": sys.executable, "DEVICE": "cpu", "PYTHONPATH": str(tmp_path)}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    small = ["clips=1", "views=2", "edges=2", "iters=1", "pool=2", "pool_start=1", "stage=motion"]
    options = ["--minutes", "30", "--threads", "1", "--config", "configs/train_fast.yaml"]
    options += [f"--set={s}" for s in [*small, "augment.crop_height=48", "augment.crop_width=64"]]

    def call(n: int, stop_after: str) -> tuple[str, dict[str, Any]]:
        command = [ROOT / "tools" / "train_on_gpu.sh", tmp_path / "out", tmp_path / "out", *options]
        run = subprocess.run(
            [*command, "--stop-after", stop_after],
            capture_output=True,
            text=True,
            env=environment | {"WORK": str(tmp_path / f"machine{n}")},
        )
        assert run.returncode == 0, run.stderr
        parts = sorted((tmp_path / "out").glob("checkpoint.pt.*"))
        assert max(part.stat().st_size for part in parts) < 16e6
        return run.stdout, torch.load(io.BytesIO(b"".join(part.read_bytes() for part in parts)), weights_only=True)

    steps, clips = [0], [0]
    for n in range(8):  # a slow machine needs more and longer calls
        said, state = call(n, f"{0.1 * 2 ** (n // 2)}")
        assert "not finished" in said and (n == 0 or f"goes on at step {steps[-1]}," in said)
        steps.append(state["counts"]["step"])
        clips.append(state["clips_added"])
        if len(set(steps)) > 2:
            break
    assert steps == sorted(steps) and len(set(steps)) > 2 and clips == sorted(clips) and clips[-1] > clips[1] > 0
    load_networks(tmp_path / "out" / "weights.safetensors")
    (tmp_path / "out" / "checkpoint.pt.00").write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="do not fit together"):
        call(9, "0.1")


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


def test_help_says_what_it_does():
    run = subprocess.run([sys.executable, "-m", "apps.train", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0 and "--stage" in run.stdout

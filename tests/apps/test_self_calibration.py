"""A recording whose lens is a guess: what v2d-slam finds, writes and says, and what it says of a calibration."""

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from apps.run import main
from slam.io.calibration import read_calibration, write_calibration
from slam.io.images import write_color
from slam.io.run import Run
from slam.io.trajectory import format_time_ns, write_tum
from slam.sources.demo import DemoConfig, DemoSource
from slam.sources.reopen import reopened

OPTIONS = ["--deterministic", "--headless", "--set", "pixels=19200"]


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    """80 rendered frames of a walk through an office, in TUM layout with its calibration."""
    folder = tmp_path_factory.mktemp("walk")
    source = DemoSource(DemoConfig(kind="office", seed=3, frames=80, width=160, height=120, fps=10.0))
    (folder / "rgb").mkdir()
    lines = []
    for frame in source:
        stamp = format_time_ns(frame.time_ns)
        write_color(folder / "rgb" / f"{stamp}.png", frame.image)
        lines.append(f"{stamp} rgb/{stamp}.png\n")
    (folder / "rgb.txt").write_text("".join(lines))
    write_tum(folder / "groundtruth.txt", source.groundtruth())
    write_calibration(folder / "calibration.yaml", source.camera)
    return folder


@pytest.fixture(scope="module")
def uncalibrated(walk, tmp_path_factory) -> Path:
    """The walk with a lens that is 25 % too short, and said to be a guess."""
    folder = tmp_path_factory.mktemp("uncalibrated") / "walk"
    shutil.copytree(walk, folder)
    true = read_calibration(walk / "calibration.yaml")
    guess = replace(true, fx=0.75 * true.fx, fy=0.75 * true.fy, is_guess=True)
    write_calibration(folder / "calibration.yaml", guess)
    return folder


@pytest.fixture(scope="module")
def run(uncalibrated, tmp_path_factory) -> Path:
    """A run over it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["--sequence", str(uncalibrated), "--out", str(out), *OPTIONS, "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def calibrated_run(walk, tmp_path_factory) -> tuple[Path, str]:
    """A run over the walk by its calibration, which is compared and kept; and what it printed."""
    out, printed = tmp_path_factory.mktemp("runs") / "calibrated", io.StringIO()
    with redirect_stdout(printed):
        assert main(["--sequence", str(walk), "--out", str(out), *OPTIONS, "--self-calibrate", "focal"]) == 0
    return out, printed.getvalue()


def test_the_focal_length_is_found_and_written(run, walk):
    true, found = (read_calibration(path / "calibration.yaml") for path in (walk, run))
    assert found.fx == pytest.approx(true.fx, rel=0.05)
    assert not found.is_guess
    assert (run / "calibration.yaml").read_text().startswith(f"# focal length {found.fx:.1f} +- ")


def test_the_map_is_as_good_as_with_the_calibration(run, calibrated_run):
    def evaluated(folder: Path) -> tuple[float, float]:
        score = json.loads((folder / "metrics.json").read_text())["evaluation"]
        return score["ate_m"]["sim3"]["rmse"], score["coverage"]

    (with_guess, coverage), (calibrated, _) = evaluated(run), evaluated(calibrated_run[0])
    assert with_guess < 2.25 * calibrated and coverage > 0.99  # the focal length is a percent off


def test_the_frames_are_opened_again_by_the_camera_that_was_found(run):
    source = reopened(Run(run).record().source)
    assert source.camera == read_calibration(run / "calibration.yaml")


def test_off_leaves_the_guess(uncalibrated, tmp_path, capsys):
    options = [*OPTIONS, "--self-calibrate", "off", "--max-frames", "20"]
    assert main(["--sequence", str(uncalibrated), "--out", str(tmp_path / "run"), *options]) == 0
    assert not (tmp_path / "run" / "calibration.yaml").exists()
    assert "self-calibration" not in capsys.readouterr().out


def test_a_calibration_is_compared_where_that_is_asked_for_and_kept(calibrated_run, walk):
    folder, words = calibrated_run
    assert "by the calibration: they agree" in words
    assert not (folder / "calibration.yaml").exists()
    record = Run(folder).record()
    assert record.source.camera.fx == read_calibration(walk / "calibration.yaml").fx

"""v2d-eval: mistakes end in one line and the right exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.evaluate import main
from slam.frames import Trajectory
from slam.io.trajectory import write_tum


@pytest.fixture
def places(tmp_path) -> Path:
    """A run and its truth: ten poses on a parabola."""
    T_wc = np.tile(np.eye(4), (10, 1, 1))
    T_wc[:, 0, 3], T_wc[:, 1, 3] = np.arange(10), 0.1 * np.arange(10) ** 2
    trajectory = Trajectory(10**9 + 10**8 * np.arange(10, dtype=np.int64), T_wc)
    (tmp_path / "run").mkdir()
    write_tum(tmp_path / "run/trajectory.txt", trajectory)
    write_tum(tmp_path / "groundtruth.txt", trajectory)
    return tmp_path


def test_truth_with_repeated_stamps_is_scored(places, capsys):
    lines = (places / "groundtruth.txt").read_text().splitlines()
    moved = lines[5].split()
    moved[1] = "1000"
    (places / "groundtruth.txt").write_text("\n".join([*lines[:6], " ".join(moved), *lines[6:]]) + "\n")
    assert main([str(places / "run"), "--groundtruth", str(places / "groundtruth.txt"), "--quiet", "--no-plots"]) == 0
    assert capsys.readouterr() == ("", "")
    numbers = json.loads((places / "run/metrics.json").read_text())["evaluation"]
    assert numbers["ate_m"]["sim3"]["rmse"] < 1e-9


def test_a_truncated_truth_is_named_with_its_line(places, capsys):
    text = (places / "groundtruth.txt").read_text()
    (places / "groundtruth.txt").write_text(text[:-8])
    assert main([str(places / "run"), "--groundtruth", str(places / "groundtruth.txt")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"v2d-eval: {places}/groundtruth.txt, line 11: expected 8 numbers")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["run", "--groundtruth", "none"], 1, "no ground truth at"),
        (["run", "--groundtruth", "run"], 1, "has no ground truth"),
        (["none", "--groundtruth", "groundtruth.txt"], 1, "no trajectory at"),
        (["run", "--groundtruth", "groundtruth.txt", "--online"], 1, "no trajectory at"),
        (["run", "--groundtruth", "groundtruth.txt", "--depth", "none"], 1, "no depth images"),
        (["run", "--groundtruth", "groundtruth.txt", "--max-difference", "-1"], 2, "--max-difference"),
        (["run", "--groundtruth", "groundtruth.txt", "--max-difference", "inf"], 2, "--max-difference"),
        (["run", "--groundtruth", "groundtruth.txt", "--min-confidence", "nan"], 2, "--min-confidence"),
        (["run", "--groundtruth", "groundtruth.txt", "--out", "groundtruth.txt"], 1, "cannot write results into"),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(places, monkeypatch, capsys, options, code, message):
    monkeypatch.chdir(places)
    assert main([*options, "--quiet"]) == code
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("v2d-eval: ") and output.err.count("\n") == 1
    assert output.out == ""

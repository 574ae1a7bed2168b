"""v2d-eval: mistakes end in one line and the right exit code."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.evaluate import main
from slam.frames import Image, Keyframe, Trajectory, View
from slam.inv_depth import InvDepth
from slam.io.images import write_depth
from slam.io.refined import FramesWriter
from slam.io.run import write_keyframes
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import format_time_ns, write_tum


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
        (["run", "--groundtruth", "groundtruth.txt", "--depth-scale", "1000"], 2, "of the images of --depth"),
        (["run", "--groundtruth", "groundtruth.txt", "--depth", "d", "--depth-scale", "-1"], 2, "to 1000000, got -1"),
        (["run", "--groundtruth", "groundtruth.txt", "--out", "groundtruth.txt"], 1, "cannot write results into"),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(places, monkeypatch, capsys, options, code, message):
    monkeypatch.chdir(places)
    assert main([*options, "--quiet"]) == code
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("v2d-eval: ") and output.err.count("\n") == 1
    assert output.out == ""


@pytest.fixture
def with_depth(places) -> Path:
    """The run with depth of its ten frames; truth is 2 m. Nine say 1 and the last 1.5, in the upper half; the lower one
    is not sure. Frames 0, 1 and 9 are keyframes."""
    size, K, T_wc = (8, 12), torch.eye(3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    confidence = torch.tensor([0.9, 0.1]).repeat_interleave(4)[:, None].expand(size)
    run, keyframes = RunDirectory(places / "run"), []
    with FramesWriter(run, K, size, 1000.0, (0.5, 2.0)) as writer:
        for n in range(10):
            depth = InvDepth.from_confidence(torch.full(size, 1 / 1.5 if n == 9 else 1.0), confidence)
            view = View(n, 10**9 + 10**8 * n, Image(np.zeros((*size, 3), np.uint8)), K)
            writer.add(view, T_wc, depth, depth)
            write_depth(places / "depth" / f"{format_time_ns(view.time_ns)}.png", np.full((16, 24), 2.0))
            if n in (0, 1, 9):
                keyframes.append(Keyframe(n, view, T_wc, depth, depth))
    write_keyframes(run, keyframes)
    assert not run.missing
    return places


def test_depth_of_every_frame_is_scored_with_one_scale(with_depth, capsys):
    """The last frame is 50 % too far: a scale of its own hides that, one scale for the video does not."""
    (with_depth / "run/metrics.json").write_text(json.dumps({"before": {"drift": 0.2}, "after": {"drift": 0.1}}))
    options = ["--groundtruth", str(with_depth / "groundtruth.txt"), "--depth", str(with_depth / "depth"), "--no-plots"]
    assert main([str(with_depth / "run"), *options]) == 0
    metrics = json.loads((with_depth / "run/metrics.json").read_text())
    assert (metrics["before"], metrics["after"]) == ({"drift": 0.2}, {"drift": 0.1})
    depth, video = metrics["evaluation"]["depth"], metrics["evaluation"]["video_depth"]
    assert (depth["keyframes"], depth["abs_rel"]) == (3, pytest.approx(0, abs=1e-3))  # 16 bits of 20,000 levels
    assert depth["one_scale"]["abs_rel"] == pytest.approx(0.5 / 3, abs=1e-3)
    assert (video["frames"], video["frames_with_truth"], video["pixels"]) == (10, 10, 10 * 48)
    assert video["scale"] == pytest.approx(2.0)
    assert video["abs_rel"] == pytest.approx(0.05)
    assert video["rmse"] == pytest.approx(0.1)
    assert (video["delta_125"], video["confident_share"]) == (pytest.approx(0.9), 0.5)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    start = lines.index(["depth,", "one", "scale", "a", "video", "AbsRel", "rmse", "m", "d<1.25", "confident"])
    assert [line[:3] for line in lines[start + 1 :]] == [["3", "keyframes", "0.1667"], ["10", "frames", "0.0500"]]
    assert lines[-1] == ["10", "frames", "0.0500", "0.1000", "0.900", "50.0%"]


def test_true_depth_in_another_unit(with_depth):
    """The truth of 2 m read as millimetres is five times as far: so is the scale of the run."""
    options = ["--groundtruth", str(with_depth / "groundtruth.txt"), "--depth", str(with_depth / "depth"), "--no-plots"]
    assert main([str(with_depth / "run"), *options, "--depth-scale", "1000", "--quiet"]) == 0
    video = json.loads((with_depth / "run/metrics.json").read_text())["evaluation"]["video_depth"]
    assert video["scale"] == pytest.approx(10.0)


def test_a_run_without_depth_of_every_frame_has_that_of_its_keyframes(with_depth, capsys):
    (with_depth / "run/frames/frames.json").unlink()
    options = ["--groundtruth", str(with_depth / "groundtruth.txt"), "--depth", str(with_depth / "depth"), "--no-plots"]
    assert main([str(with_depth / "run"), *options]) == 0
    assert "video_depth" not in json.loads((with_depth / "run/metrics.json").read_text())["evaluation"]
    assert "10 frames" not in capsys.readouterr().out


def test_a_missing_map_of_a_frame_is_one_line(with_depth, capsys):
    (with_depth / "run/frames/1.300000000_depth.png").unlink()
    options = ["--groundtruth", str(with_depth / "groundtruth.txt"), "--depth", str(with_depth / "depth"), "--no-plots"]
    assert main([str(with_depth / "run"), *options]) == 1
    error = capsys.readouterr().err
    assert "1.300000000_depth.png" in error and error.count("\n") == 1


def at_times(path: Path, shift_ns: int) -> None:
    """A truth of another clock: the same poses, later by so much."""
    T_wc = np.tile(np.eye(4), (400, 1, 1))
    s = np.arange(400) / 30
    T_wc[:, 0, 3] = np.sin(2.1 * s) + 0.4 * np.sin(5.3 * s + 1)
    T_wc[:, 1, 3] = 0.3 * np.sin(3.7 * s) + 0.1 * s**1.5
    a = 0.5 * np.sin(1.7 * s) + 0.2 * np.sin(4.3 * s)
    T_wc[:, 0, 0], T_wc[:, 0, 1], T_wc[:, 1, 0], T_wc[:, 1, 1] = np.cos(a), -np.sin(a), np.sin(a), np.cos(a)
    write_tum(path, Trajectory(10**9 + shift_ns + np.round(s * 1e9).astype(np.int64), T_wc))


def test_clocks_that_differ_are_named_and_mended(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "run").mkdir()
    at_times(tmp_path / "run/trajectory.txt", 0)
    at_times(tmp_path / "truth.txt", 123_456_000_000)
    options = [str(tmp_path / "run"), "--groundtruth", str(tmp_path / "truth.txt"), "--no-plots"]
    assert main(options) == 1
    error = capsys.readouterr().err
    assert "the ground truth starts 123.456 s later; --time-offset auto finds an offset" in error
    assert error.count("\n") == 1
    for given, tolerance in (("auto", 1e-3), ("123.456", 0)):
        assert main([*options, "--time-offset", given]) == 0
        numbers = json.loads((tmp_path / "run/metrics.json").read_text())["evaluation"]
        assert numbers["time_offset_s"] == pytest.approx(123.456, abs=tolerance)
        assert numbers["ate_m"]["sim3"]["rmse"] < 0.005
    assert "time offset 123.456 s, added to the stamps of the run (correlation of the speeds 1.00" in caplog.text
    capsys.readouterr()
    assert main([*options, "--time-offset", "soon"]) == 2
    assert "--time-offset takes seconds or auto, got soon" in capsys.readouterr().err

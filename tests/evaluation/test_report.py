"""The report of a run, and the program around it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.evaluate import main
from slam.evaluation.report import table, trajectory_report
from slam.frames import Trajectory
from slam.geometry import se3
from slam.io.images import write_confidence, write_depth
from slam.io.run import KeyframeRecord, write_record
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import write_tum
from slam.settings import dump_config

N, RATE_NS = 60, 50_000_000


def circle(scale=1.0, stretch=1.0) -> Trajectory:
    """A quarter turn on a circle of 2 m looking to its centre, 3 s at 20 Hz."""
    angle = torch.linspace(0, np.pi / 2, N, dtype=torch.float64)
    omega = torch.stack([0 * angle, -angle, 0 * angle], -1)
    R = se3.so3_exp(omega)
    t = scale * 2.0 * torch.stack([stretch * angle.sin(), 0 * angle, 1 - angle.cos()], -1)
    return Trajectory(1_000_000_000 + RATE_NS * np.arange(N, dtype=np.int64), se3.from_rt(R, t).numpy())


def test_a_scaled_copy_is_perfect_after_sim3_alone():
    report = trajectory_report(circle(scale=0.1), circle(), frames_seen=2 * N)
    assert report.ate["sim3"].rmse < 1e-12 < 0.1 < report.ate["se3"].rmse
    assert report.rpe["sim3"].translation_rmse < 1e-12
    # a second is 20 of 59 steps of the quarter circle; a tenth of that chord is all the estimate moves
    chord = 2 * 2.0 * np.sin(0.5 * 20 / 59 * np.pi / 2)
    assert report.rpe["none"].translation_rmse == pytest.approx(0.9 * chord)
    numbers = report.numbers()
    assert numbers["scale"] == pytest.approx(10.0)
    assert numbers["coverage"] == 0.5
    assert numbers["path_length_m"] == pytest.approx(np.pi, rel=1e-3)  # a quarter of 4 pi
    assert numbers["drift_percent"] < 1e-9


def test_drift_is_error_per_path():
    report = trajectory_report(circle(stretch=1.1), circle())
    assert report.drift_percent == pytest.approx(100 * report.ate["sim3"].rmse / np.pi, rel=1e-3)
    assert report.drift_percent > 0.1


def test_the_path_is_counted_between_matched_poses_only():
    """A run over the middle third of the truth travelled a third of its way."""
    part = slice(N // 3, 2 * N // 3 + 1)
    middle = Trajectory(circle().time_ns[part], circle().T_wc[part])
    assert trajectory_report(middle, circle()).path_length_m == pytest.approx(np.pi * 20 / 59, rel=1e-3)


def test_a_run_too_short_for_the_rpe_still_has_an_ate(caplog):
    short = Trajectory(circle().time_ns[:10], circle().T_wc[:10])
    report = trajectory_report(short, circle())
    assert report.rpe == {}
    assert "no relative pose error" in caplog.text
    assert "RPE" not in table(report)


def test_the_table_names_every_alignment():
    text = table(trajectory_report(circle(), circle(), frames_seen=N))
    for words in ("by Sim(3)", "by SE(3)", "by none", "RPE over 1 s", "60 poses / 60 frames seen", "100.0%"):
        assert words in text


@pytest.fixture
def run(tmp_path, run_record) -> Path:
    """A finished run with two keyframes, and its truth beside it; depth 10 % off on half of the pixels."""
    folder = tmp_path / "run"
    (folder / "keyframes").mkdir(parents=True)
    write_tum(folder / "trajectory.txt", circle(scale=0.5))
    write_tum(folder / "trajectory_online.txt", circle(scale=0.5, stretch=1.2))
    write_tum(tmp_path / "groundtruth.txt", circle())
    write_record(RunDirectory(folder), run_record)
    (folder / "metrics.json").write_text(json.dumps({"frames_per_second": 31}))
    truth, depth, confidence = np.full((48, 64), 2.0), np.full((24, 32), 1.0), np.ones((24, 32))
    depth[:12] *= 1.1
    depth[12, 0], depth[13, 0], confidence[13, 0] = 9.0, 0.0, 0.0  # one blunder, one unknown
    entries = []
    (tmp_path / "depth").mkdir()
    for id, frame_id in enumerate((0, 30)):
        time_ns = int(circle().time_ns[frame_id])
        stem, eye = f"{id:06d}", tuple(map(tuple, np.eye(4).tolist()))
        names = (f"{stem}_color.jpg", f"{stem}_depth.png", f"{stem}_confidence.png")
        K = tuple(row[:3] for row in eye[:3])
        entries.append(dump_config(KeyframeRecord(id, frame_id, time_ns, *names, 1000.0, K, 32, 24, eye)))
        write_depth(folder / "keyframes" / f"{id:06d}_depth.png", depth, 1000.0)
        write_confidence(folder / "keyframes" / f"{id:06d}_confidence.png", confidence)
    (folder / "keyframes" / "keyframes.json").write_text(json.dumps(entries))
    write_depth(tmp_path / "depth" / "1.003000.png", truth)  # 3 ms from the first keyframe; none near the second
    return folder


def test_program_scores_a_run_directory(run, capsys):
    assert main([str(run), "--groundtruth", str(run.parent), "--depth", str(run.parent / "depth")]) == 0
    text = capsys.readouterr().out
    assert "60 poses / 80 frames seen" in text and "1 keyframes" in text
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["frames_per_second"] == 31  # the run's own numbers stay
    numbers = metrics["evaluation"]
    assert numbers["ate_m"]["sim3"]["rmse"] < 1e-8
    assert (numbers["scale"], numbers["coverage"]) == (pytest.approx(2.0), 0.75)
    depth = numbers["depth"]
    assert depth["pixels"] == 24 * 32 - 1
    assert depth["confident_share"] == pytest.approx(767 / 768)
    # the median is the scale of the 384 deeper pixels, 2 / 1.1; it leaves 382 at 1 / 1.1 and the blunder at 9 / 1.1
    assert depth["scale"] == pytest.approx(2 / 1.1)
    assert depth["abs_rel"] == pytest.approx((382 * (1 - 1 / 1.1) + (9 / 1.1 - 1)) / 767, rel=1e-6)
    assert (run / "evaluation.png").stat().st_size > 10_000


def test_program_takes_the_online_trajectory_and_another_folder(run, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    options = ["--groundtruth", str(run.parent / "groundtruth.txt"), "--online", "--no-plots", "--out", str(out)]
    assert main([str(run), *options]) == 0
    assert [path.name for path in out.iterdir()] == ["metrics.json"]
    assert json.loads((out / "metrics.json").read_text())["evaluation_online"]["ate_m"]["sim3"]["rmse"] > 0.01
    assert capsys.readouterr().out.startswith("online trajectory")


def test_program_takes_a_trajectory_file_and_writes_nothing(run, capsys):
    before = sorted(path.name for path in run.iterdir())
    assert main([str(run / "trajectory.txt"), "--groundtruth", str(run.parent)]) == 0
    assert "by Sim(3)" in capsys.readouterr().out
    assert sorted(path.name for path in run.iterdir()) == before


def _with_frames_seen(run: Path, count: int) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"frames_seen": count}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "trajectory.txt").unlink(), "no trajectory at"),
        (lambda run: (run.parent / "groundtruth.txt").write_text("0 1 2\n"), "expected 8 numbers"),
        (lambda run: write_tum(run.parent / "groundtruth.txt", Trajectory(np.arange(9), circle().T_wc[:9])), "0.000 s"),
        (lambda run: (run / "run.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "run.json").write_text("[]"), "must hold a dict"),
        (lambda run: (run / "run.json").write_text("{}"), "run.json is damaged: version has no default"),
        (lambda run: _with_frames_seen(run, 3), "60 poses but only 3 frames"),
        (
            lambda run: (run / "keyframes" / "keyframes.json").write_text("[{}]"),
            "entry 0: id has no default",
        ),
        (lambda run: (run / "keyframes" / "keyframes.json").write_text("[]"), "no keyframe"),
        (lambda run: (run.parent / "depth" / "x.png").write_bytes(b""), "not named by their time"),
        (lambda run: (run.parent / "depth" / "1.003000.png").unlink(), "no depth images"),
    ],
)
def test_program_ends_with_one_line_for_bad_input(run, capsys, change, message):
    change(run)
    code = main([str(run), "--groundtruth", str(run.parent), "--depth", str(run.parent / "depth"), "--no-plots"])
    error = capsys.readouterr().err
    assert code == 1
    assert message in error and error.count("\n") == 1 and error.startswith("v2d-eval: ")

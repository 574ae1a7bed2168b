"""What a run says and leaves behind, without a run."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import OutputError, UsageError
from slam.frames import (
    UNNUMBERED,
    Counts,
    Estimate,
    Frame,
    Image,
    Keyframe,
    Progress,
    Snapshot,
    Status,
    Trajectory,
    View,
)
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.inv_depth import InvDepth
from slam.io.run import Run
from slam.io.run_record import Outcome, SourceRecord, SystemRecord
from slam.io.trajectory import read_tum
from slam.mapping.fusion import FusionConfig
from slam.mapping.store import KeyframeStore
from slam.report import Report, scored, stage_table, status_line
from slam.timing import StageTime

SOURCE = SourceRecord("some/recording", "tum", "/data/some/recording", Camera(64, 48, 50.0, 50.0, 31.5, 23.5))
SYSTEM = SystemRecord("dis", "dis", "none", threads=False, live=False)
COUNTS = Counts(seen=12, tracked=7, lost=2, dropped=3, skipped=1)


class Terminal(io.StringIO):
    """A stream that is shown on a screen."""

    def isatty(self) -> bool:
        return True


def progress() -> Progress:
    return Progress(Snapshot((), None), Status.TRACKING, COUNTS)


def finish(report: Report, truth: Trajectory | None = None) -> str:
    times, outcome = [StageTime("track", 12, 10.0, 12.0, 0.12)], Outcome("complete")
    return report.finish(KeyframeStore(), COUNTS, times, SYSTEM, outcome, FusionConfig(), {"pixels": 1}, truth)


def estimate(time_ns: int, status: Status) -> Estimate:
    return Estimate(0, time_ns, status, 0, se3.identity(), 1.0, se3.identity())


def test_a_status_on_a_terminal_stays_on_its_line(tmp_path):
    stream = Terminal()
    report = Report(tmp_path / "run", SOURCE, 40, stream)
    report.show(progress())
    report.show(progress())  # too soon after the first
    finish(report)
    assert stream.getvalue().count("frame 12/40") == 1 and "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\033[K")  # what comes next starts on an empty line


def test_a_status_in_a_file_is_a_line(tmp_path):
    stream = io.StringIO()
    report = Report(tmp_path / "run", SOURCE, None, stream)
    report.show(progress())
    finish(report)
    assert stream.getvalue().startswith("frame 12  ") and stream.getvalue().count("\n") == 1
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()


def test_the_status_names_what_went_wrong():
    assert status_line(progress(), 24, 4.0) == (
        "frame 12/24  3.0 fps  TRACKING  keyframes 0  lost 2  dropped 3  skipped 1"
    )


def test_an_empty_run_is_written_whole(tmp_path):
    report = Report(tmp_path / "run", SOURCE, 12, None)
    summary = finish(report)
    assert "12 frames in" in summary and "7 tracked, 2 lost, 3 dropped, 1 skipped, 0 keyframes" in summary
    assert summary.endswith(f"results in {tmp_path / 'run'}") and "track" in summary
    record = Run(tmp_path / "run").record()
    assert (record.missing, record.outcome.end, record.source, record.system) == ({}, "complete", SOURCE, SYSTEM)
    assert {k: getattr(record, f"frames_{k}") for k in vars(COUNTS)} == vars(COUNTS)
    assert record.stages == (StageTime("track", 12, 10.0, 12.0, 0.12),)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        *("trajectory.txt", "trajectory_online.txt", "keyframes.txt", "config.yaml", "metrics.json", "run.json"),
        *("map.ply", "keyframes"),
    }


def test_the_record_tells_which_frames_were_taken(tmp_path):
    report = Report(tmp_path / "run", SOURCE, None, None)
    for time_ns in (50, 60, 90):
        frame = Frame(0, time_ns, np.zeros((4, 4, 3), np.uint8), SOURCE.camera)
        report.show(replace(progress(), frame=frame))
    finish(report)
    source = Run(tmp_path / "run").record().source
    assert (source.first_ns, source.last_ns) == (50, 90) and replace(source, first_ns=None, last_ns=None) == SOURCE


def test_only_poses_that_are_believed_go_online(tmp_path):
    report = Report(tmp_path / "run", SOURCE, None, None)
    states = (Status.TRACKING, Status.LOST, Status.TRACKING)
    report.write_online([estimate(n, state) for n, state in enumerate(states)])
    assert read_tum(tmp_path / "run/trajectory_online.txt").time_ns.tolist() == [0, 2]
    assert "scale: unknown (monocular)" in (tmp_path / "run/trajectory_online.txt").read_text()


def test_a_metric_map_says_so_everywhere(tmp_path):
    store, h = KeyframeStore(), torch.ones(8, 8)
    view = View(0, 0, Image(np.zeros((8, 8, 3), np.uint8)), torch.eye(3, dtype=torch.float64))
    store.add(Keyframe(UNNUMBERED, view, se3.identity(), InvDepth(h, h), InvDepth(h, h), metric=True))
    report = Report(tmp_path / "run", SOURCE, None, None)
    report.write_online([replace(estimate(0, Status.TRACKING), metric=True)])
    report.finish(store, COUNTS, [], SYSTEM, Outcome("complete"), FusionConfig(), {}, None)
    for name in ("trajectory.txt", "trajectory_online.txt", "keyframes.txt"):
        assert (tmp_path / "run" / name).read_text().count("# scale: metric (sensor depth)\n") == 1
    assert Run(tmp_path / "run").record().scale_source == "metric (sensor depth)"
    assert "keyframes 1  metric  lost 2" in status_line(Progress(store.snapshot(), Status.TRACKING, COUNTS), 24, 4.0)


def test_maps_that_nothing_joined_have_files_of_their_own(tmp_path):
    """The second has most frames: its trajectory is that of the run, the other's lies beside it."""
    store, h = KeyframeStore(), torch.ones(8, 8)
    for n in range(2):
        view = View(n, n, Image(np.zeros((8, 8, 3), np.uint8)), torch.eye(3, dtype=torch.float64))
        store.add(Keyframe(UNNUMBERED, view, se3.identity(), InvDepth(h, h), InvDepth(h, h), metric=n == 1))
    for n in range(4):
        store.record(replace(estimate(n, Status.TRACKING), frame_id=n, keyframe_id=min(n, 1)))
    report = Report(tmp_path / "run", SOURCE, None, None)
    summary = report.finish(store, COUNTS, [], SYSTEM, Outcome("complete"), FusionConfig(), {}, None)
    assert "2 maps that show no common place" in summary and "trajectory_2.txt 1" in summary
    run = Run(tmp_path / "run")
    first, second = run.record().maps
    assert (first.trajectory, first.frames, first.keyframes) == ("trajectory.txt", 3, 1)
    assert (second.trajectory, second.frames, second.listing) == ("trajectory_2.txt", 1, "keyframes/keyframes_2.json")
    assert [m.scale_source.split()[0] for m in (first, second)] == ["metric", "unknown"]
    assert len(run.trajectory()) == 3 and [k.id for k in run.keyframes()] == [1]
    for name in (second.trajectory, second.keyframe_trajectory, second.listing, second.cloud):
        assert (tmp_path / "run" / name).is_file()
    other = Run(tmp_path / "run", 2)
    assert len(other.trajectory()) == 1 and [k.id for k in other.keyframes()] == [0] and len(other.cloud()) == 0
    assert other.map_count == 2 and other.scale_source == second.scale_source != run.scale_source
    for number in (0, 3):
        with pytest.raises(UsageError, match=rf"--map {number}: .*run has maps 1 to 2"):
            Run(tmp_path / "run", number)


def test_a_directory_with_a_run_is_left_alone(tmp_path):
    finish(Report(tmp_path / "run", SOURCE, None, None))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"run holds a run already; choose another"):
        Report(tmp_path / "run", SOURCE, None, None)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("mine")
    finish(Report(tmp_path / "notes", SOURCE, None, None))
    assert (tmp_path / "notes/readme.txt").read_text() == "mine"


def test_a_run_killed_while_it_writes_says_what_is_not_there(tmp_path, monkeypatch):
    """The first `run.json` comes before the images and the map, and names them."""

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slam.report.write_keyframes", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(Report(tmp_path / "run", SOURCE, None, None))
    missing = Run(tmp_path / "run").record().missing
    assert {"keyframes", "map.ply"} <= set(missing) and "trajectory.txt" not in missing


def test_a_broken_off_online_trajectory_is_noted(tmp_path, file_size_limit):
    report = Report(tmp_path / "run", SOURCE, None, None)
    with file_size_limit((tmp_path / "run/trajectory_online.txt").stat().st_size):
        report.write_online([estimate(0, Status.TRACKING)])
    finish(report)
    (name, why), *others = report.directory.missing.items()
    assert name == "trajectory_online.txt" and "broken off" in why and "File too large" in why and not others
    assert Run(tmp_path / "run").record().missing == report.directory.missing
    assert report.directory.missing_words() == f"trajectory_online.txt not written ({why})"


def test_an_unwritable_place_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another with --out"):
        Report(tmp_path / "file" / "run", SOURCE, None, None)


def line(n: int, scale: float = 1.0, start_ns: int = 0) -> Trajectory:
    """A camera on a parabola: n poses, 0.1 s apart."""
    T_wc = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1).numpy()
    T_wc[:, 0, 3] = scale * 0.1 * np.arange(n)
    T_wc[:, 1, 3] = scale * 0.01 * np.arange(n) ** 2
    return Trajectory(start_ns + 10**8 * np.arange(n, dtype=np.int64), T_wc)


def test_the_score_is_free_of_scale_and_counts_coverage():
    words, numbers = scored(line(10, scale=0.3), line(10), 20)
    assert numbers["evaluation"]["ate_m"]["sim3"]["rmse"] < 1e-9 and numbers["evaluation"]["coverage"] == 0.5
    assert "ATE (Sim(3)-aligned) 0.0000 m" in words and "50.0 % of the frames have a pose" in words


def test_a_metric_score_is_given_in_its_own_metres_too():
    """A tenth too small: without a scale the line is off by up to a tenth of half its length."""
    words, numbers = scored(line(10, scale=0.9), line(10), 10, metric=True)
    own = numbers["evaluation"]["ate_m"]["se3"]["rmse"]
    assert 0.01 < own < 0.05 and f"ATE in its own metres (SE(3)-aligned) {own:.4f} m" in words
    assert "SE(3)-aligned" not in scored(line(10), line(10), 10)[0]


@pytest.mark.parametrize("estimated", [line(10, start_ns=10**12), line(0), line(1)])
def test_where_there_is_no_score_the_words_say_why(estimated, tmp_path):
    words, numbers = scored(estimated, line(10), 20)
    assert words.startswith("no score: ") and numbers == {}


def test_the_table_has_a_line_for_each_stage():
    table = stage_table([StageTime("track", 3, 1.5, 2.5, 0.006), StageTime("backend: stereo", 1, 80, 80, 0.08)])
    assert len(table.splitlines()) == 3 and table.splitlines()[1].split() == ["track", "3", "1.5", "2.5", "0.01"]

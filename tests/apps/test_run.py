"""v2d-slam as a user meets it: what a run leaves behind, how it ends, and what it says of mistakes."""

import argparse
import importlib
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from apps import evaluate
from apps.common import set_up_logging
from apps.run import main
from slam.backend.adjustment import Adjustment
from slam.backend.backend import Backend
from slam.config import SlamConfig, build_config
from slam.errors import SourceError
from slam.frames import Counts, Trajectory
from slam.io.images import read_color, read_confidence, read_depth
from slam.io.map_file import load_map
from slam.io.ply import read_ply
from slam.io.trajectory import read_tum
from slam.report import Report
from slam.sources.sequence import ImageSequence

ROOT = Path(__file__).resolve().parents[2]
CLASSICAL = ROOT / "configs" / "classical.yaml"
SMALL = ["--set", "pixels=19200"]  # 160x120
FILES = ("trajectory.txt", "keyframes.txt", "trajectory_online.txt", "config.yaml", "metrics.json", "run.json")


def track(recording: Path, out: Path, *options: str) -> int:
    """A short run, in order on one thread."""
    return main(["--sequence", str(recording), "--out", str(out), *SMALL, "--deterministic", *options])


def check_complete(out: Path, unreported: int = 0) -> tuple[Trajectory, dict]:
    """Every file is there and readable by our own readers; returns the trajectory and what `run.json` says.

    `unreported`: poses that the online trajectory may lack, of the frame in which the program died.
    """
    record = json.loads((out / "run.json").read_text())
    assert record["missing"] == {}
    build_config(SlamConfig, yaml.safe_load((out / "config.yaml").read_text()))
    metrics = json.loads((out / "metrics.json").read_text())
    trajectory, online = read_tum(out / "trajectory.txt"), read_tum(out / "trajectory_online.txt")
    assert len(trajectory) == metrics["poses"] == record["frames_tracked"] > 0
    assert len(trajectory) - unreported <= len(online) <= len(trajectory)
    assert len(read_tum(out / "keyframes.txt")) == record["keyframes"]
    entries = json.loads((out / "keyframes/keyframes.json").read_text())
    assert len(entries) == record["keyframes"]
    for entry in entries:
        shape = (entry["height"], entry["width"])
        assert read_color(out / "keyframes" / entry["color"]).shape == (*shape, 3)
        assert read_depth(out / "keyframes" / entry["depth"], entry["depth_scale"]).shape == shape
        assert read_confidence(out / "keyframes" / entry["confidence"]).shape == shape
    read_ply(out / "map.ply")
    assert not list(out.rglob("*.part"))
    return trajectory, record


@pytest.fixture(scope="session")
def finished(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the whole recording."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert track(recording, out) == 0
    return out


# accuracy, end to end


def test_a_run_is_accurate_and_complete(finished, rendered):
    trajectory, record = check_complete(finished)
    seen = len(rendered.frames)
    assert (record["frames_seen"], record["frames_lost"], record["frames_skipped"]) == (seen, 0, 0)
    assert record["outcome"]["end"] == "complete" and "monocular" in record["scale_source"]
    assert trajectory.time_ns.tolist() == rendered.truth.time_ns.tolist()  # every frame, its own stamp


def test_the_run_scored_by_the_other_program(finished, recording, tmp_path, capsys):
    """Flow good to 0.2 px at a focal length of 133 px and a depth of 2 to 3 m places a camera to about 4 mm.

    The poses at the far end of a keyframe's reach are a few times worse: 1.5 % of the path of 1.6 m is 24 mm. A scale
    that jumps by 5 % at a keyframe, or a keyframe 30 mm off, fails it. Depth over a baseline of a fifth of it, with
    disparities of some 20 px known to half a pixel: 6 % on the confident pixels.
    """
    options = ["--groundtruth", str(recording), "--depth", str(recording / "depth"), "--out", str(tmp_path)]
    assert evaluate.main([str(finished), *options, "--no-plots"]) == 0
    numbers = json.loads((tmp_path / "metrics.json").read_text())["evaluation"]
    assert numbers["coverage"] == 1.0
    assert numbers["drift_percent"] < 1.5
    assert numbers["depth"]["keyframes"] >= 3
    assert numbers["depth"]["abs_rel"] < 0.06 and numbers["depth"]["confident_share"] > 0.5
    assert "75 poses / 75 frames seen" in capsys.readouterr().out


# repeatability


def test_deterministic_runs_give_the_same_bytes(finished, recording, tmp_path, capsys):
    assert track(recording, tmp_path / "again", "--quiet") == 0
    for name in ("trajectory.txt", "trajectory_online.txt", "keyframes.txt", "map.ply"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes(), name
    assert capsys.readouterr().out == ""  # --quiet


def test_a_threaded_run_covers_and_fits_as_well(finished, recording, tmp_path):
    """The backend's results come at other moments, so poses differ: within 3 % of the path, and as many."""
    out = tmp_path / "threaded"
    assert main(["--sequence", str(recording), "--out", str(out), *SMALL]) == 0
    trajectory, record = check_complete(out)
    assert record["system"]["threads"] and len(trajectory) == 75
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["evaluation"]["coverage"] == 1.0 and metrics["evaluation"]["ate_m"]["sim3"]["rmse"] < 0.03 * 1.62


# endings: whatever ends a run, what there is gets written


def test_sigterm_ends_a_run_in_order(recording, tmp_path, monkeypatch, capsys):
    """The signal comes after the 30th frame: that one is the last."""
    write_online = Report.write_online

    def interrupted(report: Report, estimates: list) -> None:
        write_online(report, estimates)
        if any(estimate.frame_id == 29 for estimate in estimates):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Report, "write_online", interrupted)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert track(recording, tmp_path / "run") == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    trajectory, record = check_complete(tmp_path / "run")
    assert len(trajectory) == record["frames_seen"] == 30 and record["outcome"]["end"] == "stopped by the user"
    assert "30 frames in" in capsys.readouterr().out


def test_a_second_ctrl_c_writes_what_there_is(recording, tmp_path, monkeypatch, capsys):
    """After the 30th frame the user does not even wait for the map's adjustment."""
    write_online = Report.write_online

    def interrupted(report: Report, estimates: list) -> None:
        write_online(report, estimates)
        if any(estimate.frame_id == 29 for estimate in estimates):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Report, "write_online", interrupted)
    monkeypatch.setattr(Backend, "adjust_all", lambda *_: pytest.fail("the map is adjusted"))
    assert track(recording, tmp_path / "run") == 130
    trajectory, record = check_complete(tmp_path / "run")
    assert len(trajectory) == record["frames_seen"] == 30
    assert record["outcome"]["end"] == "stopped by the user, and again: the map was not adjusted at its end"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"v2d-slam: interrupted by SIGINT; what there was is in {tmp_path / 'run'}"


@pytest.fixture
def started(recording, tmp_path):
    """A threaded run in a process of its own that has written some poses; and its directory."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "apps.run", "--sequence", str(recording), "--out", str(out), *SMALL]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not poses_online(out):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    yield process, out
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def poses_online(out: Path) -> int:
    """Whole lines of poses written so far."""
    path = out / "trajectory_online.txt"
    return sum(not line.startswith("#") for line in path.read_text().split("\n")[:-1]) if path.is_file() else 0


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_ends_a_run_in_order(started):
    process, out = started
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr and f"results in {out}" in stdout
    trajectory, record = check_complete(out)
    assert record["outcome"]["end"] == "stopped by the user" and len(trajectory) == record["frames_seen"] < 75


def test_a_killed_run_leaves_the_poses_so_far(started):
    process, out = started
    before = poses_online(out)
    process.kill()
    process.wait()
    assert before <= len(read_tum(out / "trajectory_online.txt", torn_end=True)) < 75
    assert not (out / "trajectory.txt").exists()


def test_a_source_that_dies_leaves_a_complete_run(recording, tmp_path, monkeypatch, capsys, caplog):
    frames_of, maps = ImageSequence.__iter__, tmp_path / "maps"

    def dying(self):
        for frame in frames_of(self):
            if frame.id == 40:
                if maps.is_dir():
                    maps.rmdir()
                maps.write_text("")  # no longer a place for a map
                raise SourceError("the camera was unplugged")
            yield frame

    monkeypatch.setattr(ImageSequence, "__iter__", dying)
    for threads, out in ((["--deterministic"], tmp_path / "inline"), ([], tmp_path / "threaded")):
        maps.unlink(missing_ok=True)
        named = ["--save-map", str(maps / "room.map")]
        assert main(["--sequence", str(recording), "--out", str(out), *SMALL, *threads, *named]) == 1
        output = capsys.readouterr()
        assert output.err.splitlines()[-1] == "v2d-slam: the camera was unplugged"
        assert "cannot write" in caplog.text and "room.map" in caplog.text
        assert "40 frames in" in output.out
        trajectory, record = check_complete(out)
        assert len(trajectory) == 40 and record["outcome"]["end"] == "the camera was unplugged"


def test_a_saved_map_holds_all_keyframes_also_those_that_went_to_the_disk(recording, tmp_path):
    small = ["--set", "backend.window=3", "--set", "backend.held=1", "--set", "keyframing.flow_px=3"]
    options = ["--use-depth", "on", "--max-keyframes", "9", "--save-map", str(tmp_path / "room.map"), *small]
    assert track(recording, tmp_path / "run", *options) == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    keyframes = load_map(tmp_path / "room.map")
    assert record["keyframes_on_disk"] > 2 and [k.id for k in keyframes] == list(range(record["keyframes"]))
    assert all(k.keypoints is not None and len(k.keypoints.uv) > 10 for k in keyframes)  # it is found by them later


@pytest.mark.parametrize("threads", [True, False])
def test_a_backend_that_dies_is_reported_and_leaves_its_files(recording, tmp_path, monkeypatch, threads):
    adjust_window, jobs = Adjustment.adjust_window, []

    def dying(self, *given):
        jobs.append(given)
        if len(jobs) > 2:
            raise ZeroDivisionError("a mistake in the program")
        return adjust_window(self, *given)

    monkeypatch.setattr(Adjustment, "adjust_window", dying)
    options = ["--set", "keyframing.flow_px=6", *([] if threads else ["--deterministic"])]
    with pytest.raises(ZeroDivisionError, match="a mistake in the program"):
        main(["--sequence", str(recording), "--out", str(tmp_path / "run"), *SMALL, *options])
    _, record = check_complete(tmp_path / "run", unreported=1)
    assert len(jobs) == 3 and record["outcome"]["end"] == "crashed" and record["keyframes"] >= 3


def test_a_full_disk_takes_what_fits(recording, tmp_path, monkeypatch, capsys, caplog):
    """From the moment the run ends, images and the map are refused, and so is the second `run.json`."""
    from slam.io import files

    written: list[str] = []
    fdopen = os.fdopen

    def filling(handle: int, *options, **more):
        if len(written) >= 5:  # two trajectories, run.json, config.yaml, metrics.json
            os.close(handle)
            raise OSError(28, "No space left on device")
        written.append("")
        return fdopen(handle, *options, **more)

    monkeypatch.setattr(files.os, "fdopen", filling)
    out = tmp_path / "run"
    assert track(recording, out) == 1
    output = capsys.readouterr()
    last = output.err.splitlines()[-1]
    assert last.startswith(f"v2d-slam: results in {out} are incomplete: keyframes/000000_color.jpg, ")
    assert "No space left on device" in last and "more not written" in last
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 3  # not one for each of hundreds of files
    assert len(read_tum(out / "trajectory.txt")) == 75
    assert json.loads((out / "metrics.json").read_text())["poses"] == 75
    assert {"keyframes", "map.ply"} <= set(json.loads((out / "run.json").read_text())["missing"])
    assert not list(out.rglob("*.part"))


def test_a_directory_that_is_removed_meanwhile_is_told(recording, tmp_path, monkeypatch, capsys):
    """Everything else is written anew; what was written before has gone, which is a failure."""
    write_online = Report.write_online

    def removing(report: Report, estimates: list) -> None:
        write_online(report, estimates)
        if any(estimate.frame_id == 25 for estimate in estimates):
            shutil.rmtree(report.directory.path)

    monkeypatch.setattr(Report, "write_online", removing)
    out = tmp_path / "run"
    assert track(recording, out, "--max-frames", "30") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        f"v2d-slam: results in {out} are incomplete: trajectory_online.txt not written (broken off: "
    )
    assert "was removed, or moved, while it was written" in last
    assert list(json.loads((out / "run.json").read_text())["missing"]) == ["trajectory_online.txt"]
    assert len(read_tum(out / "trajectory.txt")) == 30 and len(read_ply(out / "map.ply")) > 100


def test_a_run_in_which_no_frame_got_a_pose_has_failed(recording, tmp_path, monkeypatch, capsys):
    """A map began, and whatever came was lost in it."""
    monkeypatch.setattr(Counts, "count", lambda counts, status: setattr(counts, "lost", counts.lost + 1))
    assert track(recording, tmp_path / "run", "--max-frames", "20") == 1
    assert "got a pose in the map that its first frame began" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads((tmp_path / "run/run.json").read_text())["frames_tracked"] == 0


# recordings that are hard to use


def copied(recording: Path, path: Path, frames: int) -> Path:
    """The first frames of the recording as a folder of its own, without depth and truth."""
    lines = (recording / "rgb.txt").read_text().splitlines()[:frames]
    (path / "rgb").mkdir(parents=True)
    for line in lines:
        shutil.copy(recording / line.split()[1], path / "rgb")
    (path / "rgb.txt").write_text("\n".join(lines) + "\n")
    shutil.copy(recording / "calibration.yaml", path)
    return path


def test_damaged_images_are_skipped_and_counted(recording, tmp_path, capsys, caplog):
    """One in the middle, and the last one, after which no good frame comes."""
    path = copied(recording, tmp_path / "damaged", 40)
    images = sorted((path / "rgb").iterdir())
    images[20].write_bytes(images[20].read_bytes()[:1000])
    images[39].write_bytes(b"")
    for threads, out in ((["--deterministic"], tmp_path / "inline"), ([], tmp_path / "threaded")):
        assert main(["--sequence", str(path), "--out", str(out), *SMALL, *threads]) == 0
        assert caplog.text.count("skipped a frame") == 2 and images[20].name in caplog.text
        assert "0 dropped, 2 skipped" in capsys.readouterr().out
        caplog.clear()
        trajectory, record = check_complete(out)
        assert (record["frames_skipped"], record["frames_seen"], len(trajectory)) == (2, 38, 38)


@pytest.mark.parametrize("frames", [1, 12])
def test_without_parallax_there_is_no_map_and_one_line(recording, tmp_path, capsys, frames):
    """The same image again and again, or only once: the files are there all the same, without a pose."""
    (tmp_path / "still").mkdir()
    first = sorted((recording / "rgb").iterdir())[0]
    for n in range(frames):
        shutil.copy(first, tmp_path / "still" / f"{n}.png")
    out = tmp_path / "run"
    assert main(["--images", str(tmp_path / "still"), "--hfov", "62", "--out", str(out), *SMALL, "--quiet"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    reason = "all images are the same.*" if frames > 1 else "1 frame is too few.*"
    assert re.fullmatch(rf"v2d-slam: no map of the {frames} frames? of .*still: {reason}\n", output.err)
    record = json.loads((out / "run.json").read_text())
    assert (record["frames_seen"], record["keyframes"], record["missing"]) == (frames, 0, {})
    for name in FILES:
        assert (out / name).is_file(), name
    assert json.loads((out / "keyframes/keyframes.json").read_text()) == []
    assert len(read_ply(out / "map.ply")) == 0


# mistakes of the user: one line, the right exit code, and no directory left behind


def damaged(recording: Path, path: Path) -> Path:
    """A recording of ten frames to spoil."""
    return copied(recording, path / "spoilt", 10)


def spoilt_images(path: Path) -> None:
    for image in (path / "rgb").iterdir():
        image.write_bytes(b"not an image")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "calibration.yaml").write_text("width: [\n"), "calibration.yaml"),
        (lambda path: (path / "calibration.yaml").write_bytes(b"\xff\xfe\x81"), "calibration.yaml"),
        (
            lambda path: (path / "calibration.yaml").write_text(
                "width: 640\nheight: 480\ncalibration: [500, 500, 320, 240]\n"
            ),
            "640x480",
        ),
        (spoilt_images, "none of the 10 images"),
        (lambda path: (path / "rgb.txt").write_text("# nothing\n"), "lists no images"),
        (lambda path: (path / "rgb.txt").write_text("1.0\n"), "line 1: expected 'timestamp filename'"),
    ],
)
def test_a_spoilt_recording_is_named(recording, tmp_path, capsys, change, message):
    path = damaged(recording, tmp_path)
    change(path)
    assert failure(["--sequence", str(path), "--out", str(tmp_path / "run")], 1, capsys).count(message) == 1
    assert not (tmp_path / "run").exists()


def failure(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What the program says as it ends with `code`: one line on standard error, nothing on standard output."""
    assert main(arguments) == code
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("v2d-slam: ") and output.err.count("\n") == 1, output.err
    return output.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--sequence", "./nowhere/at/all"], 1, "no file or folder at ./nowhere/at/all"),
        (["--sequence", "tum/fr9_sofa"], 1, "known: tum/fr1_360, "),
        (["--sequence", "tum/fr1_dsk"], 1, "did you mean tum/fr1_desk?"),
        (["--sequence", "whatever"], 1, "7scenes/chess"),
        (["--sequence", "tum/fr1_desk", "--data-root", "{tmp}"], 1, "add --download to fetch"),
        (["--images", "{tmp}/empty"], 1, "it is empty"),
        (["--images", "{tmp}/empty/none"], 1, "no folder at"),
        (["--sequence", "{tmp}/empty"], 1, "it is empty"),
        (["--images", "{tmp}/text"], 1, "it holds notes.txt"),
        (["--video", "{tmp}/text/notes.txt"], 1, "notes.txt"),
        (["--video", "{tmp}/none.mp4"], 1, "none.mp4"),
        (["--sequence", "{tmp}/text/notes.txt"], 1, "notes.txt"),
        (["--sequence", "{rec}", "--calib", "{tmp}/none.yaml"], 1, "none.yaml"),
        (["--sequence", "{rec}", "--calib", "{tmp}/text/notes.txt"], 1, "notes.txt"),
        (["--sequence", "{rec}", "--calib", "{rec}/calibration.yaml", "--hfov", "60"], 2, "exclude each other"),
        (["--sequence", "{rec}", "--hfov", "500"], 2, "--hfov must be"),
        (["--sequence", "{rec}", "--fps", "30"], 2, "has its own time stamps"),
        (["--sequence", "{rec}", "--stride", "0"], 2, "--stride"),
        (["--sequence", "{rec}", "--start", "75"], 1, "past the end"),
        (["--sequence", "{rec}", "--set", "matcher.hubber_px=1"], 2, "unknown setting matcher.hubber_px; did you mean"),
        (
            ["--sequence", "{rec}", "--set", "correspondence.dis.updates=many"],
            2,
            "correspondence.dis.updates must be a whole number",
        ),
        (
            ["--sequence", "{rec}", "--set", "correspondence.dis.updates=0"],
            2,
            "correspondence.dis: updates must be from 1 to 100, got 0",
        ),
        (["--sequence", "{rec}", "--set", "matcher.min_weight=nan"], 2, "matcher: min_weight must be"),
        (["--sequence", "{rec}", "--set", "backend.held=7"], 2, "backend: held must be from 1 to 6, got 7"),
        (["--sequence", "{rec}", "--set", "initialiser.views=0"], 2, "initialiser: views must be from 2 to 1000"),
        (
            ["--sequence", "{rec}", "--set", "correspondence.tracking=magic"],
            2,
            "correspondence.tracking must be one of learned",
        ),
        (["--sequence", "{rec}", "--set", "pixels"], 2, "section.field=value"),
        (["--sequence", "{rec}", "--device", "toaster"], 2, "--device toaster is not known; it is auto, cpu, cuda"),
        (["--sequence", "{rec}", "--device", "cuda:77"], 2, "--device cuda:77 cannot be used here"),
        (["--sequence", "{rec}", "--config", "{tmp}/bad.yaml"], 2, "unknown setting correspondence.dis.patches"),
        (["--sequence", "{rec}", "--config", "{tmp}/none.yaml"], 2, "no configuration at"),
        (["--sequence", "{rec}", "--config", "{tmp}/text/notes.txt"], 2, "must be a mapping"),
        (
            ["--sequence", "{rec}", "--config", "{classical}", "--weights", "{tmp}/foreign.safetensors"],
            2,
            "is not used",
        ),
        (["--sequence", "{rec}", "--weights", "{tmp}/none.safetensors"], 1, "none"),
        (["--sequence", "{rec}", "--weights", "{tmp}/text/notes.txt"], 1, "notes.txt"),
        (
            ["--sequence", "{rec}", "--weights", "{tmp}/foreign.safetensors"],
            1,
            "foreign",
        ),
        (["--sequence", "{rec}", "--set", "profile=huge"], 1, "huge"),
        (["--sequence", "{rec}", "--out", "{tmp}/text/notes.txt/run"], 1, "choose another with --out"),
        (["--sequence", "{rec}", "--out", "{tmp}/text/notes.txt"], 1, "choose another with --out"),
        (["--sequence", "{rec}", "--out", "{run}"], 2, "holds a run already"),
        (["--sequence", "{rec}", "--save-map", "{tmp}/text/notes.txt/room.map"], 1, "cannot write"),
        (["--sequence", "{rec}", "--save-map", "{tmp}/empty"], 1, "it is a folder"),
        (["--sequence", "{rec}", "--screenshot", "{tmp}/text/notes.txt/map.png"], 1, "cannot write"),
        (["--demo", "--calib", "{rec}/calibration.yaml"], 2, "not for --demo"),
        (["--demo", "--max-frames", "0"], 2, "demo.frames must be positive"),
        (["--demo", "--download"], 2, "--download is for --sequence"),
        (["--images", "{rec}/rgb", "--data-root", "{tmp}"], 2, "is for --sequence"),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(recording, finished, tmp_path, capsys, arguments, code, message):
    from safetensors.numpy import save_file

    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/notes.txt").write_text("no camera, no video, no weights\n")
    (tmp_path / "bad.yaml").write_text("correspondence:\n  dis:\n    patches: 3\n")
    save_file({"layer.weight": np.zeros(3, np.float32)}, tmp_path / "foreign.safetensors")
    places = {"{tmp}": tmp_path, "{rec}": recording, "{run}": finished, "{classical}": CLASSICAL}
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    assert message in failure([*arguments, *out, *SMALL], code, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [[], ["--demo", "--images", "x"], ["--demo", "--quiet", "--verbose"], ["--fsp"]])
def test_a_command_line_without_sense_is_refused_with_usage(capsys, arguments):
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2 and "usage: v2d-slam" in capsys.readouterr().err


def test_a_spoilt_truth_does_not_stop_a_run(recording, tmp_path, capsys, caplog):
    path = copied(recording, tmp_path / "spoilt", 25)
    (path / "groundtruth.txt").write_text((recording / "groundtruth.txt").read_text()[:-30])
    assert track(path, tmp_path / "run", "--verbose") == 0
    assert "expected 8 numbers" in caplog.text and "ATE" not in capsys.readouterr().out
    assert any(record.levelname == "DEBUG" for record in caplog.records)  # --verbose
    assert "evaluation" not in json.loads((tmp_path / "run/metrics.json").read_text())


def test_status_lines_elsewhere_than_on_a_terminal_have_no_control_codes(finished, recording, tmp_path, capsys):
    assert track(recording, tmp_path / "run", "--max-frames", "6") == 1
    error = capsys.readouterr().err
    assert "frame 1/6" in error and "\r" not in error and "\033" not in error


def test_log_lines_on_a_terminal_clear_the_status_line(monkeypatch):
    """A terminal as standard error, the root logger as a program finds it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root, terminal = logging.getLogger(), Terminal()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up_logging(argparse.Namespace(quiet=False, verbose=False))
    terminal.write("frame 1/6")
    logging.getLogger("slam.test").warning("lost http://me:word@camera/?token=abc")
    assert terminal.getvalue() == "frame 1/6\r\033[KWARNING: lost http://***@camera/?token=***\n"


def test_the_demo_runs_and_scores_itself(tmp_path, capsys):
    assert main(["--demo", "--max-frames", "12", "--out", str(tmp_path / "run"), *SMALL, "--deterministic"]) in (0, 1)
    assert "12 frames in" in capsys.readouterr().out


def test_every_program_says_what_it_does(monkeypatch, capsys):
    """Those that the package installs; their help is more than their options."""
    scripts = re.search(r"\[project\.scripts\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.S)[1]
    programs = re.findall(r'^([\w-]+) = "([\w.]+):(\w+)"$', scripts, re.M)
    assert len(programs) >= 3
    for name, module, function in programs:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as ending:
            getattr(importlib.import_module(module), function)()
        text = capsys.readouterr().out
        assert ending.value.code == 0 and text.startswith(f"usage: {name}") and "--help" in text

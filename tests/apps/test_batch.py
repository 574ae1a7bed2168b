"""v2d-batch: recordings through the real programs, and what is refused at once."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from apps.batch import main
from slam.io.run import Run
from slam.processes import own_program

SMALL = ["--deterministic", "--set", "pixels=19200"]


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open() as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture
def folder(short_recording, tmp_path) -> Path:
    """Two recordings, one of them damaged."""
    path = tmp_path / "recordings"
    shutil.copytree(short_recording, path / "good", symlinks=True)
    shutil.copytree(short_recording, path / "damaged", symlinks=True)
    (path / "damaged" / "rgb.txt").write_text("no numbers here\n")
    return path


def test_good_recordings_are_run_once_and_damaged_ones_end_no_others(folder, tmp_path, capsys):
    """Then what comes after is done to the runs that there are, and a second start has nothing left to do."""
    out, options = tmp_path / "out", ["--jobs", "2", "--retries", "0", "--out", str(tmp_path / "out")]
    assert main([str(folder), *options, "--", *SMALL]) == 1
    said = capsys.readouterr().out
    rows = table(out)
    assert (rows["good"]["end"], rows["good"]["frames"], rows["good"]["coverage"]) == ("complete", "40", "1.000")
    assert 0 < float(rows["good"]["ate_m"]) < 0.02 and float(rows["good"]["fps"]) > 0
    assert rows["damaged"]["end"] == "failed: track" and "rgb.txt" in rows["damaged"]["error"]
    assert (out / "summary.md").read_text() == said and "| good | 40 |" in said
    assert Run(out / "good").record().system.threads is False
    before = (out / "good" / "run.json").stat().st_mtime_ns
    assert main([str(folder), *options, "--then", "export:tum", "--quiet", "--", *SMALL]) == 1
    assert capsys.readouterr().out == ""
    assert (out / "good" / "export" / "tum" / "trajectory.txt").is_file()
    assert (out / "good" / "run.json").stat().st_mtime_ns == before
    assert {name: row["starts"] for name, row in table(out).items()} == {"good": "2", "damaged": "1"}
    assert main([str(folder), *options, "--", "--deterministic"]) == 2
    assert "was begun with --deterministic --set pixels=19200 for v2d-slam" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_ends_the_runs_in_order_and_tells_what_is_done(folder, tmp_path):
    out = tmp_path / "out"
    command = own_program("apps.batch", folder, "--out", out, "--jobs", "1", "--", "--set", "pixels=76800")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not any((out / "batch" / "attempts").rglob("trajectory_online.txt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in errors
    assert re.search(r"\d of 2 are not finished: the same command goes on", errors)
    assert "not finished" in said and table(out)["good"]["end"] == "not finished"
    assert Run(out / "good").record().outcome.end == "stopped by the user"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "0"], "v2d-batch: --memory must be at least 0.1, got 0"),
        (["--timeout", "nan"], "v2d-batch: --timeout must be at least 0.001, got nan"),
        (["--retries", "-1"], "v2d-batch: --retries must be at least 0, got -1"),
        (["--gpus", "1"], "v2d-batch: --gpus is for --ray"),
        (["--then", "refine print"], "v2d-batch: --then takes refine and export:TARGET, got 'print'"),
        (["--then", "export:meshes"], "v2d-batch: unknown target 'meshes'"),
        (["--", "--out", "x"], "v2d-batch: --out is not for the runs of a batch"),
        (["--", "--set", "backend.windw=3"], "v2d-batch: unknown setting backend.windw"),
        (["--", "--video", "x.mp4"], "argument --video: not allowed with argument --sequence"),
        (["--", "--fsp", "3"], "unrecognized arguments: --fsp 3"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_run(folder, tmp_path, capsys, options, message):
    try:
        code = main([str(folder), "--out", str(tmp_path / "out"), *options])
    except SystemExit as end:  # of the parser
        code = end.code
    assert code == 2 and message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_ray_one_line_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([str(folder), "--out", str(tmp_path / "out"), "--ray"]) == 2
    assert re.fullmatch(
        r"v2d-batch: --ray needs the package ray \(.*\): pip install 'v2d-slam\[ray\]'\n", capsys.readouterr().err
    )


def test_two_do_not_work_in_one_folder(folder, tmp_path, capsys):
    (tmp_path / "out" / "batch").mkdir(parents=True)
    with FileLock(tmp_path / "out" / "batch" / "lock"):
        assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
    assert f"another v2d-batch is working in {tmp_path / 'out'}" in capsys.readouterr().err

"""Run directories are unique, `latest` follows, and one failing file does not lose the others."""

import errno
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from slam.errors import OutputError
from slam.io.run_directory import RunDirectory, latest_run

NOW = datetime(2026, 3, 4, 5, 6, 7)


def test_names_are_times_and_unique(tmp_path):
    runs = [RunDirectory.create(tmp_path / "results", NOW) for _ in range(3)]
    assert [run.path.name for run in runs] == ["2026-03-04_05-06-07", "2026-03-04_05-06-07_2", "2026-03-04_05-06-07_3"]
    assert latest_run(tmp_path / "results") == runs[-1].path.resolve()


def test_text_pointer_where_links_fail(tmp_path, monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = RunDirectory.create(tmp_path, NOW)
    assert (tmp_path / "latest").read_text() == f"{run.path.name}\n"
    second = RunDirectory.create(tmp_path, NOW)
    assert latest_run(tmp_path) == second.path.resolve()


def test_no_latest(tmp_path):
    with pytest.raises(OutputError, match="points to no run"):
        latest_run(tmp_path)


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (RunDirectory.create, RunDirectory):
        with pytest.raises(OutputError, match=r"cannot write results into .*file"):
            make(tmp_path / "file")
    with pytest.raises(OutputError, match=r"cannot write results into .*below"):
        RunDirectory.create(tmp_path / "file" / "below")


def test_json_and_yaml(tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert run.write_json("m/metrics.json", {"ate": np.float32(0.5), "n": np.int64(3), "bad": [float("nan"), 1.0]})
    assert json.loads((tmp_path / "run/m/metrics.json").read_text()) == {"ate": 0.5, "n": 3, "bad": [None, 1.0]}
    assert run.write_yaml("config.yaml", {"b": 1, "a": "é"})
    assert (tmp_path / "run/config.yaml").read_text(encoding="utf-8") == "b: 1\na: é\n"
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text(encoding="utf-8")) == {"b": 1, "a": "é"}
    assert run.missing == {}


def test_a_full_disk_is_noted_and_the_rest_written(tmp_path, caplog):
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = RunDirectory(tmp_path / "run")
    assert not run.write("map.ply", full)
    assert run.write_text("notes.txt", "x")
    assert run.missing == {"map.ply": "No space left on device; free some space"}
    assert "map.ply is missing: No space left on device" in caplog.text
    assert run.write("map.ply", lambda path: path.write_text("now") and None)
    assert run.missing == {}


def test_a_real_refusal_in_the_middle_of_a_file(tmp_path):
    """The system stops a process at 4096 bytes a file: the cloud is missing, whole, and the small files are there."""
    pytest.importorskip("resource", reason="this system has no file size limits")
    program = (
        "import resource, sys; import numpy as np; from pathlib import Path\n"
        "from slam.io.ply import PointCloud, write_ply\n"
        "from slam.io.run_directory import RunDirectory\n"
        "run = RunDirectory(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "run.write('map.ply', lambda path: write_ply(path, PointCloud(np.zeros((10000, 3)))))\n"
        "run.write_json('run.json', {'missing': run.missing})\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
    assert "File too large" in json.loads((tmp_path / "run/run.json").read_text())["missing"]["map.ply"]


def test_programming_errors_are_not_swallowed(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        run.write("a", lambda path: 1 // 0 and None)

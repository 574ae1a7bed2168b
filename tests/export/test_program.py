"""v2d-export: nothing is overwritten or left half, and mistakes end in one line and the right exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slam.mapping.fusion
from apps.common import interrupted_by_signals
from apps.export import main
from slam.export.exporting import TARGETS
from slam.io.images import read_color


def one_line(capsys) -> str:
    output = capsys.readouterr()
    assert output.err.startswith("v2d-export: ") and output.err.count("\n") == 1, output.err
    return output.err


def test_list_names_every_target(capsys):
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TARGETS)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["none", "--to", "ply"], 1, "no run directory at none"),
        (["run"], 2, "name what to export with --to: mesh, ply"),
        (["run", "--to", "gltf"], 2, "unknown target 'gltf'; known: mesh, ply"),
        (["--to", "ply", "run"], 2, "unknown target 'run' (the run comes before --to)"),
        (["run", "--to", "mesh", "--format", "stl"], 2, "--format is one of ply, glb, obj, got stl"),
        (["run", "--to", "ply", "--voxel", "0"], 2, "--voxel is the side of a voxel"),
        (["run", "--to", "ply", "--voxel", "nan"], 2, "--voxel is the side of a voxel"),
        (["run", "--to", "ply", "--voxel", "1e-9"], 2, "voxels of 1e-09 are too small for a map of this extent"),
        (["run", "--to", "mesh", "--voxel", "1e-9"], 2, "voxels of 1e-09 are too small for a map of this extent"),
        (["run", "--to", "mesh", "--voxel", "1e-4"], 2, "too small for the memory"),
        (
            ["run", "--to", "colmap", "--max-size", "3"],
            2,
            "--max-size is the longer side in pixels, at least 16",
        ),
        (["run", "--to", "ply", "--min-confidence", "2"], 2, "--min-confidence must be from 0 to 1, got 2"),
        (["run", "--to", "depth", "--depth-scale", "inf"], 2, "--depth-scale is the value of one map unit"),
        (["run", "--to", "ply", "--out", "run/run.json"], 2, "is no folder"),
        (["run", "--to", "ply", "--out", "run"], 2, "that v2d-export has not written"),
        (["run", "--to", "ply", "--out", "run", "--overwrite"], 2, "that v2d-export has not written"),
        (["run", "--to", "ply", "--out", "run/run.json/x"], 1, "cannot write"),
        (["run", "--to", "ply", "--min-confidence", "1"], 1, "is empty: no keyframe has depth of confidence 1 or more"),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(small_run, monkeypatch, capsys, options, code, message):
    run = small_run()
    before = sorted(run.rglob("*"))
    monkeypatch.chdir(run.parent)
    assert main([*options, "--quiet"]) == code
    assert message in one_line(capsys)
    assert sorted(path for path in run.rglob("*") if path.name != "export") == before


def test_nothing_is_overwritten_unless_asked(small_run, capsys):
    run = small_run()
    assert main([str(run), "--to", "tum", "--quiet"]) == 0
    file = run / "export/tum/trajectory.txt"
    (run / "export/tum/mine.txt").write_text("")
    before = file.stat().st_mtime_ns
    assert main([str(run), "--to", "euroc", "tum", "--quiet"]) == 2
    assert "holds an earlier export; give --overwrite" in one_line(capsys)
    assert file.stat().st_mtime_ns == before and not (run / "export/euroc").exists()
    assert main([str(run), "--to", "euroc,tum", "--overwrite", "--quiet"]) == 0
    assert (run / "export/euroc/data.csv").is_file() and not (run / "export/tum/mine.txt").exists()
    assert json.loads((run / "export/tum/export.json").read_text())["target"] == "tum"


def test_several_targets_share_a_folder(small_run, tmp_path):
    assert main([str(small_run()), "--to", "tum", "euroc", "--out", str(tmp_path / "all"), "--quiet"]) == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"tum", "euroc"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(("targets", "words"), [(["ply"], "nothing was written"), (["tum", "ply"], "written: tum")])
def test_an_interrupted_export_leaves_what_is_complete(small_run, monkeypatch, capsys, name, targets, words):
    run, number = small_run(), getattr(signal, name)
    views = slam.mapping.fusion.agreed_views

    def interrupted(*arguments):
        for n, view in enumerate(views(*arguments)):
            if n == 2:
                os.kill(os.getpid(), number)
            yield view

    monkeypatch.setattr(slam.mapping.fusion, "agreed_views", interrupted)
    handler = signal.getsignal(number)
    assert main([str(run), "--to", *targets, "--quiet"]) == 128 + number
    assert one_line(capsys) == f"v2d-export: interrupted by {name}; {words}\n"
    assert [path.name for path in (run / "export").iterdir()] == targets[:-1]
    assert signal.getsignal(number) == handler


def test_a_signal_that_is_ignored_stays_so(small_run):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interruption_in_the_last_moment_leaves_the_earlier_export(small_run, monkeypatch):
    run = small_run()
    assert main([str(run), "--to", "tum", "--quiet"]) == 0
    (run / "export/tum/mine.txt").write_text("")
    rename = Path.rename

    def interrupted(path, target):
        if Path(target).name == "tum" and path.suffix == ".part":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    assert main([str(run), "--to", "tum", "--overwrite", "--quiet"]) == 130
    assert (run / "export/tum/mine.txt").is_file() and [path.name for path in (run / "export").iterdir()] == ["tum"]


FILLING = """
import sys, time
from pathlib import Path
from slam.export.folder import filled
with filled(Path(sys.argv[1]), "tum", Path("run"), [], False) as beside:
    (beside / "half").write_text("")
    print(beside, flush=True)
    time.sleep(60)
"""


def test_what_killed_exports_left_is_removed_and_what_lives_is_not(small_run, tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="no locks on folders")
    assert fcntl
    folder, others = tmp_path / "export/tum", [tmp_path / "export" / name for name in (".tumor.12345678.part", ".tum")]
    fillers = [subprocess.Popen([sys.executable, "-c", FILLING, folder], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        killed, living = (Path(filler.stdout.readline().decode().strip()) for filler in fillers)
        fillers[0].kill()
        fillers[0].wait(10)
        for other in others:  # of another folder, of the user
            other.mkdir()
        assert (killed / "half").exists() and (living / "half").exists()
        assert main([str(small_run()), "--to", "tum", "--out", str(folder), "--quiet"]) == 0
        assert not killed.exists() and (living / "half").exists() and all(other.exists() for other in others)
        assert (folder / "trajectory.txt").is_file()
    finally:
        for filler in fillers:
            filler.kill()
            filler.communicate()


def test_a_full_disk_leaves_the_earlier_export(small_run, capsys, file_size_limit):
    run = small_run()
    assert main([str(run), "--to", "ply", "--quiet"]) == 0
    before = (run / "export/ply/cloud.ply").read_bytes()
    with file_size_limit(10_000):
        code = main([str(run), "--to", "ply", "--overwrite", "--quiet"])
    assert code == 1
    assert one_line(capsys).startswith(f"v2d-export: ply: cannot write {run / 'export/ply/cloud.ply'}: ")
    assert (run / "export/ply/cloud.ply").read_bytes() == before
    assert [path.name for path in (run / "export").iterdir()] == ["ply"]


def test_a_source_that_is_gone_is_told_with_what_still_works(room, small_run, capsys):
    run = small_run()
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace(str(room.recording), str(room.recording / "moved")))
    assert main([str(run), "--to", "colmap", "nerfstudio", "kitti", "--quiet"]) == 1
    error = one_line(capsys)
    assert "colmap, nerfstudio, kitti: " in error
    assert "without that there are: mesh, ply, depth, tum, euroc, rerun" in error
    assert main([str(run), "--to", "colmap", "tum", "--quiet"]) == 1
    assert one_line(capsys).endswith("; written: tum\n")
    assert sorted(path.name for path in (run / "export").iterdir()) == ["tum"]


def test_frames_that_are_others_now_are_left_out(room, small_run, tmp_path, caplog):
    """Two pictures of the recording were written anew, under their old times."""
    run, recording = small_run(), tmp_path / "recording"
    shutil.copytree(room.recording, recording)
    pictures = sorted((recording / "rgb").iterdir())
    for changed, other in ((0, 12), (20, 1)):
        shutil.copy(pictures[other], pictures[changed])
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace(str(room.recording), str(recording)))
    assert main([str(run), "--to", "nerfstudio"]) == 0
    assert "no longer has 2 of the 8 keyframes: they are left out" in caplog.text
    frames = json.loads((run / "export/nerfstudio/transforms.json").read_text())["frames"]
    assert len(frames) == 6 and pictures[0].stem not in str(frames)


@pytest.mark.parametrize("target", ["depth", "colmap", "nerfstudio"])
def test_keyframes_of_an_earlier_map_have_no_pictures_here(small_run, target, caplog, capsys):
    """Their times are of another recording: three of them are those of frames that this one has too."""
    run = small_run()
    file = run / "keyframes/keyframes.json"
    records = json.loads(file.read_text())
    for n in range(3):
        records[n] |= {"frame_id": -1, "time_ns": records[n + 3]["time_ns"]}
    file.write_text(json.dumps(records))
    assert main([str(run), "--to", target]) == 0
    assert "3 of the 8 keyframes are of the map that" in caplog.text
    names = {"depth": "rgb", "colmap": "images", "nerfstudio": "images"}
    assert len(list((run / "export" / target / names[target]).iterdir())) == 5
    file.write_text(json.dumps([record | {"frame_id": -1} for record in records]))
    assert main([str(run), "--to", target, "--overwrite", "--quiet"]) == 1
    assert "all keyframes of" in capsys.readouterr().err


def test_a_camera_was_not_kept(small_run, capsys):
    run = small_run()
    record = json.loads((run / "run.json").read_text())
    record["source"] |= {"kind": "camera", "name": "webcam:0"}
    (run / "run.json").write_text(json.dumps(record))
    assert main([str(run), "--to", "nerfstudio", "--quiet"]) == 1
    assert "were not kept; record a camera with --record DIR; without that there are: mesh" in one_line(capsys)


@pytest.mark.parametrize("target", [name for name, t in TARGETS.items() if t.needs in ("keyframes", "source")])
def test_an_empty_map_is_told(small_run, capsys, target):
    if target == "rerun":
        pytest.importorskip("rerun", reason="rerun-sdk is not installed (the extra rerun)")
    run = small_run()
    (run / "keyframes/keyframes.json").write_text("[]")
    assert main([str(run), "--to", target, "--quiet"]) == 1
    error = one_line(capsys)
    assert "is empty: it has no keyframes; without that there are: tum" in error
    assert not (run / "export" / target).exists()


def test_a_run_that_was_killed_has_its_online_poses(small_run, tmp_path, caplog, capsys):
    run = small_run()
    (run / "trajectory.txt").rename(run / "trajectory_online.txt")
    for name in ("run.json", "keyframes.txt"):
        (run / name).unlink()
    shutil.rmtree(run / "keyframes")
    assert main([str(run), "--to", "tum", "--out", str(tmp_path / "t")]) == 0
    assert "was killed" in caplog.text
    assert main([str(run), "--to", "mesh", "--quiet"]) == 1
    assert "keyframes.json" in capsys.readouterr().err


def test_a_damaged_depth_is_named(small_run, capsys):
    run = small_run()
    (run / "keyframes/000003_depth.png").write_bytes(b"\x89PNG")
    assert main([str(run), "--to", "mesh", "--quiet"]) == 1
    assert "000003_depth.png" in one_line(capsys)


def test_a_smaller_size_keeps_the_geometry(room, tmp_path):
    """Half the size: the camera follows the rule of pixel centres, the pictures are means of four pixels."""
    options = ["--to", "nerfstudio", "--max-size", "160", "--out", str(tmp_path / "n"), "--quiet"]
    assert main([str(room.path), *options]) == 0
    content = json.loads((tmp_path / "n/transforms.json").read_text())
    assert (content["w"], content["h"]) == (160, 120)
    assert content["cx"] == pytest.approx((room.camera.cx + 0.5) / 2)
    assert content["fl_x"] == pytest.approx(room.camera.fx / 2)
    picture = read_color(tmp_path / "n" / content["frames"][0]["file_path"]).astype(float)
    mean = room.images[0].reshape(120, 2, 160, 2, 3).mean((1, 3))
    assert np.abs(picture - mean).mean() < 3

"""v2d-doctor: broken libraries are told apart, and the exit code says whether a run is possible."""

import io
import json
import os
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from apps import doctor, probes
from apps.probes import Finding


def test_the_exit_code_says_whether_a_run_is_possible(monkeypatch, capsys):
    fine = [Finding("torch", True, "2", needed=True), Finding("display", False, "none", "runs work")]
    monkeypatch.setattr(doctor, "all_findings", lambda: iter(fine))
    assert doctor.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:2] == ["ok", "torch"] and said[1].startswith("missing display") and "ready" in said[2]
    broken = [*fine, Finding("self test", False, "crashes (signal 4)", needed=True)]
    monkeypatch.setattr(doctor, "all_findings", lambda: iter(broken))
    assert doctor.main([]) == 1
    assert "NOT READY: self test" in capsys.readouterr().out
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is False and report["findings"][1]["remedy"] == "runs work"


@pytest.mark.parametrize(
    ("code", "timeout_s", "expected"),
    [
        ("print('a'); print('b')", 30, (True, "b")),
        ("import nothing_of_this_name", 30, (False, "ModuleNotFoundError: No module named 'nothing_of_this_name'")),
        ("import time; time.sleep(60)", 0.5, (False, "hangs (no answer within 0.5 s)")),
    ],
)
def test_a_child_process_reports_how_it_ended(code, timeout_s, expected):
    assert probes.child(code, timeout_s) == expected


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_library_that_aborts_does_not_take_the_program_with_it():
    assert probes.child("import os; os.abort()") == (False, "crashes (signal 6)")


def test_a_library_is_found_or_explained(monkeypatch):
    assert probes.library("yaml", "PyYAML", needed=True).found
    absent = probes.library("nothing_of_this_name", "nothing-of-this-name", use="dreams", needed=True)
    assert absent.failed and absent.remedy == "pip install nothing-of-this-name" and "for dreams" in absent.what
    error = "ImportError: libGL.so.1: cannot open shared object file"
    monkeypatch.setattr(probes, "child", lambda code: (False, error))
    broken = probes.library("yaml", "PyYAML")
    assert not broken.found and not broken.failed and error in broken.what and "libgl1" in broken.remedy


def test_every_extra_is_listed_with_its_use_and_how_to_install_it(monkeypatch):
    tomllib = pytest.importorskip("tomllib", reason="no tomllib before Python 3.11")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    monkeypatch.setattr(probes, "child", lambda code: (False, "ModuleNotFoundError"))
    monkeypatch.setattr(probes, "_installed", lambda package: None)
    lines = [probes.library(m, package, use=use, wanted=w).line() for m, (package, use, w) in probes.OPTIONAL.items()]
    for extra in project["optional-dependencies"].keys() - {"test", "dev"}:
        (line,) = (line for line in lines if line.endswith(f"pip install 'v2d-slam[{extra}]'"))
        assert line.startswith("missing ") and "not installed (for " in line


def test_two_opencv_packages_are_one_too_many():
    assert probes.opencv_packages(["numpy", "opencv-python-headless"]).found
    both = probes.opencv_packages(["opencv-python", "opencv-python-headless", "torch"])
    assert not both.found and "pip uninstall opencv-python opencv-python-headless" in both.remedy


def test_instruction_sets_are_read_from_the_kernel():
    assert "avx2, amx_bf16" in probes.cpu("model : x\nflags\t\t: sse avx2 amx_bf16\n").what
    assert "none of" in probes.cpu("flags : sse\n").what and "not known" in probes.cpu("").what


def test_a_display_is_one_of_three_things():
    assert probes.display({"DISPLAY": ":0"}, "linux").what == "DISPLAY=:0"
    assert probes.display({}, "darwin").found and not probes.display({"DISPLAY": ""}, "linux").found


def test_webcams_are_named(tmp_path):
    (tmp_path / "video0").touch()
    (tmp_path / "names/video0").mkdir(parents=True)
    (tmp_path / "names/video0/name").write_text("Integrated Camera\n")
    found = probes.webcams(str(tmp_path / "video*"), tmp_path / "names")
    assert found.found and "video0 (Integrated Camera)" in found.what
    assert not probes.webcams(str(tmp_path / "none*"), tmp_path).found


def test_realsense_cameras_are_named_with_their_usb():
    fast, slow = ("Intel RealSense D455", "0123", "3.2"), ("Intel RealSense D435I", "0456", "2.1")
    assert probes.realsense_cameras([fast]).line() == (
        "ok      realsense           Intel RealSense D455 0123 on USB 3.2"
    )
    both = probes.realsense_cameras([fast, slow])
    assert both.what.endswith("D435I 0456 on USB 2.1") and "USB 3 port" in both.remedy
    assert not probes.realsense_cameras([]).found


def test_data_roots_are_those_that_are_searched(tmp_path, monkeypatch):
    (tmp_path / "root/fr1_desk").mkdir(parents=True)
    monkeypatch.setenv("V2D_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    first, *others = probes.data_roots()
    assert first.found and "fr1_desk" in first.what
    assert [finding.name for finding in others] == ["data datasets", "data data"]
    assert not any(finding.found for finding in others)


def test_weights_are_hashed(tmp_path):
    (tmp_path / "fast.safetensors").write_bytes(b"abc")
    (found,) = probes.weights(tmp_path)
    assert found.name == "weights fast" and "ba7816bf8f01" in found.what  # SHA-256 of "abc", FIPS 180-2
    assert [finding.found for finding in probes.weights(tmp_path / "none")] == [False]


def test_the_self_test_finds_the_shift_between_its_views(monkeypatch):
    monkeypatch.setattr(probes, "SELF_TEST_S", 0.0)
    result = probes.self_test()
    assert result["error_px"] < 0.1 and result["matched"] > 0.8 and result["ms"] > 0
    monkeypatch.setattr(probes, "SHIFT_UV", (-3.0, 2.0))  # views and truth move together
    assert probes.self_test()["error_px"] < 0.1


@pytest.mark.parametrize(
    ("result", "found", "words"),
    [
        ((True, '["cuda (Fast GPU)", null]'), True, "cuda (Fast GPU)"),
        ((True, '["cuda (Old GPU)", "no kernel image"]'), False, "cuda (Old GPU) does not work: no kernel image"),
        ((True, '["", null]'), False, "torch sees none"),
        ((False, "crashes (signal 11)"), False, "crashes (signal 11)"),
    ],
)
def test_a_gpu_that_is_there_may_not_work(monkeypatch, result, found, words):
    monkeypatch.setattr(probes, "child", lambda code: result)
    finding = probes.gpu()
    assert (finding.found, finding.what, finding.failed) == (found, words, False)


@pytest.mark.parametrize(("error_px", "matched", "good"), [(0.1, 0.9, True), (3.6, 0.9, False), (0.1, 0.2, False)])
def test_a_wrong_match_fails(monkeypatch, error_px, matched, good):
    result = {"flow": "dis", "width": 8, "height": 8, "ms": 1.0, "error_px": error_px, "matched": matched}
    result["device"] = "cpu"
    monkeypatch.setattr(probes, "child", lambda code: (True, json.dumps(result)))
    assert probes.matching().failed is not good


def test_a_small_map_has_points(monkeypatch):
    """Whether kernels are compiled depends on the runs before this one. The code for the child runs here."""

    def run(code: str, timeout_s: float) -> tuple[bool, str]:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code, {})
        return True, printed.getvalue().strip()

    monkeypatch.setattr(probes, "child", run)
    finding = probes.small_run()
    assert finding.found and re.match(r"\d{3,} points from [2-9] keyframes, kernels (ready|compiled in )", finding.what)


@pytest.mark.parametrize(
    ("result", "found", "words"),
    [
        ((True, '{"compile_s": 9.04, "kept": true, "points": 5, "keyframes": 2}'), True, "compiled in 9.0 s, kept"),
        ((True, '{"compile_s": 9.0, "kept": false, "points": 5, "keyframes": 2}'), True, "set NUMBA_CACHE_DIR"),
        ((True, '{"compile_s": 0.0, "kept": true, "points": 0, "keyframes": 0}'), False, "mapping does not work"),
        ((False, "ImportError: numba"), False, "reinstall v2d-slam"),
    ],
)
def test_a_small_map_is_made_or_explained(monkeypatch, result, found, words):
    monkeypatch.setattr(probes, "child", lambda code, timeout_s: result)
    finding = probes.small_run()
    assert finding.found == found and finding.needed and words in finding.line()

"""v2d-refine as a user meets it: what it leaves behind, how it goes on, and what it says of mistakes."""

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from apps import evaluate, refine
from apps import run as slam_run
from slam.io.images import write_depth
from slam.io.refined import Frames
from slam.io.run import Run
from slam.refinement import video
from slam.refinement.refiner import Refined, Refiner

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 30
QUICK = ["--set", "direct.steps=10", "--quiet"]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, and every folder in it."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def finished(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without networks. Tests must not change it."""
    out = tmp_path_factory.mktemp("refine") / "run"
    options = ["--max-frames", str(FRAMES), "--config", str(ROOT / "configs/classical.yaml"), "--set", "pixels=12288"]
    assert slam_run.main(["--sequence", str(recording), "--out", str(out), "--deterministic", "--quiet", *options]) == 0
    return out


@pytest.fixture(scope="module")
def refined(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Refined, range]]]:
    """The run refined, as a user does it, and the stretches that were written. Tests must not change it."""
    path = tmp_path_factory.mktemp("refined") / "run"
    shutil.copytree(finished, path)
    stretches: list[tuple[Refined, range]] = []

    def kept(*arguments, **others) -> Iterator[tuple[Refined, range]]:
        for stretch in original(*arguments, **others):
            stretches.append(stretch)
            yield stretch

    original = video.refine_video
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "refine_video", kept)
        assert refine.main([str(path), *QUICK]) == 0
    return path, stretches


@pytest.fixture
def run_path(finished: Path, tmp_path: Path) -> Path:
    """A run to work on."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def done_at_once(refined, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refinement has the result that it had before, without the work."""
    monkeypatch.setattr(video, "refine_video", lambda *arguments, **others: iter(refined[1]))


@pytest.fixture
def refined_path(refined, tmp_path: Path) -> Path:
    """A run with a result to work on."""
    return Path(shutil.copytree(refined[0], tmp_path / "run"))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What the program said, which is one line with its name."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith(("ERROR: ", "WARNING: "))]
    assert captured.out == "" and len(lines) == 1 and lines[0].startswith("v2d-refine: "), captured.err
    return lines[0]


# the result


def test_the_result_has_depth_of_every_frame_and_the_run_stays_as_it_was(refined, finished):
    path, result = refined[0], Run(refined[0] / "refined")
    now, before = files(path), files(finished)
    assert {name: data for name, data in now.items() if not name.startswith("refined")} == before
    top = {p.name for p in result.path.iterdir()}
    assert top == {
        *("frames", "keyframes", "map.ply", "metrics.json", "preview.mp4"),
        *("run.json", "trajectory.txt", "keyframes.txt", "config.yaml"),
    }
    frames, trajectory = Frames(result.path), Run(path).trajectory()
    assert [r.time_ns for r in frames.records] == trajectory.time_ns.tolist() and len(trajectory) == FRAMES
    for record, T_wc in zip(frames.records, trajectory.T_wc, strict=True):
        np.testing.assert_allclose(record.T_wc, T_wc, atol=1e-6)
        assert (frames.depth(record) > 0).all() and (frames.confidence(record) > 0).mean() > 0.5
    metrics = json.loads((result.path / "metrics.json").read_text())["refinement"]
    assert (metrics["frames"], metrics["frames_kept_as_they_were"], metrics["end"]) == (FRAMES, 0, "complete")
    assert metrics["settings"]["direct"]["steps"] == 10
    scores = [metrics[when] for when in ("before", "after")]
    assert scores[0].keys() == scores[1].keys() >= {"held_out", "temporal_alignment_percent", "photometric"}
    assert scores[1]["held_out"]["log_ratio"] < scores[0]["held_out"]["log_ratio"]
    assert scores[1]["temporal_alignment_percent"]["1"] < scores[0]["temporal_alignment_percent"]["1"]
    for name in ("run.json", "trajectory.txt", "keyframes.txt", "config.yaml"):
        assert now[f"refined/{name}"] == before[name]
    film = cv2.VideoCapture(str(result.path / "preview.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_keyframes_and_map_have_the_refined_depth(refined):
    """A keyframe's depth is that of its frame; poses and images are the run's."""
    run, result = Run(refined[0]), Run(refined[0] / "refined")
    frames = Frames(result.path)
    by_time = {record.time_ns: record for record in frames.records}
    old, new = run.keyframes(), result.keyframes()
    assert [k.id for k in new] == [k.id for k in old] and len(old) >= 2
    for before, after in zip(old, new, strict=True):
        assert torch.equal(before.T_wc, after.T_wc) and before.view.time_ns == after.view.time_ns
        depth = frames.depth(by_time[after.view.time_ns])
        np.testing.assert_allclose(after.dense.depth().numpy(), depth, rtol=0.01)
        assert (before.dense.value - after.dense.value).abs().max() > 0
    points = result.cloud().points
    assert len(points) > 1000 and np.isfinite(points).all()


def test_the_result_is_scored_by_the_other_program(refined, recording, tmp_path, capsys):
    """Depth of a baseline of a tenth of it: 10 %, and no worse than the run's own under one scale."""
    options = ["--groundtruth", str(recording), "--depth", str(recording / "depth"), "--no-plots", "--quiet"]
    numbers = []
    for path in (refined[0], refined[0] / "refined"):
        assert evaluate.main([str(path), *options, "--min-confidence", "0", "--out", str(tmp_path)]) == 0
        numbers.append(json.loads((tmp_path / "metrics.json").read_text())["evaluation"])
    assert numbers[0]["ate_m"] == numbers[1]["ate_m"]
    assert "video_depth" not in numbers[0] and numbers[1]["video_depth"]["frames"] == FRAMES
    assert numbers[1]["video_depth"]["abs_rel"] < 0.1
    assert numbers[1]["depth"]["one_scale"]["abs_rel"] < 1.05 * numbers[0]["depth"]["one_scale"]["abs_rel"]
    assert capsys.readouterr().err == ""


def test_a_result_is_replaced_only_when_asked(refined_path, done_at_once, capsys):
    before = files(refined_path)
    assert refine.main([str(refined_path), *QUICK]) == 2
    assert "refined is there already; --again replaces it" in one_line(capsys)
    assert files(refined_path) == before
    (refined_path / "refined/stray.txt").write_text("of the result before")
    assert refine.main([str(refined_path), *QUICK, "--again"]) == 0
    assert files(refined_path).keys() == before.keys()


# mistakes


def edited(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change a JSON file of a run."""

    def edit(run: Path) -> None:
        values = json.loads((run / name).read_text())
        change(values)
        (run / name).write_text(json.dumps(values))

    return edit


def other_pixels(run: Path) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(values | {"pixels": 256 * 256}))


def without_depth(run: Path) -> None:
    for record in Run(run).keyframe_records():
        write_depth(run / "keyframes" / record.depth, np.zeros((record.height, record.width), np.float32), 1.0)


def other_recording(run: Path) -> None:
    """As long, with the same names, taken at another time."""
    path = run.parent / "other"
    (path / "rgb").mkdir(parents=True)
    lines = []
    for n in range(FRAMES):
        assert cv2.imwrite(str(path / "rgb" / f"{n}.png"), np.zeros((120, 160, 3), np.uint8))
        lines.append(f"{1000 + n / 15:.9f} rgb/{n}.png\n")
    (path / "rgb.txt").write_text("".join(lines))
    edited("run.json", lambda x: x["source"].update(path=str(path)))(run)


MISTAKES = {
    "images moved": (edited("run.json", lambda x: x["source"].update(path="/nowhere")), [], 1, "/nowhere"),
    "images replaced": (other_recording, [], 1, f"has 0 of the {FRAMES} frames of this run"),
    "camera": (edited("run.json", lambda x: x["source"].update(kind="camera")), [], 1, "were not kept"),
    "one keyframe": (
        edited("keyframes/keyframes.json", lambda x: x.__delitem__(slice(1, None))),
        [],
        1,
        "no two keyframes",
    ),
    "no depth": (without_depth, [], 1, "has no depth"),
    "not ended": (lambda run: (run / "run.json").unlink(), [], 1, "has not ended, or was killed"),
    "incomplete": (edited("run.json", lambda x: x.update(missing={"map.ply": "disk full"})), [], 1, "map.ply"),
    "other version": (edited("run.json", lambda x: x.update(new_field=1)), [], 1, "run v2d-slam again"),
    "older program": (edited("run.json", lambda x: x.update(new=1, version="0.0.9")), [], 1, "by v2d-slam 0.0.9"),
    "other size": (other_pixels, [], 1, "its config.yaml asks for"),
    "damaged record": (lambda run: (run / "run.json").write_text("{"), [], 1, "run.json is not valid JSON"),
    "no settings": (lambda run: (run / "config.yaml").unlink(), [], 2, "config.yaml"),
    "no trajectory": (lambda run: (run / "trajectory.txt").unlink(), [], 1, "trajectory.txt"),
    "no time": (lambda run: None, ["--minutes", "0"], 2, "--minutes must be positive, got 0"),
    "not a time": (lambda run: None, ["--minutes", "nan"], 2, "--minutes must be positive, got nan"),
    "unknown setting": (lambda run: None, ["--set", "direct.step=5"], 2, "unknown setting direct.step"),
    "wrong setting": (lambda run: None, ["--set", "direct.steps=-1"], 2, "direct: steps must be from 0"),
    "no weights": (lambda run: None, ["--mode", "train", "--weights", "/nowhere.safetensors"], 1, "/nowhere"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(name, run_path, capsys):
    prepare, options, code, message = MISTAKES[name]
    prepare(run_path)
    before = files(run_path)
    assert refine.main([str(run_path), *QUICK, *options]) == code
    assert message in one_line(capsys)
    left = files(run_path)
    left.pop("refined.work", None)  # empty: the folder of what is kept of an interrupted refinement
    left.pop("refined.work/stretch-000", None)
    assert left == before


def test_a_result_or_nothing_given_as_the_run_is_refused(refined_path, tmp_path, monkeypatch, capsys):
    assert refine.main([str(refined_path / "refined"), *QUICK]) == 2
    assert "is the result of v2d-refine; name the run that it came from" in one_line(capsys)
    assert refine.main([str(tmp_path / "none"), *QUICK]) == 1
    assert "no run directory at" in one_line(capsys)
    monkeypatch.chdir(tmp_path)
    assert refine.main(QUICK) == 1
    assert "points to no run" in one_line(capsys)


# what the disk refuses


def full(*rest: object, **others: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "writer",
    [
        "slam.io.refined.write_depth",
        "slam.io.run.write_confidence",
        "slam.io.run.write_ply",
        "slam.refinement.result.shutil.copyfile",
        "slam.io.run_directory.write_text",
    ],
)
def test_a_full_disk_leaves_the_result_that_there_was(refined_path, done_at_once, monkeypatch, capsys, writer):
    before = files(refined_path)
    monkeypatch.setattr(writer, full)
    assert refine.main([str(refined_path), *QUICK, "--again"]) == 1
    assert "refined is not written" in (line := one_line(capsys)) and "No space left on device" in line
    assert files(refined_path) == before


def test_a_disk_that_is_full_while_it_works_is_said(run_path, monkeypatch, capsys):
    monkeypatch.setattr("slam.io.files.tempfile.mkstemp", full)
    before = files(run_path)
    assert refine.main([str(run_path), *QUICK]) == 1
    assert "No space left on device; free some space" in one_line(capsys)
    assert {n: data for n, data in files(run_path).items() if not n.startswith("refined.work")} == before


@pytest.mark.parametrize("name", ["refined.partial", "refined.work"])
def test_a_folder_that_cannot_be_made_is_said(refined_path, monkeypatch, capsys, name):
    """Each of those that it works in."""
    before, make = files(refined_path), Path.mkdir

    def refused(path: Path, *rest: object, **others: object) -> None:
        if name in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        make(path, *rest, **others)

    monkeypatch.setattr(Path, "mkdir", refused)
    assert refine.main([str(refined_path), *QUICK, "--again"]) == 1
    assert name in (line := one_line(capsys)) and "Permission denied" in line
    assert files(refined_path) == before


def test_a_result_that_cannot_take_its_place_leaves_the_one_before(refined_path, done_at_once, monkeypatch, capsys):
    """As where a file of the old one is in use."""
    before, rename = files(refined_path), Path.replace

    def refused(path: Path, target: Path) -> Path:
        if path.name == "refined.partial":
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    assert refine.main([str(refined_path), *QUICK, "--again"]) == 1
    assert "Directory not empty" in one_line(capsys)
    assert files(refined_path) == before


# endings before the end


def test_what_the_held_out_pairs_do_not_confirm_is_not_written(refined_path, refined, monkeypatch, capsys):
    before = files(refined_path)
    worse = [(replace(r, accepted=False, after=r.before), own) for r, own in refined[1]]

    def rejected(*arguments: object) -> Iterator[tuple[Refined, range]]:
        (refined_path / "refined.work/stretch-000").mkdir(parents=True)  # as the true one keeps its result there
        yield from worse

    monkeypatch.setattr(video, "refine_video", rejected)
    assert refine.main([str(refined_path), *QUICK, "--again"]) == 1
    line = one_line(capsys)
    assert "the result is not used" in line and "pairs of frames held out, depths differ by" in line
    assert files(refined_path) == before


def test_too_little_time_ends_with_a_result_or_a_line(run_path, capsys):
    """Much less than the measurement of depth takes."""
    before = files(run_path)
    code = refine.main([str(run_path), *QUICK, "--minutes", "0.002"])
    if code == 0:
        assert len(Frames(run_path / "refined").records) == FRAMES
    else:
        assert code == 1 and "v2d-refine: " in one_line(capsys)
    kept = {n: data for n, data in files(run_path).items() if not n.startswith(("refined.work", "refined"))}
    assert kept == before
    assert not (run_path / "refined.partial").exists()


class Interrupt:
    """A status line that sends a signal when it shows certain words."""

    words = ""

    def __init__(self, stream: object) -> None:
        self.sent = False

    def __call__(self, words: str) -> None:
        if self.words in words and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_keeps_the_best_so_far_and_the_same_command_goes_on(run_path, finished, monkeypatch):
    """Interrupted as it optimises; then nothing is measured again."""
    monkeypatch.setattr(refine, "Status", Interrupt)
    monkeypatch.setattr(Interrupt, "words", "optimising, step 3 of")
    command = [str(run_path), *QUICK]
    assert refine.main(command) == 0
    assert len(Frames(run_path / "refined").records) == FRAMES
    assert json.loads((run_path / "refined/metrics.json").read_text())["refinement"]["end"] == "stopped by the user"
    assert sorted(p.stem for p in (run_path / "refined.work/stretch-000").iterdir()) == [
        "flows",
        "held_out",
        "measured",
    ]
    monkeypatch.setattr(Interrupt, "words", "never")
    monkeypatch.setattr("slam.refinement.refiner.measured_depth", None)
    monkeypatch.setattr("slam.refinement.refiner.measured_flows", None)
    assert refine.main(command) == 0
    assert json.loads((run_path / "refined/metrics.json").read_text())["refinement"]["end"] == "complete"
    left = files(run_path)
    assert {name: data for name, data in left.items() if not name.startswith("refined")} == files(finished)
    assert {name.split("/")[0] for name in left if name.startswith("refined")} == {"refined"}


def test_ctrl_c_at_once_leaves_everything_and_says_so(refined_path, monkeypatch, capsys):
    @contextmanager
    def stopped() -> Iterator[threading.Event]:
        event = threading.Event()
        event.set()
        yield event

    monkeypatch.setattr(refine, "stop_on_signals", stopped)
    before = files(refined_path)
    assert refine.main([str(refined_path), *QUICK, "--again"]) == 1
    assert "stopped before there was a result" in one_line(capsys)
    assert {n: data for n, data in files(refined_path).items() if not n.startswith("refined.work")} == before


def test_an_error_within_takes_the_unfinished_result_away(run_path, monkeypatch):
    """A programming error keeps its traceback."""
    before = files(run_path)
    monkeypatch.setattr(Refiner, "run", full)
    with pytest.raises(OSError, match="No space"):
        refine.main([str(run_path), *QUICK])
    assert {n: data for n, data in files(run_path).items() if not n.startswith("refined.work")} == before

"""The benches of speed, of live runs and of the prior: what they measure, and that what they print comes from it."""

import importlib
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from slam.errors import SlamError, UsageError
from slam.experiment import run_and_score
from slam.frames import Counts, Status, Trajectory
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.prior import PriorNetConfig
from slam.networks.stereo import StereoNetConfig
from slam.networks.storage import NetworkConfig, Networks, load_networks, save_network
from slam.sources import SourceSpec, open_source
from slam.training.rgbd import RgbdFolder

ROOT = Path(__file__).parents[1]
SETTINGS = ("pixels=19200", "final_refine=false")
TIMES = {"track_ms": [20.0, 40.0], "with_wait_ms": [30.0, 50.0]}


@pytest.fixture
def tool(monkeypatch):
    """Imports a tool, as its neighbours do."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Time passes by `passes` alone."""
    found = SimpleNamespace(now_s=100.0)
    found.passes = lambda seconds: setattr(found, "now_s", found.now_s + seconds)
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: found.now_s)
    return found


def test_waiting_for_the_backend_is_taken_off_and_the_start_left_out(tool, clock):
    backend = SimpleNamespace(submit=lambda job: clock.passes(0.25), wait=lambda: clock.passes(0.5))
    system = SimpleNamespace(backend=backend, status=Status.INIT)

    def step(frame: int) -> list[int]:
        clock.passes(1.0)
        if frame > 1:
            system.backend.submit("job")
        if frame > 2:
            system.backend.wait()
        system.status = Status.TRACKING
        return [frame]

    system.step = step
    times = tool("bench_speed").FrameTimes(system)
    assert [system.step(n) for n in range(4)] == [[0], [1], [2], [3]]
    assert times.with_wait_ms == pytest.approx([1000, 1250, 1750])  # frame 0 began without a map
    assert times.track_ms == pytest.approx([1000, 1000, 1000])
    assert times.numbers()["with_wait_ms"] == pytest.approx([1250, 1700])


def test_a_run_in_a_checkout_of_its_own_has_the_scores_of_the_run_here(tool, recording):
    bench = tool("bench_speed")
    numbers = bench.in_checkout(bench.Version("A", ROOT, SETTINGS), recording, threads=False, max_frames=30)
    result = run_and_score(recording, SETTINGS, source=open_source(SourceSpec(str(recording), max_frames=30)))
    assert Path(numbers["package"]).parents[1] == ROOT
    assert numbers["ate"] == pytest.approx(result.report.ate["sim3"].rmse, rel=1e-3)  # compiled anew, sums may differ
    assert numbers["abs_rel"] == pytest.approx(result.depth.abs_rel, rel=1e-3)
    assert numbers["coverage"] == 1 and numbers["keyframes"] == len(result.slam.store.everything())
    assert 0 < numbers["track_ms"][0] <= numbers["with_wait_ms"][0] and numbers["track_ms"][0] < numbers["cpu_ms"]
    assert all(ms is not None and ms > 0 for ms in numbers["stages"]) and numbers["memory_mb"] > 100


def test_what_a_worker_dies_of_is_told(tool, tmp_path):
    bench = tool("bench_speed")
    with pytest.raises(SlamError, match=f"{tmp_path}, B: bench_speed: .*{tmp_path}"):
        bench.in_checkout(bench.Version("B", ROOT, ()), tmp_path, threads=False, max_frames=None)


def test_versions_take_turns_and_neighbouring_runs_are_compared(tool):
    """B is slower by 2, 1.25 and 1.6; the medians of 10, 40, 20 and 20, 50, 32 have another ratio."""
    bench = tool("bench_speed")
    versions = [bench.Version(name, ROOT, ()) for name in "AB"]
    cpu_ms = iter([10.0, 20.0, 40.0, 50.0, 20.0, 32.0])
    order = []

    def measure(version, folder: Path) -> dict:
        order.append(version.name)
        rest = {"fps": 9.0, "keyframes": 7, "memory_mb": 500, "ate": 0.01, "coverage": 1.0, "abs_rel": None}
        return {"cpu_ms": next(cpu_ms), "stages": [1, 2, 3, None, 5], **TIMES, **rest}

    found = bench.measured(versions, Path("desk"), 3, measure)
    a, b = ([cell.strip() for cell in line.split("|")[1:-1]] for line in bench.rows(versions, Path("desk"), found))
    assert "".join(order) == "ABABAB" and len(a) == len(b) == len(bench.COLUMNS.split(" | "))
    assert a[:4] == ["desk", "A", "20.0 (10.0 to 40.0)", "0.625"] and b[1:4] == ["B", "32.0 (20.0 to 50.0)", ""]
    assert a[5:12] == ["20.0, 40.0", "30.0, 50.0", "1", "2", "3", "", "5"] and a[-1] == ""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_of_a_commit_is_gone_after_an_error(tool, tmp_path):
    bench = tool("bench_speed")

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    for words in ("old", "new"):
        (tmp_path / "file").write_text(words)
        git("add", "file")
        git("commit", "-q", "-m", words)
    with pytest.raises(RuntimeError), bench.checked_out(tmp_path, "HEAD~1") as tree:
        assert (tree / "file").read_text() == "old"
        raise RuntimeError
    assert not tree.exists() and git("worktree", "list").count("\n") == 1
    with pytest.raises(UsageError, match="nothing"), bench.checked_out(tmp_path, "nothing"):
        pass


def test_a_camera_shows_each_image_at_its_time_and_leaves_out_those_that_have_passed(mjpeg_server, clock):
    server = mjpeg_server.MjpegServer([b""] * 10, 10.0, real_time=True)
    server.stop()
    shown = []
    for number in server.numbers(SimpleNamespace(wait=clock.passes)):
        shown.append((number, round(clock.now_s - 100, 3)))
        clock.passes(0.25 if number == 3 else 0.02)  # to send it
    assert shown == [*((n, n / 10) for n in range(4)), (5, 0.55), *((n, n / 10) for n in range(6, 10))]


def live_run(bench: ModuleType, time_ns: np.ndarray, pixels: np.ndarray, posed: slice = slice(None)):
    T_wc = np.tile(np.eye(4), (len(time_ns), 1, 1))
    T_wc[:, :3, 3] = np.random.default_rng(1).normal(size=(len(time_ns), 3))
    delay_ms = np.full(len(time_ns), 30.0)
    trajectory = Trajectory(time_ns[posed], T_wc[posed])
    return bench.LiveRun(trajectory, time_ns, pixels, delay_ms, TIMES, Counts(seen=len(time_ns)), 1, 4)


def test_live_frames_are_known_by_their_pixels_however_late_they_come(tool):
    """Images every 33 ms, of which 4 to 6 are the same; most never arrive, the others up to 90 ms late."""
    bench = tool("bench_live")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (40, 300)).astype(np.uint8)
    pixels[5] = pixels[6] = pixels[4]
    sent_ns = 10**18 + 33_000_000 * np.arange(40)
    numbers = np.array([0, 1, 4, 5, 6, 7, 12, 13, 20, 31, 39])
    late_ns = np.array([5, 90, 60, 40, 80, 50, 2, 2, 90, 3, 4]) * 1_000_000
    noisy = np.clip(pixels[numbers] + generator.normal(0, 3, (11, 300)), 0, 255).astype(np.uint8)
    live = live_run(bench, sent_ns[numbers] + late_ns, noisy, slice(3, None))
    sent = list(zip(range(40), sent_ns.tolist()))
    assert bench.shown(live, pixels, sent).tolist() == numbers.tolist()
    taken_ns = 7 * np.arange(40)
    assert bench.retimed(live, numbers, taken_ns).time_ns.tolist() == (7 * numbers[3:]).tolist()
    moved = Trajectory(np.arange(40), np.tile(np.eye(4), (40, 1, 1)))
    assert np.isnan(bench.ate_of(Trajectory(moved.time_ns[:0], moved.T_wc[:0]), moved))


def test_a_recording_is_served_tracked_and_scored(tool, recording, monkeypatch, capsys):
    """How many frames have a pose depends on how busy the computer is. The server alone has a process of its own."""
    bench = tool("bench_live")
    monkeypatch.setattr(bench, "in_new_process", lambda work, *given: work(*given))
    words = [str(recording), "--runs", "1", "--fps", "20", "--max-frames", "40"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["bench_live", *words])
    assert bench.main() == 0
    lines = capsys.readouterr().out.splitlines()
    heads, _, row = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-3:])
    cells = dict(zip(heads, row, strict=True))
    assert cells["recording, run"] == f"{recording.name}, 1" and (cells["fps"], cells["served"]) == ("20.0", "40")
    unseen, dropped = (int(word.strip("()")) for word in cells["unseen (dropped)"].split())
    assert 0 <= dropped <= unseen < 40
    middle, late = (float(word) for word in cells["sending to arrival ms, p95"].split(", "))
    assert 0 < middle <= late < 1500
    assert float(cells["ATE disk"]) < 0.02 or cells["ATE live"] == "nan"


# depth of single pictures


def wedge() -> Tensor:
    """(3, 12, 16) true inverse depths, twice as near at the bottom as at the top, each in a unit; a row unknown."""
    ramp = 2 ** torch.linspace(-0.5, 0.5, 12)[:, None].expand(12, 16)
    truth = torch.stack([0.5 * ramp, 1.0 * ramp, 3.0 * ramp])
    truth[:, 4] = 0
    return truth


def test_scores_of_a_depth_with_one_scale_a_picture_one_a_video_and_in_metres(tool):
    """The true shape, but each picture in a unit of its own: 0.5, 1 and 3 times as near as it says."""
    bench, truth = tool("bench_prior"), wedge()
    shape = 2 ** torch.linspace(-0.5, 0.5, 12)[:, None].expand(3, 12, 16)
    found = bench.scores(shape.log(), truth)
    assert found["picture"] == pytest.approx(0, abs=1e-6)
    assert found["video"] == found["metres"] == pytest.approx((0.5 + 0 + 2) / 3, rel=1e-5)  # estimated over true depth
    nearer = bench.scores(shape.log() + math.log(2), truth)  # half the depth
    assert nearer["picture"] == pytest.approx(0, abs=1e-6) and nearer["video"] == pytest.approx(2.5 / 3, rel=1e-5)
    assert nearer["metres"] == pytest.approx((0.75 + 0.5 + 0.5) / 3, rel=1e-5)


def test_the_best_ramp_is_the_one_that_the_truth_has(tool):
    bench, truth = tool("bench_prior"), wedge()
    ramp = bench.best_ramp(truth)
    assert float(ramp[0, -1, 0] - ramp[0, 0, 0]) == pytest.approx(math.log(2), abs=0.06)  # slopes are 0.1 apart
    assert bench.scores(ramp, truth)["picture"] < 0.02 < bench.scores(torch.zeros_like(truth), truth)["picture"]
    assert float(bench.best_ramp(truth.flip(1))[0, -1, 0]) < 0


def test_the_bench_of_the_prior_prints_what_its_functions_say(tool, recording, tmp_path, monkeypatch, capsys):
    """An untrained network is one that says the same everywhere: its row is that of the constant."""
    bench = tool("bench_prior")
    untrained = tmp_path / "untrained.safetensors"
    tiny = NetworkConfig(
        "tiny",
        160,
        120,
        EncoderConfig(8, 8, 8, blocks_8=1, matching=8, fine=8, stereo=8, image=8),
        MotionNetConfig(8, 8, levels=2, radius=2),
        StereoNetConfig(4, 8, 8),
        PriorNetConfig(8, 8, 8, 8),
    )
    save_network(untrained, tiny, Networks(tiny).state_dict(), {})
    monkeypatch.setattr(bench, "PIXELS", 160 * 120)
    words = ["--rgbd", str(recording), "--weights", "fast", str(untrained), "--part", "0.4", "0.6"]
    words += ["--json", str(tmp_path / "numbers.json"), "--pictures", str(tmp_path), "--count", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_prior", *words])
    bench.main()
    rows = json.loads((tmp_path / "numbers.json").read_text())[recording.name]
    assert list(rows) == ["fast", str(untrained), "constant", "best ramp"]
    assert rows[str(untrained)] == pytest.approx(rows["constant"], rel=1e-4)
    assert rows["best ramp"]["picture"] <= rows["constant"]["picture"] + 1e-6
    assert all(abs(rows["fast"][c] - rows["constant"][c]) > 1e-3 for c in bench.COLUMNS)
    printed = capsys.readouterr().out
    for row, values in rows.items():
        line = next(line for line in printed.splitlines() if line.startswith(f"  {row}"))
        assert [float(word) for word in line[len(row) + 2 :].split()[1::2]] == [round(v, 3) for v in values.values()]
    clip = bench.pictures_of(RgbdFolder.read(recording, bench.PIXELS), (0.4, 0.6))
    assert len(clip.images) == 15
    with torch.inference_mode():
        assert bench.table(clip, {"fast": load_networks("fast")})["fast"] == pytest.approx(rows["fast"])
    image = cv2.imread(str(tmp_path / f"prior_{recording.name}.png"))
    assert image.shape == (120, 4 * 160, 3)  # picture, prior, stereo, truth


def test_shocks_come_at_the_same_places_and_keep_the_stamps(tool, recording):
    """Of 75 frames one burst at least is cut out, or ten covered, or the rest exposed otherwise."""
    bench = tool("bench_shocks")
    plain = list(bench.shocked(recording, "none", 0))
    images = {frame.time_ns: frame.image for frame in plain}
    assert len(list(bench.shocked(recording, "stride10", 0))) == 8
    dropped, covered, exposed = (list(bench.shocked(recording, shock, 0)) for shock in bench.SHOCKS[1:])
    assert 5 <= len(plain) - len(dropped) <= 30 and [frame.id for frame in dropped] == list(range(len(dropped)))
    assert all((images[frame.time_ns] == frame.image).all() for frame in dropped)
    hidden = [frame for frame in covered if (images[frame.time_ns] != frame.image).any()]
    assert len(hidden) in (10, 20) and max(frame.image.astype(float).std() for frame in hidden) < 40
    changed = [frame.id for frame in exposed if (images[frame.time_ns] != frame.image).any()]
    assert changed and changed == list(range(changed[0], 75)) and changed[0] == hidden[0].id
    assert len(list(bench.shocked(recording, "dropped", 0))) == len(dropped)
    with pytest.raises(UsageError, match="quake"):
        bench.shocked(recording, "quake", 0)

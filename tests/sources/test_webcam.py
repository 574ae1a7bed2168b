"""Cameras as streams over HTTP: served images are tracked, interruptions survived or reported, and all is kept."""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.run import main
from slam.errors import OutputError, SourceError, UsageError, without_secrets
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io import recorder as recorder_module
from slam.io.recorder import Recorder
from slam.io.run import Run
from slam.io.trajectory import read_tum
from slam.report import Report
from slam.sources import SourceSpec, open_source
from slam.sources.recorded_camera import RecordedCamera
from slam.sources.reopen import reopened
from slam.sources.sequence import CameraChoice
from slam.sources.tum import TumSource
from slam.sources.webcam import WebcamSource

SMALL = ["--set", "pixels=19200", "--quiet"]  # 160x120


@pytest.fixture
def serve(rendered, mjpeg_server) -> Iterator:
    """Starts servers of the rendered recording, there and back, so that the loop has no jump."""
    images = [cv2.imencode(".jpg", frame.image[..., ::-1])[1].tobytes() for frame in rendered.frames]
    servers = []

    def start(fps: float = 30.0):
        servers.append(mjpeg_server.MjpegServer(images + images[::-1], fps))
        return servers[-1]

    yield start
    for server in servers:
        if not server.ended.is_set():
            server.stop()


def later(seconds: float, action) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def test_a_stream_is_tracked_recorded_and_replays_with_the_same_stamps(serve, recording, tmp_path):
    """How many of the 70 have a pose depends on how busy the computer is; those recorded and their stamps do not."""
    before_ns = time.time_ns()
    out, kept = tmp_path / "run", tmp_path / "kept"
    options = ["--calib", str(recording / "calibration.yaml"), "--record", str(kept), "--max-frames", "70"]
    assert main(["--camera", serve(15).url, "--out", str(out), *options, *SMALL]) == 0
    run = json.loads((out / "run.json").read_text())
    trajectory = read_tum(out / "trajectory.txt")
    assert run["outcome"]["end"] == "complete" and run["frames_seen"] + run["frames_dropped"] == 70
    assert run["outcome"]["recording"] == {"path": str(kept), "frames": 70, "dropped": 0, "error": None}
    again = [frame.time_ns for frame in reopened(Run(out).record().source)]  # from the recording
    assert len(again) == 70 and all(k.view.time_ns == again[k.view.frame_id] for k in Run(out).keyframes())
    assert len(trajectory) >= 5 and before_ns < trajectory.time_ns[0] < trajectory.time_ns[-1] < time.time_ns()
    replayed = [frame.time_ns for frame in TumSource(kept)]
    assert len(replayed) == 70 and set(trajectory.time_ns.tolist()) <= set(replayed)
    assert np.median(np.diff(replayed)) == pytest.approx(1e9 / 15, rel=0.2)  # grabbed as they came


def test_a_server_that_comes_back_is_found_again(serve, caplog):
    server = serve()
    source = WebcamSource(server.url, reconnect_s=10)
    caplog.set_level(logging.INFO, "slam")
    caplog.clear()
    frames = []
    for frame in source:
        frames.append(frame)
        if frame.id == 10:
            server.stop()
            later(1.0, server.start)
        if frame.id == 30:
            break
    source.close()
    gaps_s = np.diff([frame.time_ns for frame in frames]) / 1e9
    assert [frame.id for frame in frames] == list(range(31))
    assert gaps_s.min() > 0 and 0.9 < gaps_s.max() < 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]  # once each


def test_a_silent_server_counts_as_gone(serve, caplog):
    """The connection stays, nothing comes: only the watchdog can tell."""
    server = serve()
    source = WebcamSource(server.url, reconnect_s=0.5, stall_s=0.4)
    start_s = time.monotonic()
    with pytest.raises(SourceError, match=r"given up after 0\.5 s"):
        for frame in source:
            if frame.id == 5:
                server.silent.set()
    assert time.monotonic() - start_s < 4
    source.close()


def test_a_server_that_is_gone_for_good_leaves_a_complete_run(serve, recording, tmp_path, monkeypatch, capsys):
    server, out = serve(20), tmp_path / "run"
    write_online, tracked = Report.write_online, []

    def until_tracked(report: Report, estimates: list) -> None:
        write_online(report, estimates)
        tracked.extend(estimates)
        if len(tracked) > 5 and not server.ended.is_set():
            server.stop()

    monkeypatch.setattr(Report, "write_online", until_tracked)
    calib = str(recording / "calibration.yaml")
    arguments = ["--camera", server.url, "--calib", calib, "--out", str(out), "--reconnect", "0.5"]
    assert main([*arguments, *SMALL]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"v2d-slam: no more images from {server.url}, given")
    run = json.loads((out / "run.json").read_text())
    assert run["missing"] == {} and "given up" in run["outcome"]["end"]
    assert len(read_tum(out / "trajectory.txt")) == run["frames_tracked"] > 0


@contextmanager
def pushed_over_tcp(images: list[bytes]) -> Iterator[str]:
    """The address of a camera that sends one JPEG after the other to whoever connects, and nothing else."""

    class Camera(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the other side has gone
                while True:
                    for image in images:
                        self.request.sendall(image)
                        time.sleep(0.01)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_camera_that_changes_its_size_within_a_connection_is_refused(mjpeg_server, kind):
    """Not stretched to the first size, which FFmpeg does."""
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    small, large = (cv2.imencode(".jpg", cv2.resize(noise, size))[1].tobytes() for size in ((160, 120), (320, 120)))
    sent = [small]
    with contextlib.ExitStack() as stack:
        if kind == "http":
            server = mjpeg_server.MjpegServer(sent, 100)
            stack.callback(server.stop)
            address = server.url
        else:
            address = stack.enter_context(pushed_over_tcp(sent))
        source = stack.enter_context(contextlib.closing(WebcamSource(address, choice=CameraChoice(hfov_deg=60))))
        with pytest.raises(SourceError, match=r"changed from 160x120 to 320x120; start a new run for the new size"):
            for frame in source:
                assert frame.image.shape == (120, 160, 3)
                sent[0] = large  # from now on: the computer may be busy


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_ends_a_run_though_no_image_comes(serve, tmp_path, monkeypatch, caplog):
    """It would wait a minute for the stream to come back; a third of that is much on any machine."""
    server, out, interrupted_s = serve(), tmp_path / "run", []
    write_online = Report.write_online

    def interrupt() -> None:
        interrupted_s.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def silent_when_tracked(report: Report, estimates: list) -> None:
        write_online(report, estimates)
        if estimates and not server.silent.is_set():
            server.silent.set()
            later(1.0, interrupt)

    monkeypatch.setattr(Report, "write_online", silent_when_tracked)
    assert main(["--camera", server.url, "--hfov", "62", "--out", str(out), "--reconnect", "60", *SMALL]) == 0
    assert time.monotonic() - interrupted_s[0] < 20
    assert json.loads((out / "run.json").read_text())["outcome"]["end"] == "stopped by the user"
    assert "does not answer" not in caplog.text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--camera", "http://me:secret@127.0.0.1:{port}/x"], 1, "cannot open http://***@127.0.0.1:"),
        (["--camera", "webcam:999"], 1, "is camera 999 plugged in"),
        (["--camera", "film.mp4"], 2, "neither webcam, webcam:N, realsense nor a URL"),
        (["--camera", "webcam", "--width", "0"], 2, "--width must be from 1"),
        (["--camera", "webcam", "--fps", "-1"], 2, "--fps must be"),
        (["--camera", "webcam", "--reconnect", "nan"], 2, "--reconnect must be"),
        (["--camera", "webcam", "--stride", "2"], 2, "--stride 2 is for recordings"),
        (["--camera", "webcam", "--deterministic"], 2, "--deterministic is for recordings"),
        (["--camera", "rtsp://127.0.0.1:{port}/x", "--width", "640"], 2, "are for webcams"),
        (["--camera", "webcam", "--use-depth", "on"], 2, "webcam measures no depth"),
        (["--camera", "webcam", "--record", "{kept}"], 2, "kept holds a recording already"),
        (["--demo", "--record", "somewhere"], 2, "--record somewhere is for --camera"),
    ],
)
def test_a_mistake_gets_one_line(arguments, code, message, tmp_path, capsys):
    port = free_port()
    out, kept = tmp_path / "run", tmp_path / "kept"
    (kept / "rgb").mkdir(parents=True)
    start_s = time.monotonic()
    assert main([*(word.format(port=port, kept=kept) for word in arguments), "--out", str(out)]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "secret" not in error
    assert not out.exists() and time.monotonic() - start_s < 5


def test_names_do_not_tell_passwords():
    of_names = {
        "rtsp://me:p@ss@camera:554/x": "rtsp://***@camera:554/x",
        "http://camera/?action=stream&token=abc": "http://camera/?action=stream&token=***",
        "https://camera/x.mp4?abc#t=def": "https://camera/x.mp4?***&t=***",
        "http://camera/x?token=a/b?c@d": "http://camera/x?token=***&***",
        "cannot open http://a@b/c?key=s3, and http://d/e.mp4: gone": "cannot open http://***@b/c?key=***, and "
        "http://d/e.mp4: gone",
        "webcam:1": "webcam:1",
        "http://a/clip.mp4?id=3&pin=1234": "http://a/clip.mp4?id=3&pin=***",
        "/files/a?b=c@d": "/files/a?b=c@d",
        "http://camera/stream?": "http://camera/stream?",
    }
    assert {name: without_secrets(name) for name in of_names} == of_names
    assert str(SourceError("no http://me:secret@x/?token=secret")) == "no http://***@x/?token=***"


# recording


CAMERA = Camera(16, 12, 20.0, 20.0, 7.5, 5.5)


def frames(n: int, depth: bool = False) -> list[Frame]:
    step = np.linspace(0.5, 2, 12 * 16, dtype=np.float32).reshape(12, 16)
    return [
        Frame(i, 10**18 + 7 * i, np.full((12, 16, 3), 10 * i, np.uint8), CAMERA, step if depth else None)
        for i in range(n)
    ]


def test_a_recording_comes_back(tmp_path):
    taken = frames(5, depth=True)
    recorder = Recorder(tmp_path / "kept", CAMERA)
    for frame in taken:
        recorder.add(frame)
    recorder.close()
    back = open_source(SourceSpec(str(tmp_path / "kept")))  # depth of a recorded camera is used unasked
    assert back.camera == CAMERA
    for frame, again in zip(taken, back, strict=True):
        assert again.time_ns == frame.time_ns
        assert np.abs(again.image.astype(int) - frame.image).max() <= 2  # JPEG
        assert np.abs(again.depth - frame.depth).max() <= 0.5001 / 5000
    with pytest.raises(UsageError, match="holds a recording already"):
        Recorder(tmp_path / "kept", CAMERA)


def test_a_recording_is_good_at_any_moment(tmp_path):
    """As it lies on the disk while the recorder still runs: what kill -9 would leave."""
    recorder = Recorder(tmp_path / "kept", CAMERA)
    for frame in frames(5):
        recorder.add(frame)
    while recorder.written < 5:
        time.sleep(0.01)
    shutil.copytree(tmp_path / "kept", tmp_path / "left")
    recorder.close()
    assert [frame.time_ns for frame in TumSource(tmp_path / "left")] == [frame.time_ns for frame in frames(5)]


def test_a_recording_whose_folder_is_removed_is_told(tmp_path):
    recorder = Recorder(tmp_path / "kept", CAMERA)
    for frame in frames(2):
        recorder.add(frame)
    while recorder.written < 2:
        time.sleep(0.01)
    (tmp_path / "kept").rename(tmp_path / "moved")
    recorder.close()
    assert str(recorder.error) == f"{tmp_path / 'kept/rgb.txt'} was removed, or moved, while it was written"


def test_a_slow_disk_loses_frames_and_holds_up_nobody(tmp_path, monkeypatch, caplog):
    write, started, go_on = recorder_module.write_color, threading.Event(), threading.Event()

    def slow(path: Path, image: np.ndarray) -> None:
        started.set()
        assert go_on.wait(10)
        write(path, image)

    monkeypatch.setattr(recorder_module, "write_color", slow)
    recorder = Recorder(tmp_path / "kept", CAMERA, capacity=3)
    taken = frames(20)
    recorder.add(taken[0])
    assert started.wait(10)
    start_s = time.monotonic()
    for frame in taken[1:]:
        recorder.add(frame)
    assert time.monotonic() - start_s < 1
    go_on.set()
    recorder.close()
    assert (recorder.written, recorder.dropped) == (4, 16)
    assert "lacks 16 frames" in caplog.text
    assert [frame.time_ns for frame in TumSource(tmp_path / "kept")] == [frame.time_ns for frame in taken[:4]]


def test_a_full_disk_ends_the_recording_only(tmp_path, monkeypatch, caplog, rendered):
    def full(path: Path, image: np.ndarray) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(recorder_module, "write_color", full)
    recorder = Recorder(tmp_path / "kept", rendered.camera)
    assert len(list(RecordedCamera(rendered, recorder))) == len(rendered.frames)
    recorder.close()
    assert recorder.written == 0 and "No space left" in recorder.record().error
    assert sum(record.levelname == "WARNING" for record in caplog.records if "tracking goes on" in record.message) == 1

"""v2d-slam with its window on a virtual display, with keys from outside; and what it does where no window can be."""

import ctypes
import json
import logging
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps import viewing
from apps.run import main
from slam.errors import SourceError
from slam.io.images import read_color
from slam.io.ply import read_ply
from slam.viewer.driver import count_devices
from slam.viewer.live import LiveRun

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
MISSING = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
SMALL = ["--set", "pixels=19200"]  # 160x120

needs_window = [
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed"),
    pytest.mark.skipif(count_devices() < 1, reason="no Vulkan driver (libvulkan1, mesa-vulkan-drivers)"),
]


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent (Xlib, section 10.14), with room for any other event behind it."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("is_sent", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("room", ctypes.c_long * 12),
    )


def close_window(display: str, window: int) -> None:
    """Ask it to close, as a window manager does when its cross is clicked."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols, delete = (x11.XInternAtom(connection, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    event = ClientMessage(type=33, window=window, message_type=protocols, format=32)
    event.data[0] = delete
    assert x11.XSendEvent(connection, ctypes.c_ulong(window), 0, 0, ctypes.byref(event))
    x11.XCloseDisplay(connection)


class Keys:
    """A program's window, and keys for it."""

    def __init__(self, program: Any) -> None:
        self.program = program

    def xdotool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words],
            env=self.program.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
        return done.stdout.strip()

    def window(self) -> str:
        """The window, once it is there and has the keys."""
        search = ["xdotool", "search", "--onlyvisible", "--name", "v2d-slam"]
        environment = self.program.environment
        self.program.wait_until(lambda: subprocess.run(search, env=environment, capture_output=True).returncode == 0)
        window = self.xdotool(*search[1:]).splitlines()[0]
        self.xdotool("windowfocus", "--sync", window)
        return window


@pytest.fixture
def start(start_program, display) -> Callable[..., tuple[Any, Keys]]:
    def started(*options: str) -> tuple[Any, Keys]:
        program = start_program(*options, DISPLAY=display)
        return program, Keys(program)

    return started


@pytest.mark.usefixtures("no_display")
class TestWithout:
    """No window."""

    def test_no_display_is_one_line(self, recording, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "apps"):
            assert (
                main(["--sequence", str(recording), "--max-frames", "3", "--out", str(tmp_path / "run"), *SMALL]) == 1
            )
        lines = [r.getMessage() for r in caplog.records if r.name == "apps.viewing"]
        assert lines == [
            "going on without a window: no display (DISPLAY is not set); a browser shows it too "
            "(v2d-slam --viewer web, v2d-view --web), --screenshot FILE draws without one"
        ]

    @pytest.mark.parametrize("option", ["--headless", "--viewer=none"])
    def test_who_wants_no_window_is_told_nothing(self, option, recording, tmp_path, caplog):
        with caplog.at_level(logging.INFO, "apps"):
            main(["--sequence", str(recording), "--max-frames", "3", "--out", str(tmp_path / "run"), *SMALL, option])
        assert not [r for r in caplog.records if r.name == "apps.viewing"]

    def test_a_window_asked_for_by_name_is_an_error(self, recording, tmp_path, capsys):
        assert main(["--sequence", str(recording), "--out", str(tmp_path / "run"), "--viewer", "open3d"]) == 1
        assert capsys.readouterr().err.startswith("v2d-slam: no display (DISPLAY is not set)")
        assert not (tmp_path / "run").exists()


@pytest.fixture
def no_display(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def test_a_window_that_breaks_does_not_end_the_run(recording, tmp_path, monkeypatch, caplog):
    class Broken:
        def __init__(self, live: Any) -> None:
            live.play()  # and it leaves the run paused

        def show(self, stopped: Callable[[], bool]) -> None:
            raise RuntimeError("the driver has gone")

    monkeypatch.setattr(viewing, "load_window", lambda: Broken)
    assert main(["--sequence", str(recording), "--out", str(tmp_path / "run"), *SMALL]) == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["outcome"]["end"], record["frames_seen"], record["missing"]) == ("complete", 75, {})
    warnings = [r.getMessage() for r in caplog.records if r.name == "apps.viewing"]
    assert warnings == ["the window failed, the run goes on without it: the driver has gone"]


def test_what_the_run_dies_of_comes_through_the_window(tmp_path):
    class Patient:
        def __init__(self, live: LiveRun) -> None:
            """Show nothing."""

        def show(self, stopped: Callable[[], bool]) -> None:
            end_s = time.monotonic() + 10
            while not stopped() and time.monotonic() < end_s:
                time.sleep(0.01)

    def dying() -> int:
        raise SourceError("the camera broke off")

    stop = threading.Event()
    with pytest.raises(SourceError, match="the camera broke off"):
        viewing.watched(Patient, LiveRun(tmp_path), stop, dying)
    assert not stop.is_set()  # nobody has closed the window
    assert viewing.watched(Patient, LiveRun(tmp_path), stop, lambda: 0) == 0


def test_a_screenshot_that_fails_is_one_line_and_loses_nothing(recording, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nowhere")
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere")
    out, image = tmp_path / "run", tmp_path / "map.png"
    options = ["--sequence", str(recording), "--max-frames", "20", "--out", str(out), *SMALL, "--headless"]
    assert main([*options, "--screenshot", str(tmp_path / "map.txt")]) == 2
    assert "map.txt: the name must end in .png" in capsys.readouterr().err and not out.exists()
    assert main([*options, "--screenshot", str(image)]) == 1
    assert f"v2d-slam: no screenshot {image}: no Vulkan driver" in capsys.readouterr().err and not image.exists()
    assert json.loads((out / "run.json").read_text())["missing"] == {}


class TestWindow:
    """On a virtual display."""

    pytestmark = needs_window

    def test_keys_pause_step_save_and_quit_a_camera(self, start, stream):
        program, keys = start("--camera", stream, "--hfov", "70")
        keys.window()
        program.wait_until(lambda: program.poses() > 30)  # a map that the steps find themselves in
        keys.xdotool("key", "space")
        time.sleep(1.5)  # a flush after the last pose
        keys.xdotool("key", "n")
        time.sleep(1.5)
        paused = program.poses()
        keys.xdotool("key", "n")
        program.wait_until(lambda: program.poses() > paused)
        time.sleep(1.5)
        assert program.poses() == paused + 1  # one frame and no more
        keys.xdotool("mousemove", "100", "200", "mousedown", "1", "mousemove", "150", "220", "mouseup", "1")
        keys.xdotool("key", "g", "k", "t", "h", "plus", "bracketright", "f", "r", "p", "s")
        program.wait_until(lambda: (program.out / "view_001.ply").exists() and (program.out / "view_001.png").exists())
        assert len(read_ply(program.out / "view_001.ply")) > 100
        assert read_color(program.out / "view_001.png").std() > 1
        keys.xdotool("key", "space")
        program.wait_until(lambda: program.poses() > paused + 5)
        keys.xdotool("key", "q")
        assert program.check_ended_in_order()["frames_dropped"] > 20  # while it was paused

    def test_closing_the_window_ends_the_run_in_order_also_when_paused(self, start, stream, display, tmp_path):
        program, keys = start("--camera", stream, "--hfov", "70", "--screenshot", str(tmp_path / "map.png"))
        window = keys.window()
        program.wait_until(lambda: program.poses() > 5)
        keys.xdotool("key", "space")
        close_window(display, int(window))
        program.check_ended_in_order()
        assert read_color(tmp_path / "map.png").shape == (800, 1280, 3)

    def test_a_display_that_goes_away_does_not_end_the_run(self, start, stream, display_server):
        program, keys = start("--camera", stream, "--hfov", "70")
        keys.window()
        program.wait_until(lambda: program.poses() > 5)
        display_server.kill()
        program.wait_until(lambda: "the display has gone" in program.log.read_text())
        before = program.poses()
        program.wait_until(lambda: program.poses() > before + 10)
        program.process.send_signal(signal.SIGINT)
        program.check_ended_in_order()

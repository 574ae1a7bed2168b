"""The page that shows a run: in a real browser during a live run, and what it puts into its scene without one."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apps.run import main as slam_main
from apps.view import main as view_main
from slam.errors import ViewerError
from slam.geometry import se3
from slam.io.images import read_color
from slam.io.ply import read_ply
from slam.viewer.clouds import keyframe_points
from slam.viewer.controls import Controls
from slam.viewer.live import LiveRun
from slam.viewer.run import FinishedRun, Playback
from slam.viewer.view_state import ViewState
from slam.viewer.web_address import FIRST_PORT, Address

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
SOFTWARE_GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SELDOM_DRAWN = """
window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 150);
window.cancelAnimationFrame = clearTimeout;
"""  # without a GPU sixty frames a second take the core that tracking needs
SCENE = {"x": 0, "y": 150, "width": 360, "height": 450}  # beside notifications and panel
WAIT_MS = 60_000


# a real browser


@pytest.fixture
def browsers() -> Iterator[Any]:
    """Starts Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        yield lambda: started.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)


def opened(browser: Any, url: str, height: int) -> Any:
    """A page; small ones are drawn fast without a GPU."""
    page = browser.new_page(viewport={"width": 700, "height": height})
    page.add_init_script(SELDOM_DRAWN)
    page.set_default_timeout(WAIT_MS)
    page.goto(url)
    return page


def wait_for_text(page: Any, pattern: str) -> str:
    """What the first group of the pattern finds in the page's text, once it is there."""
    found = page.wait_for_function(f"document.body.innerText.match(/{pattern}/)", timeout=WAIT_MS, polling=200)
    return found.json_value()[1]


def points(page: Any, more_than: int) -> int:
    """Points in the scene, once there are more than so many."""
    end_s = time.monotonic() + WAIT_MS / 1000
    while (count := int(wait_for_text(page, r"points (\d+)"))) <= more_than:
        assert time.monotonic() < end_s, f"{count} points"
        time.sleep(0.2)
    return count


def scene_of(page: Any, path: Path) -> np.ndarray:
    """The scene as it is drawn, (H, W, 3) int."""
    page.screenshot(path=str(path), clip=SCENE)
    return read_color(path).astype(int)


def bright(page: Any, path: Path) -> int:
    """Pixels of the scene that are neither background nor the yellow of the current camera."""
    image = scene_of(page, path)
    is_yellow = image[..., :2].min(-1) > 1.4 * image[..., 2]
    return int(((image.max(-1) > 60) & ~is_yellow).sum())


def wait_until(claim: Any) -> None:
    end_s = time.monotonic() + WAIT_MS / 1000
    while not claim():
        assert time.monotonic() < end_s
        time.sleep(0.2)


def turned(page: Any) -> bool:
    """Turn the wheel; True once it is understood that who does so does not want to follow any longer."""
    page.mouse.wheel(0, 200)
    return not page.get_by_role("checkbox", name="follow the camera").is_checked()


def press(page: Any, button: str) -> None:
    """By the keyboard: a click waits for a page that stands still, and a drawing one may not for a minute."""
    page.get_by_role("button", name=button).press("Enter")


def test_browsers_watch_and_command_a_camera_and_leave_it_unharmed(browsers, start_program, stream, tmp_path):
    program = start_program("--camera", stream, "--hfov", "70", "--viewer", "web:0")
    program.wait_until(lambda: "the run is shown at" in program.log.read_text())
    url = re.findall(r"shown at (http://127\.0\.0\.1:\d+)", program.log.read_text())[0]
    leaving, staying = browsers(), browsers()
    first = opened(leaving, url, height=200)
    few = points(first, 0)
    second = opened(staying, url, height=600)
    assert points(second, few) > few  # the map grows under its eyes, and is there for who comes later
    wait_for_text(first, "(browsers 2)")
    press(second, "reset the view")  # of this browser alone
    wait_until(lambda: not second.get_by_role("checkbox", name="follow the camera").is_checked())
    assert first.get_by_role("checkbox", name="follow the camera").is_checked()
    press(second, "play, pause")
    for page in (first, second):
        wait_for_text(page, "(paused)")
    for box in ("keyframes", "trajectory"):
        second.get_by_role("checkbox", name=box).uncheck()
    wait_until(lambda: bright(second, tmp_path / "points.png") > 2000)
    second.get_by_role("slider").nth(1).press("End")  # nothing is as sure as that
    wait_until(lambda: bright(second, tmp_path / "none.png") < 300)  # blurred edges
    second.get_by_role("slider").nth(1).press("Home")
    points(second, few)
    seen = int(wait_for_text(first, r"frame (\d+)"))
    press(second, "one step on")
    wait_for_text(second, f"(frame {seen + 1})")
    press(second, "save points")
    program.wait_until(lambda: (program.out / "view_001.ply").exists())
    press(second, "save a screenshot")
    program.wait_until(lambda: (program.out / "view_001.png").exists())
    assert len(read_ply(program.out / "view_001.ply")) > 100
    assert (read_color(program.out / "view_001.png").max(-1) > 60).sum() > 2000
    before = scene_of(second, tmp_path / "reset.png")
    second.get_by_role("checkbox", name="follow the camera").check()  # also while it stands still
    wait_until(lambda: (np.abs(scene_of(second, tmp_path / "behind.png") - before).max(-1) > 40).sum() > 2000)
    leaving.close()
    wait_for_text(second, "(browsers 1)")
    before = program.poses()
    press(second, "play, pause")
    program.wait_until(lambda: program.poses() > before + 20)
    assert second.get_by_role("checkbox", name="follow the camera").is_checked()
    second.mouse.move(100, 400)
    wait_until(lambda: turned(second))
    press(second, "stop the run")
    assert program.check_ended_in_order()["frames_tracked"] > 20
    assert "Traceback" not in program.log.read_text()
    staying.close()


# the scene without a browser


@pytest.fixture
def scene() -> Iterator[Any]:
    """What viser would send, and the one who fills it."""
    pytest.importorskip("viser", reason="viser is not installed (the extra web)")
    from slam.viewer.web import quietly, serve
    from slam.viewer.web_scene import WebScene

    server = serve(Address(port=0), "test")
    yield server.scene, WebScene(server.scene)
    quietly(server.stop)


def test_points_stand_where_their_keyframe_does_and_go_with_it(run_path, scene):
    """Keyframe 1 is turned, moved and made three times as large; keyframe 0 has left the map."""
    viser_scene, web = scene
    keyframes = FinishedRun(run_path).keyframes
    points = {k.id: keyframe_points((k, [o for o in keyframes if o is not k], 0.5)) for k in keyframes}
    shown = ViewState(keyframes, 3, np.zeros((2, 3)), None, None, "")
    web.draw(shown, Controls(), points, set(points))
    handles = {k.id: viser_scene.get_handle_by_name(f"/clouds/{k.id}") for k in keyframes}
    assert [handles[i].visible for i in range(4)] == [True, True, True, False]
    T_wc = se3.exp(torch.tensor([1.0, 2.0, 3.0, 0.3, -0.2, 0.9], dtype=torch.float64))
    moved = replace(keyframes[1], T_wc=T_wc, scale=3.0)
    gone = points.pop(0)
    web.draw(replace(shown, keyframes=(moved, *keyframes[2:])), Controls(point_size=5), points, {gone.id})
    assert viser_scene.get_handle_by_name("/clouds/0") is None
    one = handles[1]
    w, x, y, z = one.wxyz
    from slam.io.quaternion import matrix_from_quat_xyzw

    R = matrix_from_quat_xyzw(np.array([[x, y, z, w]]))[0]
    p_w = one.scale * one.points @ R.T + one.position
    expected = 3 * points[1].cloud.points @ T_wc[:3, :3].numpy().T + T_wc[:3, 3].numpy()
    np.testing.assert_allclose(p_w, expected, atol=1e-5)  # float32 points
    assert one.point_size == pytest.approx(5 * 2.0 / 800)  # of pixels at the median depth


def test_lines_are_hidden_when_they_are_not_wanted(run_path, scene):
    viser_scene, web = scene
    shown = Playback(FinishedRun(run_path)).shown()
    web.draw(shown, Controls(), {}, set())
    assert viser_scene.get_handle_by_name("/frusta").points.shape == (40, 2, 3)
    assert viser_scene.get_handle_by_name("/trajectory").visible
    web.draw(shown, Controls(shows_keyframes=False, shows_trajectory=False, shows_graph=True), {}, set())
    visible = {n: viser_scene.get_handle_by_name(f"/{n}").visible for n in ("frusta", "trajectory", "graph")}
    assert visible == {"frusta": False, "trajectory": False, "graph": True}


def test_no_browser_can_open_a_tunnel_to_the_internet(monkeypatch):
    """Viser has a button for that, and a message behind it that anybody can send."""
    viser = pytest.importorskip("viser", reason="viser is not installed (the extra web)")
    from slam.viewer.web import quietly, serve

    opened: list[Any] = []
    monkeypatch.setattr(viser.ViserServer, "request_share_url", lambda *_, **__: opened.append(1))
    server = serve(Address(port=0), "test")
    assert server.request_share_url() is None and opened == []
    quietly(server.stop)


def test_drawing_rests_after_its_own_work_alone(monkeypatch, tmp_path):
    """A run that begins while the page is made has threads that work all the time."""
    pytest.importorskip("viser", reason="viser is not installed (the extra web)")
    from slam.viewer import web

    is_over, draws, serve = threading.Event(), [], web.serve

    def work() -> None:
        while not is_over.is_set():
            pass

    def serve_meanwhile(*arguments: Any) -> Any:
        tracking.start()
        return serve(*arguments)

    class Run(LiveRun):
        def shown(self) -> ViewState:
            draws.append(time.monotonic())
            return super().shown()

    tracking = threading.Thread(target=work)
    monkeypatch.setattr(web, "serve", serve_meanwhile)
    try:
        page = web.WebPage(Run(tmp_path), Address(port=0))
        end_s = time.monotonic() + 20
        page.show(lambda: len(draws) > 8 or time.monotonic() > end_s)
    finally:
        is_over.set()
        tracking.join()
    assert len(draws) > 8


# addresses and mistakes


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_refused_by_number_and_passed_over_without(taken, monkeypatch):
    with pytest.raises(ViewerError, match=f"^port {taken} of 127.0.0.1 is taken; ask for another one"):
        Address(port=taken).free_port()
    monkeypatch.setattr("slam.viewer.web_address.FIRST_PORT", taken)
    assert taken < Address().free_port() < taken + 100
    monkeypatch.setattr("slam.viewer.web_address.MOST_PORTS", 1)
    with pytest.raises(ViewerError, match=f"every port of 127.0.0.1 from {taken} to {taken} is taken"):
        Address().free_port()


@pytest.mark.parametrize(
    ("host", "is_local", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:80"),
        ("localhost", True, "http://localhost:80"),
        ("0.0.0.0", False, f"http://{socket.gethostname()}:80"),
        ("192.0.2.1", False, "http://192.0.2.1:80"),
        ("::1", True, "http://[::1]:80"),
    ],
)
def test_addresses(host, is_local, url):
    assert (Address(host).is_local, Address(host).url(80)) == (is_local, url)


def test_who_works_over_ssh_is_told_how_to_reach_a_local_page(monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    assert "ssh -L 8123:127.0.0.1:8123" in Address().where(8123)
    assert "ssh" not in Address("0.0.0.0").where(8123)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 300, "nowhere.invalid"])
def test_hosts_that_are_not_of_this_computer_are_one_line(host):
    with pytest.raises(ViewerError, match="no page at"):
        Address(host, FIRST_PORT).free_port()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--viewer", "webb"], "--viewer webb: must be open3d, web, web:PORT or none"),
        (["--viewer", "open3d:80"], "--viewer open3d:80: must be"),
        (["--viewer", "web:"], "--viewer web:: PORT must be a number from 0"),
        (["--viewer", "web:http"], "--viewer web:http: PORT must be a number from 0"),
        (["--viewer", "web:70000"], "to 65535"),
        (["--viewer", "web:-1"], "to 65535"),
        (["--viewer", "web", "--viewer-host", " "], "the host of a page must not be empty"),
        (["--viewer-host", "0.0.0.0"], "--viewer-host goes with --viewer web"),
    ],
)
def test_mistakes_of_v2d_slam_are_one_line(options, words, recording, tmp_path, capsys):
    assert slam_main(["--sequence", str(recording), "--out", str(tmp_path / "run"), *options]) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_taken_port_ends_v2d_slam_before_it_begins(taken, recording, tmp_path, capsys):
    options = ["--sequence", str(recording), "--out", str(tmp_path / "run"), "--viewer", f"web:{taken}"]
    assert slam_main(options) == 1
    assert f"v2d-slam: port {taken} of 127.0.0.1 is taken" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--host goes with --web"),
        (["--web", "--screenshot", "view.png"], "--screenshot draws without showing"),
        (["--web", "99999"], "to 65535"),
        (["--web=here"], "--web here: PORT must be"),
    ],
)
def test_mistakes_of_v2d_view_are_one_line(options, words, run_path, capsys):
    assert view_main([str(run_path), *options]) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1


def test_no_viser_is_one_line(run_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "slam.viewer.web", None)
    assert view_main([str(run_path), "--web"]) == 1
    printed = capsys.readouterr().err
    assert "cannot load viser" in printed and "pip install 'v2d-slam[web]'" in printed and printed.count("\n") == 1


def test_a_finished_run_is_served_until_interrupted(run_path, tmp_path):
    """`--web RUN` means the run; who lets others in is warned once; nothing of it goes to standard output."""
    pytest.importorskip("viser", reason="viser is not installed (the extra web)")
    log = tmp_path / "log"
    command = [sys.executable, "-m", "apps.view", "--host", "0.0.0.0", "--web", str(run_path)]
    with log.open("w") as stream:
        program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stream)
    try:
        wait_until(lambda: "shown at" in log.read_text() or program.poll() is not None)
        time.sleep(0.5)
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=30)
    finally:
        program.kill()
        program.wait(10)
    lines = log.read_text().splitlines()
    assert (program.returncode, output) == (0, b"")
    assert lines[0] == "WARNING: anyone who reaches 0.0.0.0 can look at the page, and stop the run there"
    assert len(lines) == 2 and lines[1].startswith("INFO: the run is shown at http://"), lines

"""RealSense recordings and cameras, by the library's software device: no camera is needed."""

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

try:
    import pyrealsense2 as rs
except ImportError as missing:
    pytest.skip(f"pyrealsense2 cannot be loaded: {missing}", allow_module_level=True)

from apps.run import main
from slam.errors import CalibrationError, SourceError
from slam.evaluation.trajectory import ate, path_length
from slam.frames import Frame, Trajectory
from slam.geometry.lens import undistort
from slam.io.trajectory import read_tum
from slam.sources import SourceSpec, detect, open_source, realsense, realsense_camera
from slam.sources.cameras import CameraSpec, open_camera
from slam.sources.realsense import RealSenseFileSource, camera_of, to_rgb
from slam.sources.realsense_camera import EpochClock, Mode, RealSenseSource, modes
from slam.sources.sequence import FrameWindow

RECORDED = 8  # frames
SMALL = ["--set", "pixels=19200", "--quiet"]  # 160x120


@pytest.fixture(scope="module")
def db3(rendered, realsense_recording, tmp_path_factory) -> Path:
    """60 frames of colour and depth."""
    path = tmp_path_factory.mktemp("realsense") / "office.db3"
    realsense_recording.record(path, rendered.frames[:60])
    return path


# recordings


def test_a_recording_is_read_without_loss(db3, rendered, realsense_recording):
    assert detect(db3) == "realsense"
    source = open_source(SourceSpec(str(db3), with_depth=False))
    got = list(source)
    assert [frame.id for frame in got] == list(range(60))
    assert [frame.time_ns for frame in got] == [realsense_recording.stamp_ns(frame) for frame in rendered.frames[:60]]
    for frame, truth in zip(got, rendered.frames, strict=False):
        assert np.array_equal(frame.image, truth.image) and frame.depth is None
        assert frame.camera is source.camera
    camera, true = source.camera, rendered.camera
    assert (camera.width, camera.height, camera.distortion) == (true.width, true.height, ())
    found, wanted = (camera.fx, camera.fy, camera.cx, camera.cy), (true.fx, true.fy, true.cx, true.cy)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)  # stored as float32
    assert not source.live


def test_depth_belongs_to_its_frame(db3, rendered):
    """Used unasked. Stored in millimetres: half of one is the rounding."""
    got = list(open_source(SourceSpec(str(db3))))
    assert len(got) == 60
    for frame, truth in zip(got, rendered.frames, strict=False):
        assert np.array_equal(frame.image, truth.image)
        assert frame.depth is not None and frame.depth.dtype == np.float32
        np.testing.assert_allclose(frame.depth, truth.depth, rtol=0, atol=0.000501)


def test_depth_of_a_camera_beside_is_moved_into_the_image(rendered, realsense_recording, tmp_path):
    """A gap in a wall at 2 m, seen from 5 cm to the side, is fx * 0.05 / 2 pixels to the right."""
    depth = np.full(rendered.frames[0].image.shape[:2], 2.0, np.float32)
    depth[:, 60:64] = 0.0
    frames = [replace(frame, depth=depth) for frame in rendered.frames[:3]]
    camera = realsense_recording.SoftwareCamera(rendered.camera, baseline_m=0.05)
    realsense_recording.record(tmp_path / "beside.db3", frames, camera)
    got = next(iter(RealSenseFileSource(tmp_path / "beside.db3"))).depth
    shift_px = rendered.camera.fx * 0.05 / 2
    gap = np.flatnonzero(got[60, 10:] == 0) + 10
    assert len(gap) in (3, 4) and gap.mean() == pytest.approx(61.5 + shift_px, abs=0.6)
    np.testing.assert_allclose(got[got > 0], 2.0, atol=1e-6)


def test_depth_of_another_moment_is_left_out(rendered, realsense_recording, tmp_path):
    """Every second depth frame is missing: the colour frames in between stay, without depth."""
    path, camera = tmp_path / "gaps.db3", realsense_recording.SoftwareCamera(rendered.camera)
    send, frames = camera.send, [replace(f, time_ns=10**9 + 33_000_000 * f.id) for f in rendered.frames[:13]]
    camera.send = lambda frame, number: send(frame, number, ("depth", "color") if number % 2 else ("color",))
    realsense_recording.record(path, frames, camera)
    got = list(RealSenseFileSource(path))
    assert [frame.time_ns for frame in got] == [realsense_recording.stamp_ns(frame) for frame in frames]
    assert [frame.depth is not None for frame in got] == [True, False] * 6 + [True]
    for frame, truth in zip(got[::2], frames[::2], strict=True):
        np.testing.assert_allclose(frame.depth, truth.depth, atol=0.000501)


def test_other_streams_of_a_recording_cost_no_frame(rendered, realsense_recording, tmp_path):
    """Left to itself the library waits for infrared and motion too, and drops colour at both ends."""
    path, camera = tmp_path / "all.db3", realsense_recording.SoftwareCamera(rendered.camera)
    camera.add_others()
    realsense_recording.record(path, rendered.frames[:20], camera)
    got = list(RealSenseFileSource(path))
    assert [frame.time_ns for frame in got] == [realsense_recording.stamp_ns(frame) for frame in rendered.frames[:20]]
    assert all(frame.depth is not None for frame in got)


def test_a_slow_reader_loses_nothing_and_a_second_pass_is_the_same(db3, rendered, realsense_recording):
    source = RealSenseFileSource(db3, FrameWindow(start=2, stride=3, max_frames=30))
    for pause_s in (0.06, 0.0):
        stamps = []
        for frame in source:
            time.sleep(pause_s)
            stamps.append(frame.time_ns)
        assert stamps == [realsense_recording.stamp_ns(rendered.frames[k]) for k in range(2, 32, 3)]


def test_the_window_past_the_end(db3):
    with pytest.raises(SourceError, match=r"--start 100 is past the end of it: it has 60 frames"):
        list(RealSenseFileSource(db3, FrameWindow(start=100)))


def test_leaving_early_and_closing_twice(db3):
    start_s = time.monotonic()
    source = RealSenseFileSource(db3)
    assert next(iter(source)).id == 0
    time.sleep(0.5)  # the library is waiting for us meanwhile
    source.close()
    source.close()
    assert next(iter(source)).id == 0
    source.close()
    assert time.monotonic() - start_s < 3


def test_depth_where_there_is_none(rendered, realsense_recording, tmp_path):
    path, camera = tmp_path / "color.db3", realsense_recording.SoftwareCamera(rendered.camera, with_depth=False)
    realsense_recording.record(path, rendered.frames[:3], camera)
    assert [frame.depth for frame in open_source(SourceSpec(str(path)))] == [None] * 3
    with pytest.raises(SourceError, match=r"color.db3 has no depth to use"):
        open_source(SourceSpec(str(path), with_depth=True))


def test_other_colour_formats_become_rgb(rendered, realsense_recording, tmp_path):
    """BGR exactly; YUYV keeps colour at half the columns: a flat image survives but for the rounding of the codes."""
    flat = np.full_like(rendered.frames[0].image, (200, 90, 40))
    frames = [replace(frame, image=flat) for frame in rendered.frames[:3]]
    # BT.601, studio range: 66 129 25 / -38 -74 112 / 112 -94 -18 over 256
    y, u = 16 + (66 * 200 + 129 * 90 + 25 * 40) / 256, 128 + (-38 * 200 - 74 * 90 + 112 * 40) / 256
    v = 128 + (112 * 200 - 94 * 90 - 18 * 40) / 256
    yuyv = np.tile(np.rint([y, u, y, v]).astype(np.uint8), flat.shape[0] * flat.shape[1] // 2)
    formats = {
        "bgr": (rs.format.bgr8, 3, lambda image: np.ascontiguousarray(image[..., ::-1]), 0),
        "yuyv": (rs.format.yuyv, 2, lambda image: yuyv.view(np.uint16).reshape(flat.shape[:2]), 3),
    }
    for name, (pixel_format, size, encode, tolerance) in formats.items():
        color = realsense_recording.ColorFormat(pixel_format, size, encode)
        camera = realsense_recording.SoftwareCamera(rendered.camera, False, color)
        realsense_recording.record(tmp_path / f"{name}.db3", frames, camera)
        got = list(RealSenseFileSource(tmp_path / f"{name}.db3"))
        assert len(got) == 3, name
        assert np.abs(got[0].image.astype(int) - flat).max() <= tolerance, name


def test_an_unknown_format_is_refused():
    with pytest.raises(SourceError, match=r"cam has colour in the format y16, .* record rgb8, bgr8"):
        to_rgb(np.zeros((2, 2, 1), np.uint16), "y16", "cam")


@pytest.mark.parametrize("suffix", [".db3", ".bag"])
def test_files_that_are_no_recording(tmp_path, suffix):
    path = tmp_path / f"noise{suffix}"
    with pytest.raises(SourceError, match=r"no recording at .*noise"):
        RealSenseFileSource(path)
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(SourceError, match=r"is no RealSense recording that librealsense can read .*; a bag of ROS has"):
        open_source(SourceSpec(str(path), kind="realsense"))


# lenses


COEFFS = (0.12, -0.25, 0.001, -0.0015, 0.08)


@pytest.mark.parametrize("model", ["brown_conrady", "inverse_brown_conrady"])
def test_brown_conrady_is_taken_as_it_is(rendered, realsense_recording, model):
    """OpenCV's own model: the fit goes through the library's undistortion, in float32, and must return its numbers."""
    intrinsics = realsense_recording.intrinsics_of(rendered.camera, getattr(rs.distortion, model), COEFFS)
    np.testing.assert_allclose(camera_of(rs, intrinsics, "cam").distortion, COEFFS, atol=2e-3)
    half = realsense_recording.intrinsics_of(rendered.camera, intrinsics.model, [0.5 * c for c in COEFFS])
    camera = camera_of(rs, half, "cam")
    for uv in ([0.0, 0.0], [159.0, 0.0], [20.0, 110.0], [80.0, 60.0]):
        expected = rs.rs2_deproject_pixel_to_point(half, uv, 1.0)[:2]
        xy = torch.tensor([(uv[0] - camera.cx) / camera.fx, (uv[1] - camera.cy) / camera.fy], dtype=torch.float64)
        assert np.abs(camera.fx * (undistort(xy, camera.distortion).numpy() - expected)).max() < 0.15, uv


def test_a_lens_that_the_library_cannot_undistort_is_fitted_to_what_it_projects(rendered, realsense_recording):
    """The modified model applies the tangential part to points already distorted: nearly the same numbers."""
    model = rs.distortion.modified_brown_conrady
    camera = camera_of(rs, realsense_recording.intrinsics_of(rendered.camera, model, COEFFS), "cam")
    np.testing.assert_allclose(camera.distortion, COEFFS, atol=5e-3)


def test_a_lens_that_the_model_does_not_describe_is_refused(rendered, realsense_recording):
    """A fisheye of 100 degrees and more."""
    wide = replace(rendered.camera, fx=45.0, fy=45.0)
    fisheye = realsense_recording.intrinsics_of(wide, rs.distortion.kannala_brandt4, (0.4, -0.3, 0.3, -0.1, 0.0))
    with pytest.raises(CalibrationError, match=r"cam has a lens of model .*kannala_brandt4.*--calib FILE"):
        camera_of(rs, fisheye, "cam")


# cameras


@pytest.fixture
def plugged_in(rendered, realsense_recording, monkeypatch) -> Iterator:
    """A camera that sends the rendered frames, and delays made short."""
    library = realsense_recording.PluggedIn(realsense_recording.SoftwareCamera(rendered.camera), rendered.frames)
    monkeypatch.setattr(realsense_camera, "import_realsense", lambda: library)
    monkeypatch.setattr(realsense, "POLL_MS", 50)
    for name, seconds in {"RESET_AFTER_S": 0.4, "VANISH_S": 0.1, "STALL_S": 0.5}.items():
        monkeypatch.setattr(realsense_camera, name, seconds)
    yield library
    library.there = False


def later(seconds: float, action) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def taken(source, count: int) -> list[Frame]:
    frames = [frame for frame, _ in zip(source, range(count), strict=False)]
    source.close()
    return frames


def test_a_camera_delivers_colour_and_depth_at_the_time_of_capture(plugged_in, rendered):
    before_ns = time.time_ns()
    source = open_camera(CameraSpec("realsense", max_frames=20))
    assert source.live and source.name == "realsense:0001" and source.camera.fx == pytest.approx(rendered.camera.fx)
    frames = taken(source, 99)
    assert [frame.id for frame in frames] == list(range(20))
    for frame in frames:
        truth = next(t for t in rendered.frames if np.array_equal(t.image, frame.image))
        np.testing.assert_allclose(frame.depth, truth.depth, atol=0.000501)
    steps = np.diff([frame.time_ns for frame in frames]) * 60 / 1e9
    assert np.abs(steps - steps.round()).max() < 1e-3 and steps.min() > 0.9  # the camera's stamps, some frames left out
    assert before_ns - 10**9 < frames[0].time_ns < frames[-1].time_ns < time.time_ns() + 10**9


def test_without_depth_none_is_asked_for(plugged_in):
    frames = taken(open_camera(CameraSpec("realsense:0001", with_depth=False)), 3)
    assert plugged_in.started == [["color"]]
    assert [frame.depth for frame in frames] == [None] * 3


def test_depth_of_a_camera_that_measures_none(rendered, realsense_recording, monkeypatch, plugged_in):
    plugged_in.camera = realsense_recording.SoftwareCamera(rendered.camera, with_depth=False)
    assert taken(RealSenseSource(), 1)[0].depth is None
    with pytest.raises(SourceError, match="realsense:0001 has no mode with colour and depth"):
        RealSenseSource(with_depth=True)


def test_a_size_that_the_camera_lacks_is_replaced_with_a_warning(plugged_in, caplog):
    source = RealSenseSource(size=(1280, 720), fps=15.0)
    source.close()
    assert (source.camera.width, source.camera.height) == (160, 120)
    assert "realsense:0001 gives 160x120 at 30, not the 1280x720 at 15 asked for" in caplog.text
    assert plugged_in.refused[0] == ("color", 1280, 720, "rgb8", 15)
    assert ("color", 640, 480, "rgb8", 30) in plugged_in.refused and plugged_in.started == [["color", "depth"]]


def test_what_is_tried_first():
    first = list(modes((None, None), None, None))
    assert first[:2] == [Mode((640, 480), 30, (640, 480)), Mode((640, 480), 30, (848, 480))]
    assert [mode.depth_size for mode in modes((848, 480), 60.0, False)] == [None] * 5
    assert next(modes((848, 480), 60.0, False)) == Mode((848, 480), 60, None)
    assert next(modes((1280, None), None, True)) == Mode((1280, 0), 30, (1280, 0))
    assert first[-1] == Mode((0, 0), 0, None, any_format=True)
    assert all(mode.depth_size is not None for mode in modes((None, None), None, True))


def test_a_camera_that_is_silent_at_first_is_reset_once(plugged_in, caplog):
    plugged_in.silent = True
    frames = taken(RealSenseSource(), 3)
    assert len(frames) == 3 and plugged_in.resets == 1 and len(plugged_in.started) == 2
    assert caplog.text.count("sends nothing: resetting it") == 1


def test_a_camera_that_stays_silent_is_given_up(plugged_in, monkeypatch):
    monkeypatch.setattr(realsense_camera, "OPEN_S", 1.5)
    plugged_in.fps = 0.1
    with pytest.raises(SourceError, match=r"realsense:0001 gives no image within 1.5 s"):
        RealSenseSource()
    assert plugged_in.resets == 1


def test_a_camera_that_is_plugged_in_again_goes_on(plugged_in, caplog):
    caplog.set_level(logging.INFO, "slam")
    source, frames = RealSenseSource(reconnect_s=5.0), []
    for frame in source:
        frames.append(frame)
        if frame.id == 5:
            plugged_in.there = False
            later(1.0, lambda: setattr(plugged_in, "there", True))
        if frame.id == 12:
            break
    source.close()
    gaps_s = np.diff([frame.time_ns for frame in frames]) / 1e9
    assert [frame.id for frame in frames] == list(range(13)) and plugged_in.resets == 0
    assert gaps_s.min() > 0 and 0.9 < gaps_s.max() < 4
    assert "trying again for 5 s" in caplog.text and "realsense:0001 again after" in caplog.text


def test_a_camera_that_is_gone_ends_the_run_in_order(plugged_in, tmp_path, capsys):
    """With what it delivered recorded, depth included: the recording is metric by itself."""
    out, kept = tmp_path / "run", tmp_path / "kept"

    def unplug() -> None:
        end_s = time.monotonic() + 60
        while len(list(kept.glob("depth/*"))) < RECORDED and time.monotonic() < end_s:
            time.sleep(0.02)
        plugged_in.there = False

    threading.Thread(target=unplug, daemon=True).start()
    arguments = ["--camera", "realsense", "--record", str(kept), "--out", str(out), "--reconnect", "0.3", *SMALL]
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("v2d-slam: no more images from realsense:0001, given up after 0.3 s")
    again = list(open_source(SourceSpec(str(kept))))
    assert len(again) >= RECORDED and all(frame.depth is not None for frame in again)
    assert [frame.depth for frame in open_source(SourceSpec(str(kept), with_depth=False))] == [None] * len(again)
    assert set(read_tum(out / "trajectory.txt").time_ns.tolist()) <= {frame.time_ns for frame in again}


def test_stamps_of_the_cameras_own_counter_become_times(monkeypatch):
    class Stamped:
        def __init__(self, ms: float, domain) -> None:
            self.get_timestamp, self.get_frame_timestamp_domain = lambda: ms, lambda: domain

    counter, shared = rs.timestamp_domain.hardware_clock, rs.timestamp_domain.global_time
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    clock = EpochClock(rs)
    assert [clock(Stamped(ms, counter)) - 1_700_000_000_000_000_000 for ms in (5000.0, 5033.5, 2.0, 35.0)] == [
        0,
        33_500_000,
        0,  # the counter has begun anew
        33_000_000,
    ]
    assert clock(Stamped(1.6e12, shared)) == 1_600_000_000_000_000_000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--camera", "realsense"], 1, "no RealSense camera: is it plugged in"),
        (["--camera", "realsense:12345"], 1, "no RealSense camera 12345: is it plugged in?"),
        (["--camera", "realsense:1 2"], 2, "neither realsense nor realsense:SERIAL"),
        (["--camera", "realsense", "--width", "0"], 2, "--width must be from 1"),
    ],
)
def test_a_mistake_gets_one_line_at_once(arguments, code, message, tmp_path, capsys):
    if code == 1 and len(rs.context().query_devices()):
        pytest.skip("a RealSense camera is plugged in")
    start_s = time.monotonic()
    assert main([*arguments, "--out", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert time.monotonic() - start_s < 2 and not (tmp_path / "run").exists()


def test_another_serial_names_those_that_are_there(plugged_in):
    with pytest.raises(SourceError, match=r"no RealSense camera 77: is it plugged in\?; there are: 0001"):
        RealSenseSource("realsense:77")


def test_without_the_package(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(SourceError, match=r"pip install pyrealsense2 .*Linux and Windows"):
        RealSenseFileSource(tmp_path / "a.db3")
    assert main(["--camera", "realsense"]) == 1
    assert capsys.readouterr().err.startswith("v2d-slam: RealSense needs the package pyrealsense2: pip install")


# the program


def test_a_run_over_a_recording(db3, rendered, realsense_recording, tmp_path):
    """The program takes it as any sequence: every frame has its pose, at the camera's stamps."""
    out = tmp_path / "run"
    options = ["--out", str(out), "--deterministic", *SMALL]
    assert main(["--sequence", str(db3), "--max-frames", "40", "--use-depth", "off", *options]) == 0
    trajectory = read_tum(out / "trajectory.txt")
    assert trajectory.time_ns.tolist() == [realsense_recording.stamp_ns(frame) for frame in rendered.frames[:40]]


def test_a_run_over_a_recording_with_depth_is_metric(db3, rendered, realsense_recording, tmp_path):
    """Every frame has its pose in metres: no scale is fitted. A monocular run's unit is the median depth, about 2 m."""
    out = tmp_path / "run"
    assert main(["--sequence", str(db3), "--out", str(out), "--deterministic", *SMALL]) == 0
    times = [realsense_recording.stamp_ns(frame) for frame in rendered.frames[:60]]
    truth = Trajectory(np.array(times), rendered.truth.T_wc[:60])
    estimate = read_tum(out / "trajectory.txt")
    score = ate(estimate, truth, "se3")
    assert estimate.time_ns.tolist() == times and score.rmse <= 0.02
    assert path_length(truth) > 10 * 0.02  # standing still would not do
    assert json.loads((out / "run.json").read_text())["scale_source"].startswith("metric")

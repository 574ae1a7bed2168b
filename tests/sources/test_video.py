"""Videos: every frame, strictly increasing stamps, and what is refused."""

import cv2
import numpy as np
import pytest

from slam.errors import SourceError, UsageError
from slam.geometry.camera import Camera
from slam.io.calibration import write_calibration
from slam.sources.sequence import CameraChoice, FrameWindow
from slam.sources.video import VideoSource


@pytest.mark.parametrize(("name", "code"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "MJPG")])
def test_frames_and_stamps(tmp_path, scenes, name: str, code: str):
    source = VideoSource(scenes.video(tmp_path / name, 12, 25.0, code))
    frames = list(source)
    assert [frame.id for frame in frames] == list(range(12)) and source.count == 12
    numbers = np.array([scenes.number_of(frame.image) for frame in frames])
    assert np.abs(numbers - np.arange(12)).max() <= (code == "mp4v")  # that one is lossy beyond a step
    assert np.diff([frame.time_ns for frame in frames]).tolist() == [40000000] * 11
    assert (source.camera.width, source.camera.height) == (32, 24) and frames[0].camera == source.camera
    assert len(list(source)) == 12  # again from the start


def test_window(tmp_path, scenes):
    source = VideoSource(scenes.video(tmp_path / "a.avi", 12), FrameWindow(3, 2, 6))
    frames = list(source)
    assert [scenes.number_of(frame.image) for frame in frames] == [3, 5, 7] and source.count == 3
    assert [frame.time_ns for frame in frames] == [120000000, 200000000, 280000000]
    with pytest.raises(SourceError, match=r"--start 12 is past the end of .*: it has 12 frames"):
        VideoSource(scenes.video(tmp_path / "a.avi", 12), FrameWindow(12))


def test_rate_of_the_user_replaces_the_stamps(tmp_path, scenes):
    frames = VideoSource(scenes.video(tmp_path / "a.avi", 4), fps=10.0)
    assert [frame.time_ns for frame in frames] == [0, 100000000, 200000000, 300000000]
    with pytest.raises(UsageError, match="--fps must be"):
        VideoSource(tmp_path / "a.avi", fps=-5.0)


class WithoutStamps:
    """A capture that gives these POS_MSEC values instead of its own."""

    def __init__(self, path: str, stamps: list[float]) -> None:
        self.capture = cv2.VideoCapture(path)
        self.stamps = iter(stamps)

    def get(self, name: int) -> float:
        return next(self.stamps) if name == cv2.CAP_PROP_POS_MSEC else self.capture.get(name)

    def __getattr__(self, name: str) -> object:
        return getattr(self.capture, name)


@pytest.mark.parametrize(
    ("stamps", "times_ms"),
    [
        ([0, 0, 0, 0], [0, 40, 80, 120]),  # none at all
        ([0, 40, 40, 120], [0, 40, 80, 120]),  # one repeats
        ([float("nan"), -1, 500, 100], [40, 80, 500, 540]),  # nonsense, then a jump back
    ],
)
def test_stamps_always_increase(tmp_path, scenes, monkeypatch, stamps: list[float], times_ms: list[int]):
    source = VideoSource(scenes.video(tmp_path / "a.avi", 4))
    capture = WithoutStamps(str(tmp_path / "a.avi"), stamps)
    monkeypatch.setattr(source, "_opened", lambda: capture)
    times = [frame.time_ns for frame in source]
    np.testing.assert_allclose(times, np.array(times_ms) * 1e6, atol=1)


def test_what_is_no_video(tmp_path):
    with pytest.raises(SourceError, match=r"no video at .*a.mp4"):
        VideoSource(tmp_path / "a.mp4")
    for name, content, what in (
        ("empty.avi", b"", "it is empty; copy it again"),
        ("a.mp4", b"<!DOCTYPE html>\n<html>", "it is a web page; give the address of the video file itself"),
        ("transforms.json", '{"ä": '.encode() * 90, "it is text; of a recording give the folder"),
        ("scene.sens", b"\4\0\0\0", "it is a stream of ScanNet; export it"),
        ("b.mp4", bytes(range(256)), "if a player shows it"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=f"{name} is no video.*{what}"):
            VideoSource(tmp_path / name)
    with pytest.raises(SourceError, match=r"is a folder, not a video file.*--images"):
        VideoSource(tmp_path)


def test_cut_off_video_gives_what_is_left_and_warns(tmp_path, scenes, caplog):
    path = scenes.video(tmp_path / "a.avi", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = VideoSource(path)
    source.stated = 40  # what a container with its index in front would say
    frames = list(source)
    assert 5 < len(frames) < 40
    assert f"a.avi is cut off: {len(frames)} of 40 frames are there" in caplog.text


def test_calibration(tmp_path, scenes, caplog):
    path = scenes.video(tmp_path / "a.avi", 2)
    assert VideoSource(path, choice=CameraChoice(hfov_deg=90)).camera.fx == pytest.approx(16)
    assert caplog.text == ""
    VideoSource(path)
    assert "guessing a lens" in caplog.text
    (tmp_path / "a.yaml").write_text("width: 32\nheight: 24\ncalibration: [30, 31, 15.5, 11.5]\n")
    assert VideoSource(path).camera.fy == 31


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_images_are_turned_as_the_file_says(tmp_path, scenes, degrees: int, corner: tuple[int, int]):
    """The corner that was on top on the left goes around clockwise."""
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    marked = np.zeros((48, 64, 3), np.uint8)
    marked[:16, :16] = 255
    for _ in range(3):
        writer.write(marked)
    writer.release()
    scenes.turn_video(tmp_path / "a.mp4", degrees)
    source = VideoSource(tmp_path / "a.mp4", choice=CameraChoice(hfov_deg=60))
    frames = list(source)
    assert source.rotation_deg == degrees and len(frames) == 3
    assert frames[2].image.shape == ((64, 48, 3) if degrees in (90, 270) else (48, 64, 3))
    assert (source.camera.height, source.camera.width) == frames[2].image.shape[:2]
    bright = {c: frames[2].image[c].mean() > 200 for c in ((0, 0), (0, -1), (-1, -1), (-1, 0))}
    assert bright == {c: c == corner for c in bright}


@pytest.mark.parametrize("degrees", [90, 270])
def test_the_calibration_of_the_sensor_is_turned_with_its_images(tmp_path, scenes, caplog, degrees: int):
    """The spot on the principal point stays on it, with the edges of its cross; half a pixel off would be seen."""
    sensor = Camera(64, 48, 60.0, 61.0, 26.5, 20.5, (0.1, 0.01, 0.002, -0.001))
    write_calibration(tmp_path / "a.yaml", sensor)
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    image = np.zeros((48, 64, 3), np.uint8)
    image[20:22, 26:28] = 255  # its middle is (26.5, 20.5)
    for _ in range(3):
        writer.write(image)
    writer.release()
    scenes.turn_video(tmp_path / "a.mp4", degrees)
    source = VideoSource(tmp_path / "a.mp4")
    assert source.camera == sensor.turned(degrees) and (source.camera.width, source.camera.height) == (48, 64)
    rows, columns = np.nonzero(next(iter(source)).image[..., 0] > 128)
    assert (columns.mean(), rows.mean()) == pytest.approx((source.camera.cx, source.camera.cy), abs=0.1)
    assert f"is for 64x48 images; it is turned clockwise by {degrees} degrees" in caplog.text


def test_closing_in_the_middle(tmp_path, scenes):
    source = VideoSource(scenes.video(tmp_path / "a.avi", 5))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert len(list(source)) == 5

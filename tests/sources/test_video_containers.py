"""Videos that are trimmed, cut off, of uneven rate, or coded in a way that OpenCV does not know."""

from pathlib import Path

import cv2
import pytest

from slam.errors import SourceError
from slam.sources.container import examine
from slam.sources.sequence import CameraChoice
from slam.sources.video import VideoSource

VIDEOS = Path(__file__).parent / "videos"
LENS = CameraChoice(hfov_deg=60)


def test_stamps_of_an_uneven_rate_are_kept():
    times_ms = [frame.time_ns / 1e6 for frame in VideoSource(VIDEOS / "uneven.mp4", choice=LENS)]
    assert times_ms == pytest.approx([0, 10, 100, 110, 250, 260, 300, 450, 451, 500, 700, 1000], abs=0.1)


def test_a_trimmed_video_is_not_damaged(scenes, caplog):
    """Frames before the edit are in the file, for decoding, and not shown."""
    source = VideoSource(VIDEOS / "trimmed.mp4", choice=LENS)
    frames = list(source)
    assert len(frames) == source.count == 30 and frames[0].time_ns == 0
    assert scenes.number_of(frames[0].image) == pytest.approx(10, abs=1)
    assert caplog.text == ""


def test_a_video_without_its_first_key_frame_begins_at_the_next(scenes, caplog):
    frames = list(VideoSource(VIDEOS / "no_key_frame.mp4", choice=LENS))
    assert len(frames) == 25 and scenes.number_of(frames[0].image) == pytest.approx(15, abs=1)
    assert caplog.text.count("\n") == 1
    assert "the first 0.44 s of" in caplog.text and "it does not begin with a key frame; 25 frames" in caplog.text


def test_a_copy_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path, caplog):
    data = (VIDEOS / "index_first.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    frames = list(VideoSource(tmp_path / "cut.mp4", choice=LENS))
    assert 10 < len(frames) < 40
    assert f"cut.mp4 is cut off: {len(frames)} of 40 frames are there" in caplog.text and caplog.text.count("\n") == 1


@pytest.mark.parametrize(("name", "code"), [("a.mkv", "MJPG"), ("a.avi", "MJPG")])
def test_other_containers_that_are_cut_off(tmp_path, scenes, caplog, name, code):
    path = scenes.video(tmp_path / name, 40, code=code)
    assert not examine(path).is_cut_off
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert examine(path).is_cut_off
    frames = list(VideoSource(path, choice=LENS))
    assert 20 < len(frames) < 40
    assert caplog.text.count("\n") == 1 and f"{name} is cut off: {len(frames)}" in caplog.text


def test_a_recording_without_its_index_is_named(tmp_path, scenes):
    path = scenes.video(tmp_path / "a.mp4", 40, code="mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(SourceError, match=r"a.mp4 is no video that can be read: it has no index \(moov\).*untrunc"):
        VideoSource(path)


def test_a_codec_that_is_not_known_is_named_with_the_remedy():
    path = VIDEOS / "av1.mp4"
    capture = cv2.VideoCapture(str(path))
    if capture.read()[0]:
        pytest.skip("this OpenCV decodes AV1")
    with pytest.raises(
        SourceError, match=r"\(codec (AV01|av01)\); bring it to H.264: ffmpeg -i .*av1.mp4 -c:v libx264"
    ):
        VideoSource(path)


def test_a_bag_given_as_video_is_told(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(SourceError, match=r"a.mcap is no video; for a ROS bag or a RealSense recording use --sequence"):
        VideoSource(tmp_path / "a.mcap")

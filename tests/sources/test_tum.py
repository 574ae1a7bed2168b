"""TUM folders: exact stamps, association, calibration, and what is refused."""

import logging

import numpy as np
import pytest

from slam.errors import CalibrationError, SourceError, UsageError
from slam.geometry.camera import Camera
from slam.sources.groundtruth import read_groundtruth
from slam.sources.sequence import CameraChoice, FrameWindow
from slam.sources.tum import TumSource, associate

STAMPS = ["1305031102.175304", "1305031102.211214", "1305031102.243211", "1305031102.2753260001", "1305031102.311267"]
TIMES_NS = [1305031102175304000, 1305031102211214000, 1305031102243211000, 1305031102275326000, 1305031102311267000]


def test_frames_are_complete_and_in_order(tmp_path, scenes):
    source = TumSource(scenes.tum_folder(tmp_path / "s", STAMPS))
    frames = list(source)
    assert [frame.id for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_ns for frame in frames] == TIMES_NS
    assert [scenes.number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].image.shape == (24, 32, 3) and frames[0].image.dtype == np.uint8
    assert source.camera == frames[0].camera == Camera(32, 24, 30, 31, 15.5, 11.5)
    assert (source.count, source.skipped, source.live) == (5, 0, False)
    assert len(list(source)) == 5  # again from the start
    assert frames[0].depth is None
    source.close()


@pytest.mark.parametrize(
    ("window", "taken"),
    [
        (FrameWindow(start=2), [2, 3, 4]),
        (FrameWindow(stride=2), [0, 2, 4]),
        (FrameWindow(1, 2, 3), [1, 3]),
        (FrameWindow(max_frames=99), [0, 1, 2, 3, 4]),
    ],
)
def test_window_counts_frames_of_the_recording(tmp_path, scenes, window: FrameWindow, taken: list[int]):
    source = TumSource(scenes.tum_folder(tmp_path / "s", STAMPS), window)
    frames = list(source)
    assert [scenes.number_of(frame.image) for frame in frames] == taken
    assert [frame.id for frame in frames] == list(range(len(taken)))
    assert [frame.time_ns for frame in frames] == [TIMES_NS[n] for n in taken]
    assert source.count == len(taken)


def test_senseless_windows(tmp_path, scenes):
    for options in ((-1, 1, None), (0, 0, None), (0, 1, 0)):
        with pytest.raises(UsageError, match=r"--start must be >= 0"):
            FrameWindow(*options)
    with pytest.raises(SourceError, match=r"--start 5 is past the end of .*: it has 5 frames"):
        TumSource(scenes.tum_folder(tmp_path / "s", STAMPS), FrameWindow(start=5))


def test_depth_is_the_nearest_within_20_ms(tmp_path, scenes):
    """Depth 4 ms late; the third is missing, the last 30 ms late: those two frames have none."""
    path = scenes.tum_folder(tmp_path / "s", STAMPS)
    scenes.add_depth(path, ["1305031102.179304", "1305031102.215214", "1305031102.279326", "1305031102.341267"])
    depths = [frame.depth for frame in TumSource(path, with_depth=True)]
    assert [None if depth is None else float(depth[1, 1]) for depth in depths] == [1.0, 2.0, None, 3.0, None]
    assert depths[0].dtype == np.float32 and depths[0][0, 0] == 0


def test_association_is_one_to_one_and_prefers_the_closest():
    """Both a's are nearest to b = 10; the closer one gets it, the other takes what is left in reach."""
    a, b = np.array([7, 11, 100]), np.array([2, 10, 130])
    assert associate(a, b, 5) == [(0, 0), (1, 1)]
    assert associate(a, b, 3) == [(1, 1)]
    assert associate(a, b, 30) == [(0, 0), (1, 1), (2, 2)]


def test_association_agrees_with_a_search_over_all_pairs():
    rng = np.random.default_rng(5)
    a, b = np.sort(rng.choice(2000, 60, False)), np.sort(rng.choice(2000, 50, False))
    left, expected = sorted((abs(int(x - y)), i, j) for i, x in enumerate(a) for j, y in enumerate(b)), []
    while left and left[0][0] <= 20:
        _, i, j = left[0]
        expected.append((i, j))
        left = [pair for pair in left if pair[1] != i and pair[2] != j]
    assert associate(a, b, 20) == sorted(expected)


def test_images_named_by_stamps_need_no_list(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", ["10.5", "9.25", "100.125"])
    (path / "rgb.txt").unlink()
    frames = list(TumSource(path))
    assert [frame.time_ns for frame in frames] == [9250000000, 10500000000, 100125000000]
    assert [scenes.number_of(frame.image) for frame in frames] == [1, 0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.0 a.png\n2.0\n", r"rgb.txt, line 2: expected 'timestamp filename', got '2.0'"),
        ("a.png 1.0\n", r"rgb.txt, line 1: 'a.png' is no time; expected"),
        ("# nothing\n", r"rgb.txt lists no images"),
    ],
)
def test_bad_lists_are_refused_with_the_line(tmp_path, text: str, message: str):
    (tmp_path / "rgb.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        TumSource(tmp_path)


def test_no_list_at_all(tmp_path):
    with pytest.raises(SourceError, match=r"has no rgb.txt, nor images named by time stamps in rgb/.*use --images"):
        TumSource(tmp_path)


def test_asked_for_depth_that_is_not_there(tmp_path, scenes):
    with pytest.raises(SourceError, match=r"has no depth.txt"):
        TumSource(scenes.tum_folder(tmp_path / "s", STAMPS), with_depth=True)


def test_corrupt_images_are_skipped_and_counted(tmp_path, scenes, caplog):
    path = scenes.tum_folder(tmp_path / "s", STAMPS)
    (path / f"rgb/{STAMPS[1]}.png").write_bytes(b"junk")
    (path / f"rgb/{STAMPS[3]}.png").unlink()
    scenes.save(path / f"rgb/{STAMPS[4]}.png", scenes.image(4, 16, 12))
    source = TumSource(path)
    assert [scenes.number_of(frame.image) for frame in source] == [0, 2]
    assert source.skipped == 3
    assert [frame.id for frame in source] == [0, 1] and source.skipped == 3
    for stamp, problem in ((STAMPS[1], "damaged"), (STAMPS[3], "No such file"), (STAMPS[4], "is 16x12")):
        assert any(stamp in r.message and problem in r.message for r in caplog.records if r.levelno == logging.WARNING)


def test_no_readable_image_at_all(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", STAMPS)
    for file in (path / "rgb").iterdir():
        file.write_bytes(b"junk")
    with pytest.raises(SourceError, match=r"none of the 5 images of .* can be read; first: cannot read the image"):
        TumSource(path)


def test_corrupt_depth_leaves_the_frame(tmp_path, scenes, caplog):
    path = scenes.tum_folder(tmp_path / "s", STAMPS[:2])
    scenes.add_depth(path, STAMPS[:2])
    (path / f"depth/{STAMPS[0]}.png").write_bytes(b"junk")
    assert [frame.depth is None for frame in TumSource(path, with_depth=True)] == [True, False]
    assert "a frame goes without depth" in caplog.text and STAMPS[0] in caplog.text


def test_depth_of_another_size_is_refused(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", STAMPS[:1])
    scenes.add_depth(path, STAMPS[:1])
    scenes.save(path / f"depth/{STAMPS[0]}.png", np.ones((12, 16), np.uint16))
    with pytest.raises(SourceError, match=r"is 16x12, its image 32x24; depth must be aligned"):
        list(TumSource(path, with_depth=True))


def test_calibration_of_the_user_goes_first(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", STAMPS)
    (tmp_path / "c.txt").write_text("40 41 16 12\n")
    source = TumSource(path, choice=CameraChoice(calib=tmp_path / "c.txt"))
    assert source.camera == Camera(32, 24, 40, 41, 16, 12)
    camera = TumSource(path, choice=CameraChoice(hfov_deg=90.0)).camera
    assert (camera.fx, camera.cx, camera.cy) == (pytest.approx(16.0), 15.5, 11.5)


def test_calibration_for_other_images_is_refused(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", STAMPS)
    (path / "calibration.yaml").write_text("width: 64\nheight: 48\ncalibration: [60, 60, 31.5, 23.5]\n")
    with pytest.raises(CalibrationError, match=r"calibration.yaml is for 64x48 images but these are 32x24.* by 0.5"):
        TumSource(path)


@pytest.mark.parametrize(
    ("name", "fx", "k1"),
    [
        ("rgbd_dataset_freiburg1_desk", 517.3, 0.2624),
        ("rgbd_dataset_freiburg2_xyz", 520.9, 0.2312),
        ("fr3_office", 535.4, None),
    ],
)
def test_benchmark_folders_have_their_calibration(tmp_path, scenes, name: str, fx: float, k1: float | None):
    path = scenes.tum_folder(tmp_path / name, [], calibration=False)
    scenes.save(path / "rgb/1.png", scenes.image(0, 640, 480))
    (path / "rgb.txt").write_text("1.0 rgb/1.png\n")
    camera = TumSource(path).camera
    assert camera.fx == fx and (camera.distortion[0] if camera.distortion else None) == k1
    scenes.save(path / "rgb/1.png", scenes.image(0, 320, 240))
    with pytest.raises(CalibrationError, match=r"the known calibration of .* is for 640x480 images but these are 320x"):
        TumSource(path)


def test_guessed_calibration_says_so(tmp_path, scenes, caplog):
    camera = TumSource(scenes.tum_folder(tmp_path / "s", STAMPS, calibration=False)).camera
    assert camera.fx == camera.fy == pytest.approx(16 / np.tan(np.pi / 6))
    assert "has no calibration: guessing a lens of 60 degrees" in caplog.text and "--hfov" in caplog.text


def test_calib_and_hfov_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match=r"--calib and --hfov exclude each other"):
        CameraChoice(calib=tmp_path, hfov_deg=60.0)
    with pytest.raises(UsageError, match=r"--hfov must be from 2 to 160 degrees, got 180"):
        CameraChoice(hfov_deg=180.0)


def test_ground_truth(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", STAMPS)
    with pytest.raises(SourceError, match=r"has no ground truth"):
        read_groundtruth(path)
    with pytest.raises(SourceError, match=r"no ground truth at .*nowhere"):
        read_groundtruth(tmp_path / "nowhere")
    (path / "groundtruth.txt").write_text("# x\n1305031102.1758 1 2 3 0 0 0.6 0.8\n")
    truth = read_groundtruth(path)
    assert truth.time_ns.tolist() == [1305031102175800000]
    # turn about z with cos(a / 2) = 0.8: cos a = 0.28, sin a = 0.96
    np.testing.assert_allclose(truth.T_wc[0], [[0.28, -0.96, 0, 1], [0.96, 0.28, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_development_sequences_open(development_data):
    """Real recordings, where present: every listed frame arrives, depth is metric, truth covers the frames."""
    for path in sorted(p for p in development_data.iterdir() if (p / "rgb.txt").is_file()):
        has_depth = (path / "depth.txt").is_file()
        source = TumSource(path, FrameWindow(stride=25), with_depth=has_depth)
        frames = list(source)
        assert len(frames) == source.count and source.skipped == 0
        if has_depth:
            depth = next(frame.depth for frame in frames if frame.depth is not None)
            assert 0.1 < np.median(depth[depth > 0]) < 6
        truth = read_groundtruth(path)
        assert truth.time_ns[0] - 10**8 < frames[0].time_ns and frames[-1].time_ns < truth.time_ns[-1] + 10**8

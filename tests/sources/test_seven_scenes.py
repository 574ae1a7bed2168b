"""7-Scenes folders: frames, depth in millimetres with its two kinds of unknown, poses."""

import numpy as np
import pytest

from slam.errors import SourceError
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import read_groundtruth
from slam.sources.locate import layout


@pytest.fixture
def scene(tmp_path, scenes):
    """A scene of two sequences; frame n of seq-01 is at x = n."""
    for sequence, numbers in (("seq-01", (0, 1, 10)), ("seq-02", (0,))):
        for n in numbers:
            base = tmp_path / "chess" / sequence / f"frame-{n:06d}"
            scenes.save(base.with_suffix(".color.png"), scenes.image(n, 640, 480))
            depth = np.full((480, 640), 1500, np.uint16)
            depth[0, :2] = 0, 65535
            scenes.save(base.with_suffix(".depth.png"), depth)
            base.with_suffix(".pose.txt").write_text(
                f"0 -1 0 {n}\t\n 1.0e+000 0 0 2\n 0 0 1 3\n 0 0 0 1\n", encoding="utf-8"
            )
    return tmp_path / "chess"


def test_frames(scene, scenes):
    source = open_source(SourceSpec(str(scene), with_depth=True))
    frames = list(source)
    assert [scenes.number_of(frame.image) for frame in frames] == [0, 1, 10]
    assert [frame.time_ns for frame in frames] == [0, 33333333, 333333333]
    assert (source.camera.fx, source.camera.fy) == (585, 585)
    assert frames[0].depth[0].tolist()[:3] == [0, 0, 1.5]
    assert open_source(SourceSpec(str(scene / "seq-02"))).count == 1


def test_ground_truth_has_the_stamps_of_the_frames(scene):
    truth = read_groundtruth(scene)
    assert truth.time_ns.tolist() == [0, 33333333, 333333333]
    np.testing.assert_allclose(truth.T_wc[2], [[0, -1, 0, 10], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0\n", "seq-01/frame-000001.pose.txt is no matrix: expected 4x4 numbers"),
        ("2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1", "seq-01: pose 1 is no rigid motion: its 3x3 part is no rotation"),
        ("1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1", "seq-01: pose 1 is no rigid motion: its 3x3 part is no rotation"),
    ],
)
def test_bad_poses_are_refused(scene, text: str, message: str):
    (scene / "seq-01/frame-000001.pose.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_groundtruth(scene)


def test_poses_of_lost_frames_are_left_out(scene, caplog):
    (scene / "seq-01/frame-000001.pose.txt").write_text("nan 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    assert read_groundtruth(scene).time_ns.tolist() == [0, 333333333]
    assert "1 of 3 poses are not finite or zero" in caplog.text


def test_what_is_no_scene(tmp_path, scene):
    with pytest.raises(SourceError, match=r"has no frame-XXXXXX.color.png, nor a folder seq-XX"):
        layout("7scenes").recording(tmp_path)
    for file in (scene / "seq-02").glob("*.pose.txt"):
        file.unlink()
    with pytest.raises(SourceError, match=r"seq-02 has no ground truth"):
        read_groundtruth(scene / "seq-02")


def test_missing_depth_leaves_the_frame(scene, caplog):
    (scene / "seq-01/frame-000001.depth.png").unlink()
    source = open_source(SourceSpec(str(scene), with_depth=True))
    assert [frame.depth is None for frame in source] == [False, True, False]
    assert "1 of 3 images of" in caplog.text and "go without depth" in caplog.text

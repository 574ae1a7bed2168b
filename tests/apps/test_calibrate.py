"""v2d-calibrate from images on disk to a calibration file that v2d-slam reads."""

from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.calibrate import main
from slam.calibration.boards import Board, BoardConfig
from slam.errors import SourceError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.calibration import read_calibration

LENS = Camera(320, 240, 262.0, 264.0, 164.0, 115.0, (-0.15, 0.03, 0.0, 0.0))


@pytest.fixture(scope="module")
def folder(board_images, tmp_path_factory) -> Path:
    """Twelve images of a 7x5 checkerboard (two cut off by the edge), the first of them twice, and one without it."""
    path = tmp_path_factory.mktemp("board")
    board = Board(BoardConfig(columns=7, rows=5))
    shots = [board_images.photograph(board, LENS, *pose) for pose in board_images.board_poses(12)]
    for k, shot in enumerate([shots[0], *shots, np.full_like(shots[0], 100)]):
        assert cv2.imwrite(str(path / f"{k:02d}.png"), shot)
    return path


def test_images_become_a_calibration(folder, tmp_path, capsys, caplog):
    out = tmp_path / "camera.yaml"
    assert main(["--images", str(folder), "--size", "7x5", "--out", str(out)]) == 0
    camera = read_calibration(out, (320, 240))
    assert camera.fx == pytest.approx(LENS.fx, rel=0.01) and camera.cx == pytest.approx(LENS.cx, abs=2.0)
    said = capsys.readouterr().out
    assert f"--calib {out}" in said and "px RMS" in said
    assert "coverage" in caplog.text and "in 11 of 14 images, 10 differ enough" in caplog.text


def test_images_of_the_other_orientation_are_left_out_and_told(folder, tmp_path, caplog):
    """Which way a camera was turned does not show in images alone."""
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for k, file in enumerate(sorted(folder.iterdir())):
        image = cv2.imread(str(file))
        cv2.imwrite(str(mixed / file.name), np.rot90(image) if k in (0, 1, 6) else image)
    out = tmp_path / "camera.yaml"
    assert main(["--images", str(mixed), "--size", "7x5", "--out", str(out)]) == 0
    camera = read_calibration(out, (320, 240))
    assert camera.fx == pytest.approx(LENS.fx, rel=0.02)
    assert "differ in size: of 5 looked at" in caplog.text and "those of 320x240 are used" in caplog.text


def test_a_video_of_a_charuco_board_becomes_a_calibration(board_images, tmp_path, monkeypatch, capsys):
    """Through the codec, and with every other of 32 images tried."""
    monkeypatch.setattr("apps.calibrate.MAX_TRIED", 16)
    board = Board(BoardConfig("charuco", 7, 5, 0.03, 0.022))
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 30, (LENS.width, LENS.height))
    for pose in board_images.board_poses(16):
        shot = board_images.photograph(board, LENS, *pose)
        writer.write(shot)
        writer.write(np.full_like(shot, 128))  # the frames that are passed over
    writer.release()
    out = tmp_path / "camera.yaml"
    options = ["--board", "charuco", "--size", "7x5", "--square", "0.03", "--marker", "0.022", "--out", str(out)]
    assert main(["--video", str(film), *options]) == 0
    camera = read_calibration(out, (320, 240))
    assert camera.fx == pytest.approx(LENS.fx, rel=0.015) and camera.cx == pytest.approx(LENS.cx, abs=4.0)
    assert "px RMS" in capsys.readouterr().out
    assert main(["--video", str(film), *options, "--board", "checkerboard", "--quiet", "--force"]) == 1
    assert "of the 16 images" in capsys.readouterr().err


def test_a_camera_is_let_go_once_enough_was_seen(board_images, tmp_path, monkeypatch):
    board = Board(BoardConfig(columns=7, rows=5))
    shots = [board_images.photograph(board, LENS, *pose) for pose in board_images.board_poses(24)]

    class Camera24:
        live, camera, closed, taken = True, LENS, False, 0

        def __iter__(self):
            for k in range(1000):
                self.taken += 1
                yield Frame(k, k, shots[k % 24], LENS)

        def close(self):
            self.closed = True

    source = Camera24()
    monkeypatch.setattr("slam.sources.cameras.open_camera", lambda spec: source)
    assert main(["--camera", "webcam:1", "--size", "7x5", "--out", str(tmp_path / "camera.yaml")]) == 0
    assert source.closed and 12 <= source.taken <= 24
    assert read_calibration(tmp_path / "camera.yaml").fx == pytest.approx(LENS.fx, rel=0.01)


def test_a_calibration_is_overwritten_only_by_force(folder, tmp_path, capsys):
    out = tmp_path / "camera.yaml"
    out.write_text("precious")
    assert main(["--images", str(folder), "--size", "7x5", "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err and out.read_text() == "precious"
    assert main(["--images", str(folder), "--size", "7x5", "--out", str(out), "--force"]) == 0
    assert read_calibration(out, (320, 240)).fx == pytest.approx(LENS.fx, rel=0.01)


def test_a_camera_is_let_go_when_it_fails(tmp_path, monkeypatch, capsys):
    class Failing:
        live, camera, closed = True, LENS, False

        def __iter__(self):
            raise SourceError("no more images from webcam")

        def close(self):
            self.closed = True

    source = Failing()
    monkeypatch.setattr("slam.sources.cameras.open_camera", lambda spec: source)
    assert main(["--camera", "webcam", "--out", str(tmp_path / "camera.yaml")]) == 1
    assert source.closed and "no more images" in capsys.readouterr().err


def test_a_wrong_size_is_explained(folder, tmp_path, capsys):
    out = tmp_path / "camera.yaml"
    assert main(["--images", str(folder), "--size", "9x6", "--out", str(out)]) == 1
    error = capsys.readouterr().err.strip()
    assert "a 9x6 checkerboard was found in 0 of the 14 images" in error and "try --size 7x5" in error
    assert "\n" not in error and not out.exists()


def test_a_board_found_by_chance_is_explained_as_a_wrong_size(folder, tmp_path, monkeypatch, capsys):
    find, looks = Board.find, count()
    monkeypatch.setattr(Board, "find", lambda self, image: find(self, image) if next(looks) < 2 else None)
    out = tmp_path / "camera.yaml"
    assert main(["--images", str(folder), "--size", "7x5", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "a 7x5 checkerboard was found in 2 of the 14 images" in error and "check --size" in error
    assert not out.exists()


def test_too_few_views_leave_no_file(folder, tmp_path, capsys):
    few = tmp_path / "few"
    few.mkdir()
    (few / "0.png").write_bytes((folder / "00.png").read_bytes())
    out = tmp_path / "camera.yaml"
    assert main(["--images", str(few), "--size", "7x5", "--out", str(out)]) == 1
    assert "only 1 different views" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--images", "nowhere"], 1, "no folder at nowhere"),
        (["--video", "nowhere.mp4"], 1, "no video at nowhere.mp4"),
        (["--images", "nowhere", "--out", f"{__file__}/lens.yaml"], 1, "cannot write"),
        (["--images", ".", "--size", "9by6"], 2, "9by6"),
        (["--images", ".", "--board", "charuco", "--marker", "1"], 2, "smaller than --square"),
    ],
)
def test_bad_input_is_one_line(options, code, said, capsys):
    assert main(options) == code
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("v2d-calibrate: ") and "\n" not in error


def test_a_board_to_print(tmp_path, capsys):
    assert main(["--make-board", str(tmp_path / "board.png"), "--board", "charuco", "--size", "8x5"]) == 0
    assert "250 x 175 mm" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "board.png")).shape == (7 * 295, 10 * 295, 3)

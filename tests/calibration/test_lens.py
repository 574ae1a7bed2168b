"""Boards are found and cameras calibrated: images rendered through a known lens give that lens back."""

import cv2
import numpy as np
import pytest

from slam.calibration.boards import CHARUCO, CHECKERBOARD, Board, BoardConfig, write_board
from slam.calibration.lens import GOOD_VIEWS, MAX_VIEWS, Views, calibrate, doubts
from slam.errors import CalibrationError, UsageError
from slam.geometry.camera import Camera

LENS = Camera(480, 360, 390.0, 393.0, 248.0, 172.0, (-0.22, 0.07, 0.001, -0.0015))
BOARDS = {
    CHECKERBOARD: BoardConfig(),
    CHARUCO: BoardConfig(CHARUCO, 9, 6, 0.025, 0.018),
}


@pytest.fixture(scope="module", params=list(BOARDS))
def seen(request, board_images):
    """A board, and its views in 18 images."""
    board = Board(BOARDS[request.param])
    views = [board.find(board_images.photograph(board, LENS, *pose)) for pose in board_images.board_poses(18)]
    return board, [view for view in views if view is not None]


def selection(views):
    chosen = Views(LENS.width, LENS.height)
    for view in views:
        chosen.add(view)
    return chosen


def test_the_lens_comes_back(seen):
    """0.5 % of focal length is 1.5 cm at 3 m; the corners are good to some 0.05 px, so it should be far inside."""
    _, found = seen
    assert len(found) >= GOOD_VIEWS
    result = calibrate(selection(found).views, LENS.width, LENS.height)
    camera = result.camera
    assert camera.fx == pytest.approx(LENS.fx, rel=0.005) and camera.fy == pytest.approx(LENS.fy, rel=0.005)
    assert camera.cx == pytest.approx(LENS.cx, abs=2.0) and camera.cy == pytest.approx(LENS.cy, abs=2.0)
    assert camera.distortion[0] == pytest.approx(LENS.distortion[0], abs=0.02) and len(camera.distortion) == 4
    assert result.rms_px < 0.3 and (camera.width, camera.height) == (480, 360)


def test_corners_are_where_the_projection_puts_them(seen, board_images):
    """Pixel (0, 0) is the centre of the first pixel: a shift by half a pixel would show."""
    board = seen[0]
    pinhole = LENS.undistorted()
    R, place = np.eye(3), np.array([0.0, 0.0, 0.6])
    view = board.find(board_images.photograph(board, pinhole, R, place))
    columns, rows = board.config.squares
    pitch = 0.6 * LENS.width / columns  # pixels of a square
    middle = np.array([columns, rows]) * board.config.square_m / 2
    expected = (view.xyz[:, :2] - middle) / board.config.square_m * [pitch, pitch * LENS.fy / LENS.fx]
    expected += [LENS.cx, LENS.cy]
    error = view.uv - expected
    if np.abs(error).max() > pitch:  # a checkerboard may be numbered from its other end
        error = view.uv[::-1] - expected
    assert np.abs(error.mean(0)).max() < 0.1


def test_a_large_image_is_searched_small_first(board_images):
    """Corners are those of the large image, by the pixel-centre rule; some differ more, at the board's edge."""
    board = Board(BOARDS[CHECKERBOARD])
    image = board_images.photograph(board, LENS, *board_images.board_poses(1)[0])
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    corners, reference = board.find(large), board.find(image)
    assert np.median(np.abs((corners.uv + 0.5) / 2 - 0.5 - reference.uv)) < 0.1
    assert board.find(np.full_like(large, 90)) is None


def test_a_bad_view_is_dropped(seen):
    _, found = seen
    good = calibrate(found, LENS.width, LENS.height)
    spoilt = type(found[0])(found[0].ids, found[0].uv + np.sin(7.0 * found[0].uv[:, ::-1]) * 4, found[0].xyz)
    result = calibrate([spoilt, *found[1:]], LENS.width, LENS.height)
    assert result.views_dropped >= 1
    assert result.camera.fx == pytest.approx(good.camera.fx, rel=0.003)


def test_k3_is_solved_only_when_asked_for(seen):
    _, found = seen
    assert len(calibrate(found, LENS.width, LENS.height, with_k3=True).camera.distortion) == 5


def test_the_same_view_again_is_not_taken(seen):
    _, found = seen
    views = Views(LENS.width, LENS.height)
    assert views.add(found[0]) and not views.add(found[0]) and len(views) == 1
    for view in found:
        for shift in range(0, 120, 30):
            views.add(type(view)(view.ids, view.uv + np.float32(shift), view.xyz))
    assert len(views) == MAX_VIEWS


def test_feedback_says_what_is_missing(board_images):
    board = Board(BOARDS[CHECKERBOARD])
    views = Views(LENS.width, LENS.height)
    R, place = np.eye(3), np.array([-0.25, -0.25, 0.3])
    assert views.add(board.find(board_images.photograph(board, LENS, R, place)))
    words = views.feedback()
    assert views.coverage()[0, 0] and not views.coverage()[2].any()
    assert "lower right" in words and "upper left" not in words
    assert "tilt it left and right" in words and "bring it closer" in words and "1 views" in words


def test_enough_varied_views_leave_nothing_to_do(seen, board_images):
    board, found = seen
    more = [board.find(board_images.photograph(board, LENS, *pose)) for pose in board_images.board_poses(6, seed=8)]
    views = selection([*found, *(view for view in more if view is not None)])
    assert views.coverage().sum() >= 8
    assert not [word for word in views.missing() if "tilt" in word or "different" in word]


def test_views_without_tilt_are_doubted(board_images):
    """Fronto-parallel boards do not tell focal length from distance."""
    board = Board(BOARDS[CHECKERBOARD])
    views = selection(
        [board.find(board_images.photograph(board, LENS, *pose)) for pose in board_images.board_poses(9, tilted=False)]
    )
    try:
        result = calibrate(views.views, LENS.width, LENS.height)
    except CalibrationError as error:
        assert "tilt" in str(error)
    else:
        assert any("tilt" in words for words in doubts(result, views))


def test_too_few_views_are_refused(seen):
    with pytest.raises(CalibrationError, match="only 3 different views"):
        calibrate(seen[1][:3], LENS.width, LENS.height)


def test_views_of_another_board_are_refused(seen):
    _, found = seen
    rng = np.random.default_rng(0)
    wrong = [type(v)(v.ids, v.uv, rng.permutation(v.xyz)) for v in found]
    with pytest.raises(CalibrationError, match=r"no camera explains|fix no camera"):
        calibrate(wrong, LENS.width, LENS.height)


def test_a_board_of_another_size_is_named(board_images):
    image = board_images.photograph(Board(BoardConfig(columns=7, rows=5)), LENS, np.eye(3), np.array([0.0, 0.0, 0.6]))
    board = Board(BoardConfig(columns=9, rows=6))
    assert board.find(image) is None
    assert sorted(board.shown_size([image])) == [5, 7]
    assert board.shown_size([np.full_like(image, 128)]) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "dots"}, "dots"),
        ({"columns": 2}, "2x6"),
        ({"square_m": 25.0}, "metres"),
        ({"kind": CHARUCO, "marker_m": 0.03}, "smaller than --square"),
        ({"kind": CHARUCO, "dictionary": "DICT_9X9"}, "DICT_9X9"),
        ({"kind": CHARUCO, "columns": 20, "rows": 20}, "needs 200 markers"),
    ],
)
def test_boards_that_make_no_sense(options, said):
    with pytest.raises(UsageError, match=said):
        Board(BoardConfig(**options))


@pytest.mark.parametrize("kind", list(BOARDS))
def test_a_printed_board_is_found_in_its_own_image(kind, tmp_path):
    board = Board(BOARDS[kind])
    assert write_board(tmp_path / "board.png", board) == ((300, 225) if kind == CHECKERBOARD else (275, 200))
    data = (tmp_path / "board.png").read_bytes()
    at = data.index(b"pHYs")
    assert int.from_bytes(data[at + 4 : at + 8], "big") == pytest.approx(300 / 0.0254, rel=0.005)
    drawn = cv2.resize(cv2.imread(str(tmp_path / "board.png")), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    found = board.find(drawn)
    assert found is not None and len(found.uv) == len(board.corners)


@pytest.mark.parametrize("rows", [6, 5])
def test_a_charuco_board_of_the_legacy_pattern_is_found(board_images, rows: int):
    """Its corners are where the projection puts them, whichever pattern is printed; half a pixel: subpixel search."""
    config = BoardConfig("charuco", 7, rows, 0.03, 0.022)
    legacy, board = Board(config, is_legacy=True), Board(config)
    pose = board_images.board_poses(1)[0]
    shown = board_images.photograph(legacy, LENS, *pose)
    view, expected = board.find(shown), legacy.find(shown)
    assert view is not None and len(view.ids) >= 20
    np.testing.assert_array_equal(view.uv, expected.uv)
    other = board_images.photograph(Board(config), LENS, *pose)
    assert np.array_equal(other, shown) is (rows == 5)  # of odd rows there is one pattern
    if rows == 6:
        same = Board(config).find(other)
        pairs = [(view.uv[view.ids == i][0], same.uv[same.ids == i][0]) for i in np.intersect1d(view.ids, same.ids)]
        assert len(pairs) >= 20 and max(np.abs(a - b).max() for a, b in pairs) < 0.5
        assert board.find(other) is None  # one recording shows one board


def test_a_board_is_written_as_png_only(tmp_path):
    with pytest.raises(UsageError, match="PNG"):
        write_board(tmp_path / "board.jpg", Board(BoardConfig()))

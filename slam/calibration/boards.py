"""Calibration boards: what they look like, how to print them, and where their corners are in an image.

Corners follow OpenCV: pixel (0, 0) is the centre of the first one; board points are metres, z = 0 on the paper.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from slam.errors import OutputError, UsageError
from slam.io.files import write_bytes

CHECKERBOARD, CHARUCO = "checkerboard", "charuco"
KINDS = (CHECKERBOARD, CHARUCO)
MARKER_SHARE = 0.72  # of a square's side, where the marker's size is not given
MIN_CORNERS = 8  # of a partly hidden ChArUco board; fewer say little about a lens
MAX_SIDE = 50  # squares
PRINT_DPI = 300
MAX_PRINT_PX = 20000  # side of a board to print
GLIMPSE_PX = 640  # longer side of the copy in which a checkerboard is looked for first
PROBED = 5  # images looked at again to learn what board they show


@dataclass(frozen=True)
class BoardConfig:
    """A board as the user describes it."""

    kind: str = CHECKERBOARD
    columns: int = 9  # checkerboard: inner corners, as everywhere; ChArUco: squares
    rows: int = 6
    square_m: float = 0.025  # side of a square, metres
    marker_m: float | None = None  # side of a ChArUco marker with its black border; None: MARKER_SHARE of a square
    dictionary: str = "DICT_5X5_100"  # of ChArUco markers, OpenCV's name

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"--board must be {' or '.join(KINDS)}, got {self.kind!r}")
        if not 3 <= min(self.columns, self.rows) <= max(self.columns, self.rows) <= MAX_SIDE:
            raise UsageError(f"--size must be from 3x3 to {MAX_SIDE}x{MAX_SIDE}, got {self.columns}x{self.rows}")
        if not 0.001 <= self.square_m <= 2.0:
            raise UsageError(f"--square is the side of a square in metres, 0.001 to 2, got {self.square_m:g}")
        if self.marker_m is not None and not 0 < self.marker_m < self.square_m:
            raise UsageError(f"--marker must be smaller than --square {self.square_m:g} m, got {self.marker_m:g}")

    @property
    def squares(self) -> tuple[int, int]:
        """Squares across and down."""
        extra = 1 if self.kind == CHECKERBOARD else 0
        return self.columns + extra, self.rows + extra

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows} {self.kind}"


@dataclass(frozen=True, eq=False)
class BoardView:
    """The corners of a board found in one image."""

    ids: np.ndarray  # (n,) which corner
    uv: np.ndarray  # (n, 2) float32 pixels
    xyz: np.ndarray  # (n, 3) float32 metres on the board, z = 0


class Board:
    """Draws one board and finds it."""

    def __init__(self, config: BoardConfig, is_legacy: bool = False) -> None:
        """Prepare to draw and to find it; a ChArUco board is found in the new and in the legacy pattern.

        Args:
            is_legacy: draw a ChArUco board as OpenCV did before 4.6, with a white square in the upper left corner.

        Raises:
            UsageError: if the dictionary is unknown or too small for the board.
        """
        self.config = config
        columns, rows = config.squares
        self._charuco = None
        if config.kind == CHARUCO:
            dictionary = _dictionary(config.dictionary)
            needed, known = columns * rows // 2, len(dictionary.bytesList)
            if needed > known:
                raise UsageError(f"{config} needs {needed} markers, --dictionary {config.dictionary} has {known}")
            marker = config.marker_m or MARKER_SHARE * config.square_m
            self._charuco = _charuco_board(config, marker, dictionary, is_legacy)
            legacy = _charuco_board(config, marker, dictionary, not is_legacy)
            # which of the two patterns it is, shows in the first image of it; with an odd number of rows they are one
            boards = [self._charuco] if rows % 2 else [self._charuco, legacy]
            self._detectors = [cv2.aruco.CharucoDetector(board) for board in boards]
        grid = np.mgrid[1:columns, 1:rows].T.reshape(-1, 2)
        self.corners = np.hstack([grid, np.zeros((len(grid), 1))]).astype(np.float32) * np.float32(config.square_m)

    def find(self, image: np.ndarray) -> BoardView | None:
        """The board in an image (H, W, 3) uint8 RGB; None if it is not there, or too little of it."""
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if self._charuco is None:
            size = (self.config.columns, self.config.rows)
            flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_ACCURACY
            if not _glimpsed(gray, size):
                return None
            found, uv = cv2.findChessboardCornersSB(gray, size, flags=flags)
            return self._view(np.arange(len(self.corners)), uv) if found else None
        for detector in self._detectors:
            uv, ids, _, _ = detector.detectBoard(gray)
            if ids is not None and len(ids) >= MIN_CORNERS and not _on_a_line(self.corners[ids.ravel()]):
                self._detectors = [detector]
                return self._view(ids.ravel(), uv)
        return None

    def _view(self, ids: np.ndarray, uv: np.ndarray) -> BoardView:
        return BoardView(ids, uv.reshape(-1, 2).astype(np.float32), self.corners[ids])

    def draw(self, square_px: int) -> np.ndarray:
        """The board as (H, W) uint8, with a white margin of one square on every side."""
        columns, rows = self.config.squares
        width, height = columns * square_px, rows * square_px
        if self._charuco is not None:
            inner = self._charuco.generateImage((width, height), marginSize=0, borderBits=1)
        else:
            v, u = np.mgrid[:height, :width] // square_px
            inner = np.where((u + v) % 2 == 0, 0, 255).astype(np.uint8)
        return np.pad(inner, square_px, constant_values=255)

    def shown_size(self, images: list[np.ndarray]) -> tuple[int, int] | None:
        """Inner corners (columns, rows) of whatever checkerboard the first images show, to explain a wrong size."""
        if self._charuco is not None:
            return None
        flags = cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_LARGER
        for image in images[:PROBED]:
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            found, _, meta = cv2.findChessboardCornersSBWithMeta(gray, (3, 3), flags)
            if found and meta is not None:
                return int(meta.shape[1]), int(meta.shape[0])
        return None


def write_board(path: Path, board: Board) -> tuple[int, int]:
    """Write a board as a PNG that states its resolution, so that it prints at its true size.

    Returns:
        Width and height of the sheet with its margin, millimetres.

    Raises:
        UsageError: if the name does not end in .png, or the board is too large.
        OutputError: if the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--make-board writes a PNG: name it {path.with_suffix('.png')}")
    square_m = board.config.square_m
    square_px = max(round(square_m / 0.0254 * PRINT_DPI), 8)
    sides = [side + 2 for side in board.config.squares]
    if max(sides) * square_px > MAX_PRINT_PX:
        square_px = MAX_PRINT_PX // max(sides)
    done, data = cv2.imencode(".png", board.draw(square_px))
    if not done:
        raise OutputError(f"cannot write {path}: encoding failed")
    per_metre = round(square_px / square_m)
    physical = b"pHYs" + struct.pack(">IIB", per_metre, per_metre, 1)  # PNG specification, 11.3.4.3
    chunk = struct.pack(">I", 9) + physical + struct.pack(">I", zlib.crc32(physical))
    header = 8 + 25  # signature and IHDR
    png = data.tobytes()
    write_bytes(path, png[:header] + chunk + png[header:])
    return round(1000 * sides[0] * square_m), round(1000 * sides[1] * square_m)


def _dictionary(name: str) -> "cv2.aruco.Dictionary":
    names = sorted(n for n in dir(cv2.aruco) if n.startswith("DICT_"))
    if name not in names:
        raise UsageError(f"unknown --dictionary {name!r}; known: {', '.join(names)}")
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))


def _charuco_board(
    config: BoardConfig, marker_m: float, dictionary: "cv2.aruco.Dictionary", is_legacy: bool
) -> "cv2.aruco.CharucoBoard":
    board = cv2.aruco.CharucoBoard(config.squares, config.square_m, marker_m, dictionary)
    board.setLegacyPattern(is_legacy)
    return board


def _glimpsed(gray: np.ndarray, size: tuple[int, int]) -> bool:
    """False if a smaller copy of a large image shows no checkerboard: that is told in a fraction of the time."""
    scale = GLIMPSE_PX / max(gray.shape)
    if scale > 0.8:
        return True
    small = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bool(cv2.findChessboardCornersSB(small, size, flags=cv2.CALIB_CB_NORMALIZE_IMAGE)[0])


def _on_a_line(points: np.ndarray) -> bool:
    """True if points (n, 3) lie in one row or column, which fixes no homography."""
    return bool(np.linalg.matrix_rank(points[:, :2] - points[0, :2], tol=1e-6) < 2)

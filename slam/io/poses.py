"""Poses as data sets write them: rows of numbers that are matrices, or positions with quaternions.

Rows that are not finite or zero (a tracker that lost its target) are skipped, with one WARNING that counts them.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.io.lists import columns as columns_of
from slam.io.lists import content_lines, in_time
from slam.io.quaternion import matrix_from_quat_xyzw
from slam.io.stamps import SECOND_NS
from slam.io.trajectory import COLUMNS, MAX_VALUE, MIN_QUATERNION_NORM
from slam.reading import read_text

log = logging.getLogger(__name__)

MAX_SKEW = 0.01  # rotations in text are orthonormal to about 1e-4
NANOSECOND_DIGITS = 16  # and more, of a whole number that is a time

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: y up and looking along -z; its own inverse
NED_FROM_OPENCV = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # x forward, y right, z down


@dataclass(frozen=True, eq=False)
class FramePoses:
    """Poses that have no time stamps: each belongs to a frame by its number in the recording."""

    frame: np.ndarray  # (N,) int64, increasing
    T_wc: np.ndarray  # (N, 4, 4) float64

    def stamped(self, time_ns: np.ndarray) -> Trajectory:
        """With the stamps (M,) int64 of all frames of the recording; poses of frames past the last are left out."""
        within = self.frame < len(time_ns)
        return Trajectory(time_ns[self.frame[within]], self.T_wc[within])

    def of_images(self, numbers: Sequence[int]) -> "FramePoses":
        """By index of the images, where `frame` is the number in their names; poses of other numbers are left out.

        Args:
            numbers: of the images, increasing.
        """
        within = np.isin(self.frame, numbers)
        return FramePoses(np.searchsorted(numbers, self.frame[within]), self.T_wc[within])


def number_rows(path: Path, what: str = "trajectory") -> list[tuple[int, list[str]]]:
    """The lines of a text as words, each with its line number; comments and a header are left out.

    Raises:
        SourceError: if the file is missing, no text, or empty.
    """
    rows = [(number, columns_of(line)) for number, line in content_lines(read_text(path, what))]
    if not rows:
        raise SourceError(f"{path} holds no {'poses' if what == 'trajectory' else what}")
    return rows


def floats(path: Path, rows: Sequence[tuple[int, list[str]]], columns: int) -> np.ndarray:
    """Rows of words -> (N, columns) float64, infinite and NaN where the file says so.

    Raises:
        SourceError: naming the line that is no such row of numbers.
    """
    values = np.empty((len(rows), columns))
    for row, (number, words) in enumerate(rows):
        if len(words) < columns:
            raise SourceError(f"{path}, line {number}: expected {columns} numbers, found {len(words)}")
        try:
            values[row] = [float(word) for word in words[:columns]]
        except ValueError as error:
            raise SourceError(f"{path}, line {number}: {error}; expected {columns} numbers") from error
    return values


def from_matrices(values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a matrix each -> poses.

    Args:
        values: (N, 12) or (N, 16), row-major 3x4 or 4x4.
        name: the file, for messages.

    Returns:
        (M,) int64 rows that are usable, (M, 4, 4) their poses, exactly orthonormal.

    Raises:
        SourceError: if a row is no rigid motion (scaled, mirrored or skewed), or none is usable.
    """
    T = np.tile(np.eye(4), (len(values), 1, 1))
    T[:, :3] = values[:, :12].reshape(-1, 3, 4)
    usable = _usable((np.abs(values) < MAX_VALUE).all(-1) & (np.abs(T[:, :3, :3]).max((-1, -2)) > 0), name)
    T = T[usable]
    R = T[:, :3, :3]
    skew = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max((-1, -2))
    bad = np.flatnonzero((skew > MAX_SKEW) | (np.linalg.det(R) < 0))
    if len(bad):
        raise SourceError(f"{name}: pose {usable[bad[0]]} is no rigid motion: its 3x3 part is no rotation")
    U, _, Vt = np.linalg.svd(R)
    T[:, :3, :3] = U @ Vt
    return usable, T


def from_matrix(values: object, name: str) -> np.ndarray:
    """One pose (4, 4) of 12 or 16 numbers as a file has them, row-major.

    Raises:
        SourceError: if it is no rigid motion.
        ValueError, TypeError, OverflowError: if these are no such numbers.
    """
    row = np.array(values, np.float64).reshape(1, -1)
    if row.shape[1] not in (12, 16):
        raise ValueError(f"{row.shape[1]} numbers are no 3x4 or 4x4 matrix")
    return from_matrices(row, name)[1][0]


def from_quaternions(p: np.ndarray, quat_xyzw: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 3) and quaternions (N, 4) -> (M,) usable rows and their poses (M, 4, 4).

    Raises:
        SourceError: if none is usable.
    """
    finite = (np.abs(p) < MAX_VALUE).all(-1) & (np.abs(quat_xyzw) < MAX_VALUE).all(-1)  # NaN compares false
    norm = np.linalg.norm(np.where(finite[:, None], quat_xyzw, 0.0), axis=-1)
    usable = _usable(finite & (norm > MIN_QUATERNION_NORM), name)
    T = np.tile(np.eye(4), (len(usable), 1, 1))
    T[:, :3, :3] = matrix_from_quat_xyzw(quat_xyzw[usable])
    T[:, :3, 3] = p[usable]
    return usable, T


def read_stamped(path: Path) -> Trajectory:
    """True poses of a text with a stamp, a position and a quaternion to a line, as they stand; sorted by time.

    Columns may be separated by commas; stamps may be seconds or whole nanoseconds. The quaternion is xyzw (TUM), but w
    comes first in tables of nanoseconds separated by commas (EuRoC), unless their header says otherwise. Of poses with
    the same stamp the first is kept.

    Raises:
        SourceError: naming the line that is no such row.
    """
    rows = number_rows(path)
    is_table = is_nanoseconds_table(path)
    values = floats(path, rows, 8)[:, 1:]
    order = [4, 5, 6, 3] if is_table and not _has_w_last(path) else [3, 4, 5, 6]
    usable, T_wc = from_quaternions(values[:, :3], values[:, order], str(path))
    stamps = [(rows[i][0], rows[i][1][0]) for i in usable]
    timed = in_time(path, stamps, range(len(stamps)), COLUMNS, 1 if is_table else SECOND_NS)
    return Trajectory(np.array([time_ns for time_ns, _ in timed], np.int64), T_wc[[i for _, i in timed]])


def is_nanoseconds_table(path: Path) -> bool:
    """True of a text of whole nanoseconds and more, separated by commas, as EuRoC and TUM-VI have it."""
    text = read_text(path, "trajectory")
    first = next((line for _, line in content_lines(text)), "")
    stamp = first.split(",")[0].strip()
    is_long = len(stamp) >= NANOSECOND_DIGITS or "[ns]" in text.lstrip().partition("\n")[0]
    return "," in first and stamp.isdecimal() and is_long


def read_matrix_rows(path: Path, columns: int) -> FramePoses:
    """Poses T_wc of a text with the matrix of a frame to a line, 12 or 16 numbers, row by row."""
    frames, T_wc = from_matrices(floats(path, number_rows(path), columns), str(path))
    return FramePoses(frames, T_wc)


def read_matrix(path: Path) -> np.ndarray:
    """The (4, 4) or (3, 3) matrix of a file of its own, as it stands.

    Raises:
        SourceError: if the file holds anything else.
    """
    rows = number_rows(path, "matrix")
    size = len(rows[0][1])
    if size not in (3, 4) or len(rows) != size or any(len(words) != size for _, words in rows):
        raise SourceError(f"{path} is no matrix: expected 4x4 numbers")
    return floats(path, rows, size)


def read_matrix_files(files: Sequence[tuple[int, Path]], name: str) -> FramePoses:
    """Poses T_wc with a file of 4x4 numbers for each frame.

    Args:
        files: frame numbers and files.
        name: their folder, for messages.
    """
    values = []
    for _, file in files:
        matrix = read_matrix(file)
        if matrix.shape != (4, 4):
            raise SourceError(f"{file} is no pose: expected 4x4 numbers")
        values.append(matrix.ravel())
    usable, T_wc = from_matrices(np.array(values).reshape(-1, 16), name)
    return FramePoses(np.array([number for number, _ in files], np.int64)[usable], T_wc)


def _usable(usable: np.ndarray, name: str) -> np.ndarray:
    """Indices of True; a WARNING counts the others."""
    left_out = int((~usable).sum())
    if left_out == len(usable):
        raise SourceError(f"{name} holds no usable pose: all {left_out} are not finite or zero")
    if left_out:
        log.warning("%s: %d of %d poses are not finite or zero; they are skipped", name, left_out, len(usable))
    return np.flatnonzero(usable)


def _has_w_last(path: Path) -> bool:
    """True if the first line names the parts of the quaternion, and w as the last of them."""
    header = read_text(path, "trajectory").lstrip().partition("\n")[0].lower()
    places = [(match.start(), match[1]) for match in re.finditer(r"q\w*?_?([wxyz])\b", header)]
    return [name for _, name in places][-4:] == ["x", "y", "z", "w"]

"""Trajectories as text: TUM (`timestamp tx ty tz qx qy qz qw`), KITTI, and the one written while a run goes on.

Poses are T_wc (camera to world). Stamps are seconds in the text and integer nanoseconds in memory; the conversion
is exact both ways, as a float64 second of the year 2026 is only good to 240 ns.
"""

import logging
from pathlib import Path
from types import TracebackType

import numpy as np

from slam.errors import OutputError, SourceError
from slam.frames import Trajectory
from slam.io.files import removed, write_text
from slam.io.lists import columns, content_lines, in_time
from slam.io.quaternion import matrix_from_quat_xyzw, quat_xyzw_from_matrix
from slam.io.stamps import SECOND_NS, to_ns
from slam.reading import read_text, reason

log = logging.getLogger(__name__)

MAX_VALUE = 1e12  # metres: further away nothing can be told from it
MIN_QUATERNION_NORM = 0.1  # shorter is no rotation written with few digits, it is a mistake
COLUMNS = "timestamp tx ty tz qx qy qz qw"


def parse_time_ns(seconds: str) -> int:
    """Seconds as decimal text -> nanoseconds, exactly (digits past the ninth are rounded).

    Raises:
        ValueError: if the text is no finite number, or past the range of 64 bits.
    """
    return to_ns(seconds, SECOND_NS)


def format_time_ns(time_ns: int) -> str:
    """Nanoseconds -> seconds with nine decimals, exactly."""
    whole, rest = divmod(abs(int(time_ns)), 10**9)
    return f"{'-' if time_ns < 0 else ''}{whole}.{rest:09d}"


def write_tum(path: str | Path, trajectory: Trajectory, header: str = "") -> None:
    """Write a TUM trajectory atomically.

    Args:
        trajectory: N poses T_wc, increasing stamps.
        header: lines put in front as `#` comments, such as the source of the scale.

    Raises:
        OutputError: if the file cannot be written.
    """
    lines = [f"# {line}".rstrip() for line in [*header.splitlines(), COLUMNS]]
    lines += [_tum_line(t, T) for t, T in zip(trajectory.time_ns, _tum_values(trajectory.T_wc))]
    write_text(Path(path), "\n".join(lines) + "\n")


def read_tum(path: Path, torn_end: bool = False) -> Trajectory:
    """Read a TUM trajectory; columns may be separated by commas, stamps may be nanoseconds.

    Poses out of order are sorted, of poses with the same stamp (recordings have some) the first is kept; both are told.

    Args:
        torn_end: accept (and drop) an incomplete last line, as a killed run leaves it.

    Raises:
        SourceError: naming the line that is short, no number, or has no rotation.
    """
    text = read_text(path, "trajectory")
    if torn_end:
        text = text[: text.rfind("\n") + 1]  # what follows the last line feed is torn, or empty
    stamps: list[tuple[int, str]] = []
    values: list[list[float]] = []
    for number, line in content_lines(text):
        stamp, pose = _parse_line(line, f"{path}, line {number}")
        stamps.append((number, stamp))
        values.append(pose)
    if not values:
        raise SourceError(f"{path} holds no poses; expected lines of {COLUMNS}")
    timed = in_time(path, stamps, values, COLUMNS)
    array = np.array([pose for _, pose in timed])
    T_wc = np.tile(np.eye(4), (len(timed), 1, 1))
    T_wc[:, :3, :3] = matrix_from_quat_xyzw(array[:, 3:])
    T_wc[:, :3, 3] = array[:, :3]
    return Trajectory(np.array([time_ns for time_ns, _ in timed], dtype=np.int64), T_wc)


class OnlineTrajectoryWriter:
    """Appends each pose as it is first estimated; every line reaches the system at once and so outlives the process.

    A refused write (disk full) ends the file there: one WARNING, the cause in `error`, and the run goes on.
    """

    def __init__(self, path: Path, header: str = "") -> None:
        """Start the file anew; raises OutputError if that is refused."""
        self.path = path
        self.error: OutputError | None = None
        self._last_ns: int | None = None
        try:
            self._file = path.open("wb", buffering=0)
            self._file.write("".join(f"# {line}\n" for line in [*header.splitlines(), COLUMNS]).encode())
        except OSError as error:
            raise OutputError(f"cannot write {path}: {reason(error)}") from error

    def append(self, time_ns: int, T_wc: np.ndarray) -> None:
        """Add one pose (4, 4), later than the one before.

        Raises:
            ValueError: if the time does not increase.
        """
        if self._last_ns is not None and time_ns <= self._last_ns:
            raise ValueError(f"time {time_ns} ns is not later than {self._last_ns} ns")
        self._last_ns = time_ns
        self._write(_tum_line(time_ns, _tum_values(T_wc[None])[0]), f"poses from {format_time_ns(time_ns)} on")

    def comment(self, text: str) -> None:
        """Add a line that readers skip."""
        self._write(f"# {text}", "all poses that follow")

    def _write(self, text: str, what: str) -> None:
        if self.error is not None:
            return
        line = f"{text}\n".encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk took only part of a line")
        except OSError as error:
            self.error = OutputError(f"cannot write {self.path}: {reason(error)}")
            log.warning("%s; %s are missing there", self.error, what)

    def close(self) -> None:
        """Close the file; a second call does nothing. `error` then also says that it was removed while it was open."""
        if not self._file.closed:
            self.error = self.error or removed(self._file, self.path)
            self._file.close()

    def __enter__(self) -> "OnlineTrajectoryWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _tum_values(T_wc: np.ndarray) -> np.ndarray:
    """(N, 4, 4) -> (N, 7) tx ty tz qx qy qz qw."""
    return np.concatenate([T_wc[:, :3, 3], quat_xyzw_from_matrix(T_wc[:, :3, :3])], -1)


def _tum_line(time_ns: int, values: np.ndarray) -> str:
    return " ".join([format_time_ns(time_ns), *(f"{x + 0.0:.9g}" for x in values)])  # + 0.0: no "-0"


def _parse_line(line: str, where: str) -> tuple[str, list[float]]:
    words = columns(line)
    if len(words) != 8:
        raise SourceError(f"{where}: expected 8 numbers ({COLUMNS}), found {len(words)}")
    try:
        pose = [float(word) for word in words[1:]]
    except ValueError as error:
        raise SourceError(f"{where}: {error}; expected {COLUMNS}") from error
    if not np.isfinite(pose).all() or np.abs(pose).max() > MAX_VALUE:
        raise SourceError(f"{where}: the pose is not finite: {' '.join(words[1:])}")
    if np.linalg.norm(pose[3:]) < MIN_QUATERNION_NORM:
        raise SourceError(f"{where}: the quaternion {' '.join(words[4:])} is no rotation (its length is near zero)")
    return words[0], pose

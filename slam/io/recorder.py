"""Keeps what a camera delivers, in TUM layout, while it is tracked: `--sequence` plays it with the same stamps."""

import logging
import os
from pathlib import Path
from typing import BinaryIO

from slam.errors import OutputError, UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.calibration import write_calibration
from slam.io.files import removed
from slam.io.images import write_color, write_depth
from slam.io.run_record import RecordingRecord
from slam.io.trajectory import format_time_ns
from slam.reading import open_file, reason
from slam.threads import Worker

log = logging.getLogger(__name__)

SENSOR_NOTE = "# depth of a sensor, 5000 to the metre, aligned to rgb"  # first line of depth.txt
CAPACITY = 16  # frames that wait for the disk: half a second, 100 MB of full HD


class Recorder:
    """Writes frames on its own thread: `rgb/` (JPEG), `depth/` (16-bit PNG), their lists and `calibration.yaml`.

    An image is listed once it is whole on the disk, so the lists are good at any moment, also after `kill -9`. A disk
    slower than the camera loses frames (`dropped`); one that refuses ends the recording (`error`, one WARNING). Neither
    holds up whoever calls `add`.
    """

    def __init__(self, path: Path, camera: Camera, capacity: int = CAPACITY) -> None:
        """Start the recording.

        Raises:
            UsageError: if `path` holds one already.
            OutputError: if it cannot be written to.
        """
        check_free(path)
        self.path = path
        self.written = 0
        self.dropped = 0
        self.error: OutputError | None = None
        self._lists: dict[str, BinaryIO] = {}
        write_calibration(path / "calibration.yaml", camera)
        self._list("rgb")
        self._worker: Worker[Frame, None] = Worker(self._write, "recorder", capacity)

    def add(self, frame: Frame) -> None:
        """Hand over a frame; never waits. Once the recording is closed or broken off, it is not taken."""
        if self.error is None:
            self._worker.results()  # nothing but the end of each job
            if not self._worker.try_submit(frame):
                self.dropped += 1

    def close(self) -> None:
        """Write what waits and close the lists; a second call does nothing."""
        self._worker.close()
        for kind, file in self._lists.items():
            if not file.closed:
                self.error = self.error or removed(file, self.path / f"{kind}.txt")
                file.close()
        if self.dropped:
            log.warning("%s lacks %d frames: the disk is slower than the camera", self.path, self.dropped)

    def record(self) -> RecordingRecord:
        """What `run.json` says of it."""
        error = None if self.error is None else str(self.error)
        return RecordingRecord(str(self.path), self.written, self.dropped, error)

    def _write(self, frame: Frame) -> None:
        if self.error is not None:
            return
        stamp = format_time_ns(frame.time_ns)
        try:
            write_color(self.path / "rgb" / f"{stamp}.jpg", frame.image)
            if frame.depth is not None:
                write_depth(self.path / "depth" / f"{stamp}.png", frame.depth)
                self._append("depth", f"{stamp} depth/{stamp}.png\n")
            self._append("rgb", f"{stamp} rgb/{stamp}.jpg\n")
        except OutputError as error:
            self.error = error
            log.warning("the recording ends here, tracking goes on: %s", error)
            return
        self.written += 1

    def _append(self, kind: str, line: str) -> None:
        """One whole line, past every buffer of this process."""
        file = self._list(kind)
        try:
            if file.write(line.encode()) != len(line):
                raise OSError("the disk took only part of a line")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / kind}.txt: {reason(error)}") from error

    def _list(self, kind: str) -> BinaryIO:
        if kind not in self._lists:
            file = self.path / f"{kind}.txt"
            try:
                self._lists[kind] = open(file, "wb", buffering=0)  # noqa: SIM115  kept open for the recording
            except OSError as error:
                raise OutputError(f"cannot write {file}: {reason(error)}") from error
            note = f"{SENSOR_NOTE}\n" if kind == "depth" else ""
            self._append(kind, f"{note}# timestamp filename\n")
        return self._lists[kind]


def check_free(path: Path) -> None:
    """Refuse a directory that holds a recording already; raises UsageError."""
    if any(os.path.lexists(path / name) for name in ("rgb", "depth", "rgb.txt", "depth.txt", "calibration.yaml")):
        raise UsageError(f"{path} holds a recording already; choose another directory with --record, or remove it")


def has_sensor_depth(path: Path) -> bool:
    """True if a `Recorder` made this recording of a camera that measures depth."""
    try:
        with open_file(path / "depth.txt") as file:
            return file.readline(len(SENSOR_NOTE) + 2).strip() == SENSOR_NOTE.encode()
    except OSError:
        return False

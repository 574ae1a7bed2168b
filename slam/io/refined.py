"""Depth and confidence of every frame of a video, beside the other files of a run directory."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from slam.errors import SourceError
from slam.frames import View
from slam.inv_depth import InvDepth
from slam.io.files import read_json
from slam.io.images import read_confidence, read_depth, write_confidence, write_depth
from slam.io.preview import PreviewWriter
from slam.io.run import checked, require_square, rows_of
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import format_time_ns
from slam.settings import dump_config

REFINED = "refined"  # folder inside a run, itself a run directory
FRAMES = "frames"
LISTING = f"{FRAMES}/frames.json"
CONVENTIONS = (
    "T_wc: camera to world, 4x4, map units; camera axes x right, y down, z forward. Depth: 16-bit PNG, z along the "
    "axis in map units = value / depth_scale, 0 is unknown. Confidence: 8-bit PNG, value / 255. K: pixels of these "
    "images, (0, 0) is the centre of the top left one. time_ns: nanoseconds."
)


@dataclass(frozen=True)
class FrameRecord:
    """A frame of `frames.json`; files are named relative to it."""

    frame_id: int
    time_ns: int
    depth: str  # 16-bit PNG of z-depth, 0 unknown
    confidence: str  # 8-bit PNG
    T_wc: tuple[tuple[float, ...], ...]  # 4x4

    def __post_init__(self) -> None:
        require_square("T_wc", self.T_wc, 4)


@dataclass(frozen=True)
class FrameListing:
    """The whole of `frames.json`."""

    conventions: str  # axes and units in words
    K: tuple[tuple[float, ...], ...]  # 3x3, pixels of these images
    width: int
    height: int
    depth_scale: float  # value of one map unit
    frames: tuple[FrameRecord, ...]  # in order of time

    def __post_init__(self) -> None:
        require_square("K", self.K, 3)


class FramesWriter:
    """Writes `frames/` and `preview.mp4` of a run directory, one frame after the other; keeps no maps.

    A frame is listed if both its files are there; the listing is written at the end, so that a directory without one
    is unfinished. What the disk refuses is noted in the run directory.
    """

    def __init__(
        self,
        directory: RunDirectory,
        K: Tensor,
        size: tuple[int, int],
        depth_scale: float,
        depth_range: tuple[float, float],
    ) -> None:
        """Start; a listing and a preview from before are removed.

        Args:
            K: (3, 3) intrinsics of all frames at `size`, pixels.
            size: rows and columns.
            depth_scale: value of one map unit in the 16-bit depth; what is past 65535 / depth_scale becomes unknown.
            depth_range: depths of the preview's first and last colour, map units.

        Raises:
            ValueError: if the scale is not positive, or the range is empty.
        """
        if not 0 < depth_scale < float("inf"):
            raise ValueError(f"depth_scale must be positive, got {depth_scale}")
        self._directory = directory
        self._K = rows_of(K)
        self._size = size
        self._depth_scale = depth_scale
        self._records: list[FrameRecord] = []
        self._last_ns: int | None = None
        self._is_closed = False
        self._preview = PreviewWriter(directory, depth_range)
        directory.write(LISTING, lambda path: path.unlink(missing_ok=True))

    def add(self, view: View, T_wc: Tensor, before: InvDepth, after: InvDepth) -> None:
        """Write a frame, later than the one before.

        Args:
            T_wc: (4, 4) world from camera.
            before: (h, w) the depth that was refined, for the preview.
            after: (h, w) the depth that is written.

        Raises:
            ValueError: if the time does not increase, or the image or a depth has another size.
        """
        sizes = {"image": view.image.size, "before": before.size, "after": after.size}
        if any(size != self._size for size in sizes.values()):
            raise ValueError(f"frame {view.frame_id} must have the size {self._size}, got {sizes}")
        if self._last_ns is not None and view.time_ns <= self._last_ns:
            raise ValueError(f"time {view.time_ns} ns is not later than {self._last_ns} ns")
        self._last_ns = view.time_ns
        before, after = (view.image.masked(depth.on_host()) for depth in (before, after))
        self._preview.add(view.time_ns, view.image.rgb, before.value.numpy(), after.value.numpy())
        stamp = format_time_ns(view.time_ns)
        record = FrameRecord(
            view.frame_id, view.time_ns, f"{stamp}_depth.png", f"{stamp}_confidence.png", rows_of(T_wc)
        )
        if self._write_maps(record, after):
            self._records.append(record)

    def close(self) -> None:
        """Write the listing and end the preview; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        h, w = self._size
        listing = FrameListing(CONVENTIONS, self._K, w, h, self._depth_scale, tuple(self._records))
        self._directory.write_json(LISTING, dump_config(listing))
        self._preview.close()

    def __enter__(self) -> "FramesWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write_maps(self, record: FrameRecord, inv_depth: InvDepth) -> bool:
        """Both files of a frame, or none; False if the disk refused."""
        depth, confidence = inv_depth.depth().numpy(), inv_depth.confidence.numpy()
        depth_file, confidence_file = f"{FRAMES}/{record.depth}", f"{FRAMES}/{record.confidence}"
        if not self._directory.write(depth_file, lambda path: write_depth(path, depth, self._depth_scale)):
            return False
        if self._directory.write(confidence_file, lambda path: write_confidence(path, confidence)):
            return True
        (self._directory.path / depth_file).unlink(missing_ok=True)
        self._directory.missing[depth_file] = self._directory.missing[confidence_file]
        return False


def has_frames(path: Path) -> bool:
    """True of a run directory with depth of every frame."""
    return (path / LISTING).is_file()


class Frames:
    """Depth of every frame of a run directory; a map is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Read the listing of a run directory.

        Raises:
            SourceError: if it is missing or damaged.
        """
        self.path = path / LISTING
        self.listing: FrameListing = checked(FrameListing, read_json(self.path, dict), self.path)

    @property
    def records(self) -> tuple[FrameRecord, ...]:
        """The frames in order of time."""
        return self.listing.frames

    def depth(self, record: FrameRecord) -> np.ndarray:
        """(h, w) float32 depth of a frame, map units, 0 unknown; raises SourceError."""
        return self._sized(read_depth(self.path.with_name(record.depth), self.listing.depth_scale), record)

    def confidence(self, record: FrameRecord) -> np.ndarray:
        """(h, w) float32 confidence of a frame's depth in [0, 1]; raises SourceError."""
        return self._sized(read_confidence(self.path.with_name(record.confidence)), record)

    def _sized(self, values: np.ndarray, record: FrameRecord) -> np.ndarray:
        if values.shape != (self.listing.height, self.listing.width):
            raise SourceError(f"{self.path} is damaged: the files of frame {record.frame_id} have another size")
        return values

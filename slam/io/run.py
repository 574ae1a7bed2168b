"""The one writer and the one reader of a run directory."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slam import __version__
from slam.errors import ConfigError, SourceError, UsageError
from slam.frames import Image, Keyframe, Trajectory, View
from slam.inv_depth import InvDepth
from slam.io.files import read_json
from slam.io.images import read_color, read_confidence, read_depth, write_color, write_confidence, write_depth
from slam.io.ply import PointCloud, read_ply, write_ply
from slam.io.run_directory import RunDirectory
from slam.io.run_record import RunRecord
from slam.io.trajectory import read_tum, write_tum
from slam.settings import build_config, dump_config

RECORD = "run.json"
TRAJECTORY, ONLINE, KEYFRAMES = "trajectory.txt", "trajectory_online.txt", "keyframes.txt"
LISTING = "keyframes/keyframes.json"
CLOUD = "map.ply"
DEPTH_LEVELS = 20000  # 16-bit levels spent on four times the median depth of a keyframe


@dataclass(frozen=True)
class KeyframeRecord:
    """An entry of `keyframes.json`; files are named relative to it."""

    id: int
    frame_id: int
    time_ns: int
    color: str
    depth: str  # 16-bit PNG of z-depth, 0 unknown
    confidence: str  # 8-bit PNG
    depth_scale: float  # value of one map unit
    K: tuple[tuple[float, ...], ...]  # 3x3, pixels of these images
    width: int
    height: int
    T_wc: tuple[tuple[float, ...], ...]  # 4x4
    parent_id: int = -1  # the keyframe it was tracked against; -1 of the first

    def __post_init__(self) -> None:
        require_square("K", self.K, 3)
        require_square("T_wc", self.T_wc, 4)

    @property
    def is_earlier(self) -> bool:
        """True of a keyframe of the map that the run went on in: its time is of another run's recording."""
        return self.frame_id < 0


def write_record(run: RunDirectory, record: RunRecord) -> None:
    """`run.json`; it names a mask relative to the directory, so that both can be moved."""
    record = _with_mask(record, lambda mask: os.path.relpath(mask, run.path))
    run.write_json(RECORD, dump_config(record))


def _with_mask(record: RunRecord, rename: Callable[[str], str]) -> RunRecord:
    """The record with another name for the file of its mask, where it has one."""
    done = record.source.conditioning
    if done is None or done.mask is None:
        return record
    return replace(record, source=replace(record.source, conditioning=replace(done, mask=rename(done.mask))))


def file_of_map(name: str, number: int) -> str:
    """The file of the first, second ... map of a run: trajectory.txt, trajectory_2.txt ..."""
    path = Path(name)
    return name if number == 1 else str(path.with_stem(f"{path.stem}_{number}"))


def write_trajectories(
    run: RunDirectory, trajectory: Trajectory, keyframes: Trajectory, header: str, number: int = 1
) -> None:
    """`trajectory.txt` (every frame) and `keyframes.txt`, TUM format, T_wc; of a map."""
    run.write(file_of_map(TRAJECTORY, number), lambda path: write_tum(path, trajectory, header))
    run.write(file_of_map(KEYFRAMES, number), lambda path: write_tum(path, keyframes, header))


def write_cloud(run: RunDirectory, cloud: PointCloud, header: str, number: int = 1) -> None:
    """`map.ply`, world frame; of a map."""
    run.write(file_of_map(CLOUD, number), lambda path: write_ply(path, cloud, tuple(header.splitlines())))


def write_keyframes(run: RunDirectory, keyframes: Sequence[Keyframe], number: int = 1) -> None:
    """`keyframes/`: colour, 16-bit depth and 8-bit confidence of each, and `keyframes.json` that names them; of a
    map."""
    records = [dump_config(_write_keyframe(run, keyframe)) for keyframe in keyframes]
    run.write_json(file_of_map(LISTING, number), records)


def _write_keyframe(run: RunDirectory, keyframe: Keyframe) -> KeyframeRecord:
    dense = keyframe.dense.on_host()
    inv_depth = dense.value.numpy()
    depth = np.where(inv_depth > 0, 1 / np.maximum(inv_depth, 1e-9), 0).astype(np.float32)
    known = depth[depth > 0]
    scale = DEPTH_LEVELS / (4 * float(np.median(known))) if len(known) else 1.0
    stem = f"{keyframe.id:06d}"
    color, depth_file, confidence = f"{stem}_color.jpg", f"{stem}_depth.png", f"{stem}_confidence.png"
    run.write(f"keyframes/{color}", lambda path: write_color(path, keyframe.view.image.rgb))
    run.write(f"keyframes/{depth_file}", lambda path: write_depth(path, depth, scale))
    run.write(f"keyframes/{confidence}", lambda path: write_confidence(path, dense.confidence.numpy()))
    return KeyframeRecord(
        id=keyframe.id,
        parent_id=keyframe.parent_id,
        frame_id=keyframe.view.frame_id,
        time_ns=keyframe.view.time_ns,
        color=color,
        depth=depth_file,
        confidence=confidence,
        depth_scale=scale,
        K=rows_of(keyframe.view.K),
        width=inv_depth.shape[1],
        height=inv_depth.shape[0],
        T_wc=rows_of(keyframe.T_wc),
    )


def rows_of(matrix: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    """A matrix as a record holds it."""
    return tuple(tuple(row) for row in matrix.tolist())


class Run:
    """A run directory; every file is read when it is asked for.

    All methods raise SourceError if their file is missing or damaged.
    """

    def __init__(self, path: str | Path, number: int = 1) -> None:
        """A run whose trajectory, keyframes and cloud are those of one of its maps.

        Args:
            path: of the directory.
            number: of the map, as in the names of its files: 1 is that with most frames.

        Raises:
            SourceError: if there is no directory.
            UsageError: if the run has no such map.
        """
        self.path, self.number = Path(path), number
        if not self.path.is_dir():
            raise SourceError(f"no run directory at {path}; name one that v2d-slam has written (results/<time>)")
        if not 1 <= number <= self.map_count:
            has = "one map" if self.map_count == 1 else f"maps 1 to {self.map_count}"
            raise UsageError(f"--map {number}: {path} has {has}")

    @property
    def map_count(self) -> int:
        """How many maps it has that nothing joined."""
        return next(n for n in count(1) if not (self.path / file_of_map(LISTING, n + 1)).is_file())

    def file(self, name: str) -> Path:
        """The file of the map that is called so where there is one alone."""
        return self.path / file_of_map(name, self.number)

    @property
    def scale_source(self) -> str:
        """Where the unit of the map comes from."""
        record = self.record()
        return record.maps[self.number - 1].scale_source if record.maps else record.scale_source

    @property
    def has_record(self) -> bool:
        """False of a run that was killed, and of a directory that is none."""
        return (self.path / RECORD).is_file()

    def record(self) -> RunRecord:
        """What `run.json` says."""
        path = self.path / RECORD
        values = read_json(path, dict)
        version = values.get("version", __version__)
        try:
            return _with_mask(checked(RunRecord, values, path), lambda mask: str(self.path.absolute() / mask))
        except SourceError as error:
            if version == __version__:
                raise
            words = f"{path} was written by v2d-slam {version}, which this one ({__version__}) cannot read"
            raise SourceError(f"{words} ({error.__cause__}); run v2d-slam again") from error

    def trajectory(self, online: bool = False) -> Trajectory:
        """T_wc of every frame; `online`: as first estimated, also of a run that was killed."""
        return read_tum(self.path / ONLINE if online else self.file(TRAJECTORY), torn_end=online)

    def cloud(self) -> PointCloud:
        """The fused points, world frame."""
        return read_ply(self.file(CLOUD))

    def keyframe_records(self) -> list[KeyframeRecord]:
        """The entries of `keyframes.json`, oldest first."""
        listing = self.file(LISTING)
        entries = read_json(listing, list)
        return [checked(KeyframeRecord, entry, listing, f"entry {n}") for n, entry in enumerate(entries)]

    def depth(self, record: KeyframeRecord) -> np.ndarray:
        """(h, w) float32 depth of a keyframe, map units, 0 unknown."""
        return read_depth(self._file(record.depth), record.depth_scale)

    def confidence(self, record: KeyframeRecord) -> np.ndarray:
        """(h, w) float32 confidence of a keyframe's depth in [0, 1]."""
        return read_confidence(self._file(record.confidence))

    def image(self, record: KeyframeRecord) -> np.ndarray:
        """(h, w, 3) uint8 RGB of a keyframe."""
        return read_color(self._file(record.color))

    def keyframes(self) -> tuple[Keyframe, ...]:
        """All keyframes with image and dense depth; coarse depth is not kept."""
        return tuple(self.keyframe(record) for record in self.keyframe_records())

    def keyframe(self, record: KeyframeRecord) -> Keyframe:
        """One keyframe with image and dense depth."""
        image, depth, confidence = self.image(record), self.depth(record), self.confidence(record)
        if not image.shape[:2] == depth.shape == confidence.shape == (record.height, record.width):
            raise SourceError(f"{self.file(LISTING)} is damaged: the files of keyframe {record.id} differ in size")
        inv_depth = np.where(depth > 0, 1 / np.maximum(depth, 1e-9), 0).astype(np.float32)
        dense = InvDepth.from_confidence(torch.from_numpy(inv_depth), torch.from_numpy(confidence))
        K, T_wc = (torch.tensor(m, dtype=torch.float64) for m in (record.K, record.T_wc))
        view = View(record.frame_id, record.time_ns, Image(image), K)
        return Keyframe(
            record.id, view, T_wc, dense, InvDepth.unknown((0, 0)), refined=True, parent_id=record.parent_id
        )

    def _file(self, name: str) -> Path:
        return (self.path / LISTING).with_name(name)


def require_square(name: str, rows: tuple[tuple[float, ...], ...], size: int) -> None:
    """Refuse a matrix of a record that has another size; raises ConfigError."""
    if len(rows) != size or any(len(row) != size for row in rows):
        raise ConfigError(f"{name} must be {size}x{size}")


def checked(cls: type, values: Any, path: Path, where: str = "") -> Any:
    """A dataclass from what a file holds.

    Raises:
        SourceError: naming the file, if the values do not fit.
    """
    try:
        return build_config(cls, values)
    except ConfigError as error:
        raise SourceError(f"{path} is damaged{f', {where}' if where else ''}: {error}; run v2d-slam again") from error

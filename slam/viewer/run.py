"""A finished run as the viewer shows it, read from its directory."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slam.errors import SourceError
from slam.frames import Image, Keyframe, Trajectory, View
from slam.inv_depth import InvDepth
from slam.io.files import read_text
from slam.io.images import read_color, read_confidence, read_depth
from slam.io.ply import PointCloud, read_ply
from slam.io.trajectory import read_tum
from slam.viewer.view_state import ViewState

PLAY_PERIOD_S = 0.25  # a keyframe, when played


@dataclass(frozen=True)
class FinishedRun:
    """What there is to see; at least one keyframe. Depths at the cells of a correspondence are not stored."""

    path: Path
    keyframes: tuple[Keyframe, ...]
    trajectory: Trajectory  # every frame, T_wc

    def fused_cloud(self) -> PointCloud:
        """The points of `map.ply`.

        Raises:
            SourceError: if it is missing or damaged.
        """
        return read_ply(self.path / "map.ply")

    def until(self, count: int, words: str) -> ViewState:
        """The run up to its keyframe number `count`, from 1; all frames with the last one."""
        current = self.keyframes[count - 1]
        until_ns = self.trajectory.time_ns[-1:].max(initial=0) if count == len(self.keyframes) else current.view.time_ns
        path = self.trajectory.T_wc[self.trajectory.time_ns <= until_ns, :3, 3]
        return ViewState(self.keyframes, count, path, current.T_wc.numpy(), current.view.image.rgb, words)


class Playback:
    """Shows a finished run, keyframe after keyframe when played."""

    is_live = False

    def __init__(self, run: FinishedRun) -> None:
        self.run = run
        self.title = f"v2d-view {run.path}"
        self.folder = run.path
        self.count = len(run.keyframes)
        self.is_playing = False
        self._played_s = 0.0
        self._shown: ViewState | None = None

    def play(self) -> None:
        """Play, from the start again if at the end, or pause."""
        self.is_playing = not self.is_playing and len(self.run.keyframes) > 1
        if self.is_playing and self.count == len(self.run.keyframes):
            self.count = 1
        self._played_s, self._shown = time.monotonic(), None

    def step(self) -> None:
        """One keyframe on, and pause."""
        self.is_playing = False
        self._advance()

    def shown(self) -> ViewState:
        """The keyframes until now."""
        now_s = time.monotonic()
        if self.is_playing and now_s - self._played_s >= PLAY_PERIOD_S:
            self._played_s = now_s
            self._advance()
        if self._shown is None:
            self._shown = self.run.until(self.count, self._words())
        return self._shown

    def _advance(self) -> None:
        self.count = min(self.count + 1, len(self.run.keyframes))
        self.is_playing = self.is_playing and self.count < len(self.run.keyframes)
        self._shown = None

    def _words(self) -> str:
        keyframes = self.run.keyframes
        mode = "playing" if self.is_playing else "paused" if self.count < len(keyframes) else "all shown"
        seconds = (keyframes[self.count - 1].view.time_ns - keyframes[0].view.time_ns) / 1e9
        return "\n".join(
            [
                f"keyframe {self.count} of {len(keyframes)}, {mode}",
                f"time {seconds:.2f} s",
                f"frames with a pose {len(self.run.trajectory)}",
            ]
        )


def read_run(path: Path) -> FinishedRun:
    """Read keyframes and trajectory of a run directory.

    Raises:
        SourceError: if it is no run, has no keyframes, or a file of it is missing or damaged.
    """
    if not path.is_dir():
        raise SourceError(f"no run directory at {path}; name one that v2d-slam has written (results/<time>)")
    listing = path / "keyframes" / "keyframes.json"
    text = read_text(listing, "list of keyframes")
    try:
        entries = json.loads(text)
        keyframes = tuple(_read_keyframe(path / "keyframes", entry) for entry in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{listing} is damaged ({error}); run v2d-slam again") from error
    if not keyframes:
        raise SourceError(f"the run {path} has no keyframes: there is nothing to show")
    return FinishedRun(path, keyframes, read_tum(path / "trajectory.txt"))


def _read_keyframe(folder: Path, entry: dict[str, Any]) -> Keyframe:
    image = read_color(folder / entry["color"])
    depth = torch.from_numpy(read_depth(folder / entry["depth"], entry["depth_scale"]))
    confidence = torch.from_numpy(read_confidence(folder / entry["confidence"]))
    K = torch.tensor(entry["K"], dtype=torch.float64)
    T_wc = torch.tensor(entry["T_wc"], dtype=torch.float64)
    if not image.shape[:2] == depth.shape == confidence.shape:
        raise ValueError(f"keyframe {entry['id']}: sizes {image.shape[:2]}, {depth.shape}, {confidence.shape} differ")
    if K.shape != (3, 3) or T_wc.shape != (4, 4):
        raise ValueError(f"keyframe {entry['id']}: K {K.shape} or T_wc {T_wc.shape} is no matrix of that kind")
    dense = InvDepth.from_confidence(torch.where(depth > 0, 1 / depth, 0), confidence)
    view = View(-1, int(entry["time_ns"]), Image(image), K)
    parent_id = int(entry.get("parent_id", -1))
    return Keyframe(int(entry["id"]), view, T_wc, dense, InvDepth.unknown((0, 0)), refined=True, parent_id=parent_id)

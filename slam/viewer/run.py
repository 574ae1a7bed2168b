"""A finished run as the viewer shows it, read from its directory."""

import time
from pathlib import Path

from slam.errors import SourceError
from slam.io.run import Run
from slam.viewer.view_state import ViewState

PLAY_PERIOD_S = 0.25  # a keyframe, when played


class FinishedRun:
    """What there is to see of a run directory; at least one keyframe."""

    def __init__(self, path: Path, number: int = 1) -> None:
        """Read keyframes and trajectory of a map.

        Raises:
            SourceError: if it is no run, has no keyframes, or a file of it is missing or damaged.
            UsageError: if it has no such map.
        """
        run = Run(path, number)
        self.number, self.map_count = number, run.map_count
        self.path = path
        self.keyframes = run.keyframes()
        self.fused_cloud = run.cloud  # asked for when it is drawn
        if not self.keyframes:
            raise SourceError(f"the run {path} has no keyframes: there is nothing to show")
        self.trajectory = run.trajectory()

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
        self.title = f"v2d-view {run.path}" + (f", map {run.number} of {run.map_count}" if run.map_count > 1 else "")
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

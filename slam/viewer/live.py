"""A run under way as the viewer shows it. The tracking thread hands over; the window, on another thread, takes."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from slam.frames import Estimate, Progress, Status
from slam.mapping.frame_log import FrameLog
from slam.threads import Mailbox
from slam.viewer.view_state import ViewState

RATE_PERIOD_S = 1.0  # frames per second are counted over at least so long
STOP_PERIOD_S = 0.1  # how often one who waits at the gate asks whether to stop


class Gate:
    """Lets frames pass, or holds them, or lets a single one pass."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._steps = 0
        self.is_open = True

    def toggle(self) -> None:
        """Close, or open."""
        with self._changed:
            self.is_open, self._steps = not self.is_open, 0
            self._changed.notify_all()

    def step(self) -> None:
        """Close behind one frame more."""
        with self._changed:
            self._steps = 0 if self.is_open else self._steps + 1
            self.is_open = False
            self._changed.notify_all()

    def open(self) -> None:
        """Let everything pass."""
        with self._changed:
            self.is_open = True
            self._changed.notify_all()

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Return when the next frame may pass, or once `stopped` says so."""
        with self._changed:
            while not (self.is_open or self._steps or stopped()):
                self._changed.wait(STOP_PERIOD_S)
            self._steps = max(self._steps - 1, 0)


class LiveRun:
    """What is known of a run under way."""

    is_live = True

    def __init__(self, folder: Path, total: int | None = None) -> None:
        """Nothing is known yet.

        Args:
            folder: of the run.
            total: frames of the source, if known.
        """
        self.folder = folder
        self.title = f"v2d-slam {folder}"
        self.gate = Gate()
        self._total = total
        self._mailbox: Mailbox[Progress] = Mailbox()
        self._estimates: queue.SimpleQueue[Estimate] = queue.SimpleQueue()
        self._frames = FrameLog()
        self._rate = Rate()
        self._progress: Progress | None = None
        self._was_open = True
        self._shown = ViewState((), 0, np.zeros((0, 3)), None, None, "waiting for the first frame")

    def publish(self, progress: Progress) -> None:
        """Hand over the state after a frame (tracking thread); never waits."""
        self._mailbox.post(progress)

    def add(self, estimates: Sequence[Estimate]) -> None:
        """Hand over new estimates (tracking thread); never waits."""
        for estimate in estimates:
            self._estimates.put(estimate)

    def play(self) -> None:
        """Pause tracking, or let it go on."""
        self.gate.toggle()

    def step(self) -> None:
        """Pause after one frame more."""
        self.gate.step()

    def shown(self) -> ViewState:
        """The newest state (window's thread)."""
        progress, is_open = self._mailbox.take(), self.gate.is_open
        if progress is None and is_open == self._was_open:
            return self._shown
        self._progress, self._was_open = progress or self._progress, is_open
        if self._progress is None:
            return self._shown
        while not self._estimates.empty():
            self._add(self._estimates.get())
        self._shown = self._moment(self._progress)
        return self._shown

    def _moment(self, progress: Progress) -> ViewState:
        map_id = progress.snapshot.map_id
        believed = tuple(k for k in progress.snapshot.of_map(map_id) if k.refined)
        estimate, frame = progress.snapshot.estimate, progress.frame
        is_placed = estimate is not None and estimate.status is Status.TRACKING
        return ViewState(
            keyframes=believed,
            count=len(believed),
            path=self._frames.poses(progress.snapshot.placements()).of_map(map_id).T_wc[:, :3, 3],
            T_wc=estimate.T_wc.numpy() if estimate is not None and is_placed else None,
            image=None if frame is None else frame.image,
            words=self._words(progress),
        )

    def _add(self, estimate: Estimate) -> None:
        if estimate.status is Status.TRACKING:
            self._frames.append(estimate)

    def _words(self, progress: Progress) -> str:
        counts, estimate = progress.counts, progress.snapshot.estimate
        maps = len({k.map_id for k in progress.snapshot.keyframes})
        is_metric = estimate is not None and estimate.metric
        state = progress.status.value + ("" if self._was_open else ", paused")
        return "\n".join(
            [
                f"{state}, {self._rate(counts.seen):.1f} frames/s",
                f"frame {counts.seen}" + (f" of {self._total}" if self._total else ""),
                f"lost {counts.lost}, dropped {counts.dropped}",
                f"keyframes {len(progress.snapshot.keyframes)}" + (f" of {maps} maps" if maps > 1 else ""),
                "scale in metres (sensor depth)" if is_metric else "scale unknown (monocular)",
            ]
        )


class Rate:
    """Frames per second of late."""

    def __init__(self) -> None:
        self._since: tuple[float, int] | None = None
        self._value = 0.0

    def __call__(self, seen: int) -> float:
        """The rate, given the frames seen so far."""
        now_s = time.monotonic()
        if self._since is None:
            self._since = (now_s, seen)
        elif now_s - self._since[0] >= RATE_PERIOD_S:
            self._value = (seen - self._since[1]) / (now_s - self._since[0])
            self._since = (now_s, seen)
        return self._value

"""The tracking thread's side of the backend: jobs go over, results come back."""

from collections import deque
from collections.abc import Callable

from slam.backend.backend import Job
from slam.frames import DensifyAndCloseLoops, Restore, Update, Window
from slam.threads import Inline, Worker

CAPACITY = 4  # jobs that wait


class BackendClient:
    """Two jobs for each keyframe: its window adjusted, which tracking waits for, then dense depth and loops.

    A recorded source waits where the backend is busy. A live one does not: windows come first, a second job is deferred
    until nothing else is under way, the newest first, at the latest to the end: on a busy computer the oldest would
    seek loops to keyframes that have left the map meanwhile. A window for which there is no room is skipped and
    counted; a later one will hold its keyframe.
    """

    def __init__(self, process: Callable[[Job], Update], live: bool = False, threads: bool = True) -> None:
        """`process` runs on a thread of its own; without `threads` each job is done as it is submitted."""
        self._worker: Worker[Job, Update] | Inline[Job, Update] = (
            Worker(process, "backend", CAPACITY) if threads else Inline(process)
        )
        self._live = live
        self._deferred: deque[DensifyAndCloseLoops] = deque()
        self.windows_skipped = 0
        self.jobs_deferred = 0  # second jobs that a later window overtook ...
        self._overtaken = 0  # ... and that still wait

    def restore(self, job: Restore) -> None:
        """Hand over the keyframes of an earlier map; waits for room."""
        self._worker.submit(job)

    def submit(self, window: Window) -> bool:
        """Hand over both jobs of the newest keyframe of a window; False if the window was skipped."""
        second = DensifyAndCloseLoops(window.keyframes[-1].id)
        if not self._live:
            self._worker.submit(window)
            self._worker.submit(second)
            return True
        if not self._worker.try_submit(window):
            self.windows_skipped += 1
            return False
        self.jobs_deferred += len(self._deferred) - self._overtaken
        self._overtaken = len(self._deferred)
        self._deferred.append(second)
        return True

    def results(self) -> list[Update]:
        """Results since the last call, without waiting. Raises what the backend died of."""
        found = self._worker.results()
        self._submit_deferred()
        return found

    def wait(self) -> list[Update]:
        """Results since the last call, at least one. Raises what the backend died of. Call it with a job under way."""
        return self._worker.wait()

    def close(self) -> list[Update]:
        """Finish all jobs, also those deferred; the last results. Raises what the backend died of."""
        while self._deferred:
            self._worker.submit(self._deferred.popleft())
        return self._worker.close()

    def _submit_deferred(self) -> None:
        """The newest second job, if nothing is under way that a window would have to wait for besides."""
        if self._deferred and self._worker.is_idle and self._worker.try_submit(self._deferred[-1]):
            self._deferred.pop()
            self._overtaken = min(self._overtaken, len(self._deferred))

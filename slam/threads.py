"""Threads with bounded queues whose errors travel: a worker, a reader, and a mailbox of one."""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

BUSY_THREADS = 2  # tracking and backend
MOST_HELPERS = 4
CLOSE_TIMEOUT_S = 2.0  # what a reader waits for its source: a camera needs less for a frame

Job = TypeVar("Job")
Result = TypeVar("Result")


def limit_threads() -> None:
    """One thread for each worker: tracking and backend then share two cores without fighting."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


class Helpers:
    """Threads beside tracking and backend, as many as there are cores for them: none on a computer with two."""

    def __init__(self, count: int = 0) -> None:
        self._pool = ThreadPoolExecutor(count, "helper") if count > 0 else None

    @staticmethod
    def spare() -> "Helpers":
        """As many as this process has cores beyond two, at most MOST_HELPERS."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Helpers(min(cores - BUSY_THREADS, MOST_HELPERS))

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        """`work` of each job, in their order; the caller waits. Raises what the first that failed raised."""
        if self._pool is None or len(jobs) < 2:
            return [work(job) for job in jobs]
        return list(self._pool.map(work, jobs))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class Worker(Generic[Job, Result]):
    """Runs `work(job)` for each submitted job on its own thread, in order; results are collected by `results`."""

    def __init__(self, work: Callable[[Job], Result], name: str, capacity: int = 2) -> None:
        self._work = work
        self._inbox: queue.Queue[Job | None] = queue.Queue(capacity)
        self._outbox: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._inbox.get()) is not None:
            try:
                self._outbox.put(self._work(job))
            except BaseException as error:  # handed to the next caller, who raises it
                self._error = error
                return
            self._inbox.task_done()

    def submit(self, job: Job) -> None:
        """Hand over a job; waits while the inbox is full. Raises what the worker died of, ValueError once closed."""
        self._put(job)

    def try_submit(self, job: Job) -> bool:
        """Hand over a job unless the inbox is full. Raises what the worker died of."""
        self._check()
        try:
            self._inbox.put_nowait(job)
        except queue.Full:
            return False
        return True

    @property
    def is_alive(self) -> bool:
        """True until the worker is closed, or has died."""
        return self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """True if every job that was handed over is done, or in a moment will be found to have failed."""
        return self._inbox.unfinished_tasks == 0

    def results(self) -> list[Result]:
        """Finished results since the last call, oldest first, without waiting. Raises what the worker died of."""
        found = []
        while not self._outbox.empty():
            found.append(self._outbox.get())
        if not found:
            self._raise()
        return found

    def wait(self) -> list[Result]:
        """Results since the last call, waiting for one if there is none. Raises what the worker died of.

        Call it only with a job under way.
        """
        while True:
            self._raise()
            try:
                return [self._outbox.get(timeout=0.1), *self.results()]
            except queue.Empty:
                continue

    def close(self) -> list[Result]:
        """Finish the jobs in the inbox, end the thread, return the last results.

        Raises what the worker died of; what it finished before that is left for `results`.
        """
        if self._thread.is_alive():
            self._put(None)
        self._thread.join()
        self._raise()
        return self.results()

    def _put(self, job: Job | None) -> None:
        while True:
            self._check()
            try:
                return self._inbox.put(job, timeout=0.1)
            except queue.Full:
                continue

    def _check(self) -> None:
        """Raise if nobody will take a job: waiting for room would never end."""
        alive = self._thread.is_alive()
        self._raise()
        if not alive:
            raise ValueError("the worker is closed")

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class Inline(Generic[Job, Result]):
    """The face of `Worker` without a thread: a job is done when it is submitted (inline mode)."""

    def __init__(self, work: Callable[[Job], Result]) -> None:
        self._work = work
        self._done: list[Result] = []

    def submit(self, job: Job) -> None:
        """Do the job now."""
        self._done.append(self._work(job))

    def try_submit(self, job: Job) -> bool:
        """Do the job now; there is always room."""
        self.submit(job)
        return True

    @property
    def is_idle(self) -> bool:
        """No job waits."""
        return True

    def results(self) -> list[Result]:
        """Results since the last call."""
        done, self._done = self._done, []
        return done

    def wait(self) -> list[Result]:
        """Results since the last call; nothing is ever under way."""
        return self.results()

    def close(self) -> list[Result]:
        """The last results."""
        return self.results()


class Reader(Generic[Job]):
    """Iterates over a source on its own thread; iterate over the reader to get the items.

    A recorded source waits when `capacity` items are ahead; of a live one the newest item is kept and `dropped` counts
    the others. Iteration ends early once `stopped` says so, also while no item comes.
    """

    def __init__(
        self, source: Iterable[Job], live: bool, capacity: int = 4, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.dropped = 0
        self._stopped = stopped
        self._source = source
        self._live = live
        self._queue: queue.Queue[tuple[Job] | None] = queue.Queue(1 if live else capacity)
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._source:
                if not self._put((item,)):
                    return
        except BaseException as error:  # raised again where the items are taken
            self._error = error
        self._put(None, keep=True)

    def _put(self, item: tuple[Job] | None, keep: bool = False) -> bool:
        """False once the reader is closed."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.0 if self._live and not keep else 0.1)
                return True
            except queue.Full:
                if self._live and not keep:
                    self._drop()
        return False

    def _drop(self) -> None:
        try:
            self._queue.get_nowait()
            self.dropped += 1
        except queue.Empty:
            return  # just taken: there is room now

    def __iter__(self) -> Iterator[Job]:
        while not self._stopped():
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                break
            yield item[0]
        else:
            return
        self._end()  # whoever iterates again must not wait
        if self._error is not None:
            raise self._error

    @property
    def is_alive(self) -> bool:
        """True while the source is read."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread and every iteration; items not yet taken are discarded.

        A source that is stuck (a camera that no longer answers) is left behind after CLOSE_TIMEOUT_S, with a WARNING.
        """
        self._closed.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("the source does not answer; it is left behind")
        self._end()

    def _end(self) -> None:
        """Leave nothing but the sentinel in the queue."""
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            with contextlib.suppress(queue.Full):  # by a source that did not hear of the end yet
                return self._queue.put_nowait(None)


class Mailbox(Generic[Job]):
    """Holds the newest item only; posting never waits."""

    def __init__(self) -> None:
        self._items: queue.Queue[Job] = queue.Queue(1)

    def post(self, item: Job) -> None:
        """Replace whatever is there."""
        while True:
            try:
                return self._items.put_nowait(item)
            except queue.Full:
                self.take()

    def take(self) -> Job | None:
        """The newest item, or None if there is none since the last call."""
        try:
            return self._items.get_nowait()
        except queue.Empty:
            return None

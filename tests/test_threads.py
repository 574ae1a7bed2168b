"""Threads: errors travel, full queues do not hang, live sources keep the newest, closing is prompt."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from slam import threads
from slam.threads import Helpers, Inline, Mailbox, Reader, Worker

PROMPT_S = 1.0  # far above what any of this takes on a busy machine, far below a hang
PATIENCE_S = 20.0


class Broken(Exception):
    pass


def fail_on(bad: int) -> Callable[[int], int]:
    def work(job: int) -> int:
        if job == bad:
            raise Broken(f"job {job}")
        return 10 * job

    return work


def in_time(action: Callable[[], object]) -> object:
    """The outcome of an action on another thread; fails rather than hangs."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(action())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert outcome, "it hangs"
    return outcome[0]


def wait_for(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


@pytest.mark.parametrize("make", [lambda work: Worker(work, "test"), Inline], ids=["Worker", "Inline"])
def test_worker_and_inline_do_the_same_in_order(make):
    backend = make(fail_on(-1))
    found = []
    for job in range(20):
        backend.submit(job)
        found += backend.results()
    found += in_time(backend.close)
    assert found == [10 * job for job in range(20)]
    assert backend.results() == [] and in_time(backend.close) == []


@pytest.mark.parametrize("make", [lambda work: Worker(work, "test"), Inline], ids=["Worker", "Inline"])
def test_a_failing_job_surfaces(make):
    backend = make(fail_on(1))

    def use() -> None:
        for job in range(50):
            backend.submit(job)
            backend.results()

    error = in_time(use)
    assert isinstance(error, Broken) and str(error) == "job 1"


def test_results_before_the_failure_are_not_lost():
    worker = Worker(fail_on(2), "test", capacity=3)
    for job in range(3):
        worker.submit(job)
    wait_for(lambda: not worker.is_alive)
    assert worker.results() == [0, 10]
    for call in (worker.results, worker.close, lambda: worker.submit(3), lambda: worker.try_submit(3)):
        with pytest.raises(Broken, match="job 2"):
            call()


def test_submit_to_a_dead_worker_with_a_full_inbox_raises():
    gate = threading.Event()

    def work(job: int) -> int:
        gate.wait(PATIENCE_S)
        raise Broken("late")

    worker = Worker(work, "test", capacity=1)
    worker.submit(0)
    wait_for(lambda: worker.try_submit(1))  # the first has been taken, the inbox is full now
    assert not worker.try_submit(2)
    threading.Timer(0.05, gate.set).start()
    assert isinstance(in_time(lambda: worker.submit(2)), Broken)  # it was waiting for room when the worker died
    assert isinstance(in_time(worker.close), Broken)


def test_close_leaves_what_was_finished_before_the_failure():
    worker = Worker(fail_on(1), "test", capacity=2)
    worker.submit(0)
    worker.submit(1)
    assert isinstance(in_time(worker.close), Broken)
    assert worker.results() == [0]


def test_a_closed_worker_takes_no_more_jobs():
    worker = Worker(fail_on(-1), "test", capacity=1)
    worker.close()
    for _ in range(3):  # more than the inbox holds: waiting for room would never end
        assert isinstance(in_time(lambda: worker.submit(1)), ValueError)
        assert isinstance(in_time(lambda: worker.try_submit(1)), ValueError)


def test_close_finishes_the_jobs_in_the_inbox():
    def slow(job: int) -> int:
        time.sleep(0.03)
        return job

    worker = Worker(slow, "test", capacity=4)
    for job in range(4):
        worker.submit(job)
    assert worker.close() == [0, 1, 2, 3]


def test_a_recorded_source_waits_and_loses_nothing():
    made = []

    def source() -> Iterator[int]:
        for n in range(40):
            made.append(n)
            yield n

    reader = Reader(source(), live=False, capacity=3)
    wait_for(lambda: len(made) >= 4)
    time.sleep(0.05)
    assert len(made) == 4  # three in the queue, one in the hand
    assert list(reader) == list(range(40)) and reader.dropped == 0
    assert in_time(lambda: list(reader)) == []  # a second iteration ends at once
    reader.close()


def test_a_live_source_keeps_the_newest_and_counts_the_others():
    taken, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        taken.wait(PATIENCE_S)  # the tracker is busy with frame 0
        yield from range(1, 10)
        go_on.wait(PATIENCE_S)
        yield 10

    reader = Reader(source(), live=True)
    frames = iter(reader)
    assert next(frames) == 0
    taken.set()
    wait_for(lambda: reader.dropped == 8)
    assert next(frames) == 9
    go_on.set()
    assert list(frames) == [10]  # the last one is not pushed out by the end of the source
    assert reader.dropped == 8
    reader.close()


@pytest.mark.parametrize("live", [False, True])
def test_an_error_of_the_source_comes_after_its_last_item(live):
    def source() -> Iterator[int]:
        yield 1
        raise Broken("unplugged")

    reader, got = Reader(source(), live), []
    with pytest.raises(Broken, match="unplugged"):
        for item in reader:
            got.append(item)
    assert got == [1]
    assert isinstance(in_time(lambda: list(reader)), Broken)
    reader.close()


@pytest.mark.parametrize("live", [False, True])
def test_close_is_prompt_in_the_middle_of_a_source(live, monkeypatch):
    """On a busy machine a single close may have to wait for its turn."""

    def endless() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1
            time.sleep(0.001)

    def seconds_to_close() -> float:
        reader = Reader(endless(), live)
        next(iter(reader))
        start = time.monotonic()
        reader.close()
        seconds = time.monotonic() - start
        assert not reader.is_alive
        assert in_time(lambda: list(reader)) == []
        return seconds

    monkeypatch.setattr(threads, "CLOSE_TIMEOUT_S", PATIENCE_S)
    assert any(seconds_to_close() < PROMPT_S for _ in range(5))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nothing_is_delivered_after_close_whether_the_queue_was_full_or_not(count):
    """A source that has so many items, and then none for a while."""
    gate, ready = threading.Event(), threading.Event()

    def halting() -> Iterator[int]:
        yield from range(count)
        ready.set()
        gate.wait(PATIENCE_S)

    reader = Reader(halting(), live=False)
    assert ready.wait(PATIENCE_S)
    threading.Timer(0.05, gate.set).start()
    reader.close()
    assert in_time(lambda: list(reader)) == []


def test_closing_wakes_whoever_waits_for_an_item():
    gate = threading.Event()

    def silent() -> Iterator[int]:
        gate.wait(PATIENCE_S)
        yield 1

    reader = Reader(silent(), live=False)
    threading.Timer(0.05, gate.set).start()
    waiting = threading.Thread(target=lambda: list(reader), daemon=True)
    waiting.start()
    reader.close()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


def test_a_reader_of_a_silent_source_ends_when_stopped():
    """Ctrl-C must not wait for the next frame of a camera that gives none."""
    gate, stop = threading.Event(), threading.Event()

    def silent() -> Iterator[int]:
        yield 0
        gate.wait(PATIENCE_S)

    reader, got = Reader(silent(), live=True, stopped=stop.is_set), []
    waiting = threading.Thread(target=lambda: got.extend(reader), daemon=True)
    waiting.start()
    wait_for(lambda: got == [0])
    assert waiting.is_alive()
    stop.set()
    waiting.join(PATIENCE_S / 2)
    assert not waiting.is_alive()
    gate.set()
    reader.close()


def test_a_stuck_source_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr(threads, "CLOSE_TIMEOUT_S", 0.1)
    gate = threading.Event()

    def stuck() -> Iterator[int]:
        yield 0
        gate.wait(PATIENCE_S)
        yield 1

    reader = Reader(stuck(), live=True)
    assert next(iter(reader)) == 0
    start = time.monotonic()
    reader.close()
    assert time.monotonic() - start < PATIENCE_S / 2
    assert "does not answer" in caplog.text
    gate.set()
    wait_for(lambda: not reader.is_alive)
    assert in_time(lambda: list(reader)) == []


def test_mailbox_holds_the_newest_only():
    box: Mailbox[int] = Mailbox()
    assert box.take() is None
    for n in range(5):
        box.post(n)
    assert box.take() == 4 and box.take() is None


def test_mailbox_between_threads_gives_increasing_items():
    box: Mailbox[int] = Mailbox()
    poster = threading.Thread(target=lambda: [box.post(n) for n in range(2000)], daemon=True)
    poster.start()
    got: list[int] = []
    while poster.is_alive() or not got or got[-1] != 1999:
        item = box.take()
        if item is not None:
            got.append(item)
    assert got == sorted(set(got)) and got[-1] == 1999


@pytest.mark.parametrize("count", [-1, 0, 1, 3])
def test_helpers_keep_the_order_and_raise_what_failed_first(count):
    helpers, threads = Helpers(count), set()

    def work(n: int) -> int:
        threads.add(threading.current_thread().name)
        time.sleep(0.02 if n == 0 else 0)
        if n > 5:
            raise ZeroDivisionError(str(n))
        return n * n

    assert helpers.map(work, range(6)) == [0, 1, 4, 9, 16, 25]
    assert (threading.main_thread().name in threads) == (count <= 0)
    with pytest.raises(ZeroDivisionError, match="6"):
        helpers.map(work, [1, 6, 7])

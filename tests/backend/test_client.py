"""The hand-over to the backend: a recording waits for it, a camera does not, and what had no room is done later."""

import threading

import numpy as np
import pytest
import torch

from slam.backend.client import CAPACITY, BackendClient
from slam.frames import DensifyAndCloseLoops, Image, Keyframe, Restore, Update, View, Window
from slam.geometry import se3
from slam.inv_depth import InvDepth


def keyframe(n: int) -> Keyframe:
    view = View(n, n, Image(np.zeros((8, 8, 3), np.uint8)), torch.eye(3, dtype=torch.float64))
    return Keyframe(n, view, se3.identity(), InvDepth.unknown((8, 8)), InvDepth.unknown((2, 2)))


def window(n: int) -> Window:
    return Window((keyframe(n),))


class Slow:
    """A backend that works on nothing until it may."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.done: list[tuple[str, int]] = []

    def __call__(self, job: Window | DensifyAndCloseLoops | Restore) -> Update:
        assert self.may_go.wait(10)
        number = job.keyframe_id if isinstance(job, DensifyAndCloseLoops) else job.keyframes[-1].id
        self.done.append((type(job).__name__, number))
        return Update((), {})


@pytest.mark.parametrize("threads", [True, False])
def test_both_jobs_of_each_keyframe_are_done_in_order(threads):
    backend = Slow()
    backend.may_go.set()
    client = BackendClient(backend, threads=threads)
    client.restore(Restore((keyframe(9),)))
    assert all(client.submit(window(n)) for n in range(3))
    found = client.close()
    pairs = [(name, n) for n in range(3) for name in ("Window", "DensifyAndCloseLoops")]
    assert backend.done == [("Restore", 9), *pairs] and len(found) == 7
    assert (client.windows_skipped, client.jobs_deferred) == (0, 0)


def test_a_camera_does_not_wait_and_no_second_job_is_lost():
    """The inbox is full after a few keyframes: later windows are skipped, each second job of the others is done."""
    backend = Slow()
    client = BackendClient(backend, live=True)
    taken = [n for n in range(12) if client.submit(window(n))]
    assert 2 <= len(taken) <= CAPACITY + 1 and client.windows_skipped == 12 - len(taken)
    assert client.jobs_deferred == len(taken) - 1
    backend.may_go.set()
    client.close()
    assert sorted(n for name, n in backend.done if name == "Window") == taken
    assert sorted(n for name, n in backend.done if name == "DensifyAndCloseLoops") == taken


def test_windows_come_first():
    """Of three keyframes made while the backend is busy, all windows are done before any second job."""
    backend = Slow()
    client = BackendClient(backend, live=True)
    assert all(client.submit(window(n)) for n in range(3))
    assert client.results() == [] and client.jobs_deferred == 2
    backend.may_go.set()
    client.close()
    assert [name for name, _ in backend.done] == 3 * ["Window"] + 3 * ["DensifyAndCloseLoops"]


def test_a_second_job_that_nothing_overtakes_is_not_counted_as_deferred():
    backend = Slow()
    backend.may_go.set()
    client = BackendClient(backend, live=True)
    for n in range(3):
        client.submit(window(n))
        done = 0
        while done < 2:
            done += len(client.results())
    client.close()
    assert client.jobs_deferred == 0 and len(backend.done) == 6


def test_a_deferred_job_is_handed_over_as_soon_as_nothing_else_is_under_way():
    """The newest first: what an old keyframe could be compared with may have left the map."""
    backend = Slow()
    client = BackendClient(backend, live=True)
    taken = [n for n in range(12) if client.submit(window(n))]
    backend.may_go.set()
    found = []
    for _ in range(500):
        found += client.results()
        if len(found) == 2 * len(taken):
            break
        threading.Event().wait(0.01)
    assert len(found) == 2 * len(taken)
    assert [n for name, n in backend.done if name == "DensifyAndCloseLoops"] == taken[::-1]
    client.close()


def test_what_the_backend_died_of_is_raised():
    def die(job: object) -> Update:
        raise ZeroDivisionError("a mistake in the program")

    for live in (True, False):
        client = BackendClient(die, live=live)
        client.submit(window(0))
        with pytest.raises(ZeroDivisionError):
            client.close()

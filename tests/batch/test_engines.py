"""Tasks worked on by threads of this computer, and on a Ray cluster of two processes; the programs are pretended."""

import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from slam.batch import engines
from slam.batch.engines import Share, free_memory, parallel_jobs, run_here, run_on_ray
from slam.batch.tasks import COMPLETE
from slam.io.run import Run
from slam.processes import own_python

KINDS = {"good": "works", "slow": "slow once", "bad": "fails", "deadly": "hangs", "long": "slow once"}
SHARE = Share(cores=1.0, gpus=None, memory_bytes=200 << 20)


def never() -> bool:
    return False


def ended(results) -> dict[str, str]:
    """How each task ended, by the name of its recording."""
    return {task.name: record.words(task) for task, record in filter(None, results)}


def test_one_failure_does_not_end_the_others(task_of, tmp_path):
    """Of several kinds: a program that fails, a record that is gone, and one that is damaged."""
    tasks = [task_of(name, "works") for name in ("a", "b", "c", "d")] + [task_of("e", "fails", retries=0)]
    tasks[0].file.unlink()
    tasks[1].file.write_text("{")
    found = ended(run_here(tasks, 2, never))
    assert found == {"a": "failed: works", "b": "failed: works", "c": COMPLETE, "d": COMPLETE, "e": "failed: fails"}


def test_so_many_at_a_time(task_of, starts, pretended):
    """Both processes are seen while they wait for the end."""
    tasks = [task_of("a", "slow once"), task_of("b", "slow once"), task_of("c", "works")]
    stop = threading.Event()
    results = run_here(tasks, 2, stop.is_set)
    for _ in results:
        if all((pretended / f"{name}.ready").exists() for name in "ab"):
            time.sleep(0.5)  # for a third, were there one
            assert sum(psutil.pid_exists(pid) for _, _, pid in starts()) == 2
            stop.set()
            break
    assert set(ended(results).values()) == {"not finished"}
    assert len(starts()) == 2
    assert ended(run_here(tasks, 2, never)) == dict.fromkeys("abc", COMPLETE)


def test_a_bug_is_not_taken_for_a_failure(task_of, monkeypatch):
    monkeypatch.setattr(engines, "perform", lambda task, stopped: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(run_here([task_of("a", "works")], 1, never))


def test_jobs_are_as_many_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20 << 30))
    monkeypatch.setattr(engines, "CGROUP_MEMORY", ())
    assert parallel_jobs(Share(1, None, 1 << 30)) == 16
    assert parallel_jobs(Share(2, None, 1 << 30)) == 8
    assert parallel_jobs(Share(1, None, 4 << 30)) == 5
    assert parallel_jobs(Share(1, None, 40 << 30)) == 1


def test_the_memory_of_a_container_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(engines, "CGROUP_MEMORY", (tmp_path / "memory.max", tmp_path / "missing"))
    assert free_memory() == 1048576
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


# Ray


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ray_tries_what_a_lost_worker_did_again_with_a_bound_and_stops_in_order(
    task_of, starts, pretended, monkeypatch
):
    """Two workers. The program of one that is killed dies with it, and its recording is done once, by another; one
    that is lost each time is given up. What is under way when all is stopped keeps what it has."""
    ray = pytest.importorskip("ray", reason="ray is not installed (the extra ray)")
    begin = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: begin(num_cpus=2, **options))
    tasks = [task_of(name, word, timeout_s=600) for name, word in KINDS.items()]
    stop, killed, found = threading.Event(), {}, {}
    for result in run_on_ray(tasks, None, SHARE, stop.is_set):
        if result is not None:
            found[result[0].name] = result[1]
        for name, _, pid in starts():
            is_next = name == "deadly" or (name == "slow" and name not in killed.values())
            if is_next and pid not in killed and psutil.pid_exists(pid):
                os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
                killed[pid] = name
        if (pretended / "long.ready").exists() and "deadly" in found:
            stop.set()
    words = {task.name: found[task.name].words(task) for task in tasks}
    assert words == {
        "good": COMPLETE,
        "slow": COMPLETE,
        "bad": "failed: fails",
        "deadly": "failed: hangs",
        "long": "not finished",
    }
    assert found["slow"].starts == 2 and list(killed.values()).count("deadly") == 2
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in killed)
    assert found["bad"].error == "v2d-slam: the recording is damaged"
    assert found["deadly"].error.startswith("its worker was lost 2 times: ")
    assert Run(tasks[-1].run).record().outcome.end == "stopped by the user"
    assert sorted(name for name, _, _ in starts()) == sorted(
        ["good", "slow", "slow", "bad", "bad", "deadly", "deadly", "long"]
    )


def test_what_waits_for_a_program_is_light():
    code = "import sys, slam.batch.engines; print([name for name in ('torch', 'cv2') if name in sys.modules])"
    done = subprocess.run(own_python(code), capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr

"""Where tasks are worked on: by threads here, each of which waits for a process, or on a Ray cluster."""

import importlib
import logging
import os
import queue
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from slam.batch.tasks import Task, TaskRecord, perform, read_record, write_record
from slam.errors import OutputError, SlamError, UsageError, one_line

log = logging.getLogger(__name__)

TICK_S = 1.0
HOST_AND_PORT = re.compile(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)")  # of the address of a cluster
ANSWER_S = 10.0  # until it must have answered
CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

Results = Iterator[tuple[Task, TaskRecord] | None]  # None about every TICK_S, while nothing ends
Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Share:
    """What one recording gets."""

    cores: float
    gpus: float | None  # of a cluster; None: one, where it has any
    memory_bytes: int


def parallel_jobs(share: Share) -> int:
    """How many recordings at a time fit this computer: its cores, and the memory that is free now."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(cores / share.cores), free_memory() // share.memory_bytes))


def free_memory() -> int:
    """Bytes that this process and its children may still take, by the computer and by its container."""
    free = [int(psutil.virtual_memory().available)]
    for path in CGROUP_MEMORY:
        if path.is_file() and (limit := path.read_text().strip()).isdecimal():
            free.append(int(limit))
    return min(free)


def run_here(tasks: Sequence[Task], jobs: int, stopped: Stopped) -> Results:
    """Work on tasks, so many at a time.

    Yields:
        Each task as it ends, with its record; those that were not begun when `stopped` said so are left out.
    """
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[Task, TaskRecord] | BaseException | None] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)

    def work() -> None:
        try:
            while not stopped():
                task = waiting.get_nowait()
                ended.put((task, settled(task, stopped)))
        except queue.Empty:
            pass
        except BaseException as error:  # raised again where the results are taken
            ended.put(error)
        ended.put(None)

    working = min(jobs, len(tasks))
    for number in range(working):
        threading.Thread(target=work, name=f"batch {number}", daemon=True).start()
    while working:
        try:
            result = ended.get(timeout=TICK_S)
        except queue.Empty:
            yield None
            continue
        if isinstance(result, BaseException):
            raise result
        if result is None:
            working -= 1
        else:
            yield result


def settled(task: Task, stopped: Stopped) -> TaskRecord:
    """`perform`, of which an expected failure is no more than the end of this task."""
    try:
        return perform(task, stopped)
    except SlamError as error:
        return lost(task, str(error))


def lost(task: Task, error: str) -> TaskRecord:
    """The record of a task that could not be worked on; written, where that is possible."""
    try:
        record = replace(read_record(task.file), has_failed=True, error=error)
        write_record(task.file, record)
    except OutputError as failure:
        log.error("%s", failure)
    except SlamError:
        record = TaskRecord(source=task.name, key="", arguments=(), has_failed=True, error=error)
    return record


def run_on_ray(tasks: Sequence[Task], address: str | None, share: Share, stopped: Stopped) -> Results:
    """Work on tasks on a Ray cluster; Ray chooses node and GPU for each, and tries one whose worker is lost again.

    Args:
        address: of the cluster; None: that of $RAY_ADDRESS, else one that runs here, else a new one on this computer.

    Yields:
        As `run_here`.

    Raises:
        UsageError: if Ray is not installed, or there is no such cluster.
    """
    ray = import_ray()
    _connect(ray, address)
    try:
        yield from _run_connected(ray, tasks, share, stopped)
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """The module; raises UsageError if it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"--ray needs the package ray ({error}): pip install 'v2d-slam[ray]'") from error


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that begins here reports to nobody ...
    os.environ.setdefault("RAY_worker_niceness", "0")  # ... and works as v2d-batch without it does
    try:
        if address and (found := HOST_AND_PORT.fullmatch(address)):
            socket.create_connection((found[1], int(found[2])), ANSWER_S).close()  # Ray itself tries for minutes
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        words = one_line(" ".join(str(error).split()))
        raise UsageError(f"no Ray cluster at {address or 'this computer'}: {words}") from error


def _run_connected(ray: Any, tasks: Sequence[Task], share: Share, stopped: Stopped) -> Results:
    gpus = share.gpus
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    wanted = {"CPU": share.cores, "GPU": gpus, "memory": float(share.memory_bytes)}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    log.info("Ray: %d node%s, %s", len(nodes), "s" if len(nodes) != 1 else "", _words(ray.cluster_resources()))
    if not any(all(node.get(name, 0.0) >= value for name, value in wanted.items()) for node in nodes):
        log.warning("no node of the cluster has %s, which a recording is to get: waiting for one", _words(wanted))
    work = ray.remote(num_cpus=share.cores, num_gpus=gpus, memory=share.memory_bytes)(perform_on_node)
    under_way = {work.options(max_retries=task.retries, name=task.name).remote(task): task for task in tasks}
    is_cancelled = False
    while under_way:
        if stopped() and not is_cancelled:
            is_cancelled = True
            for reference in under_way:
                ray.cancel(reference)
        ended, _ = ray.wait(list(under_way), timeout=TICK_S)
        for reference in ended:
            task = under_way.pop(reference)
            yield task, _result(ray, reference, task)
        if not ended:
            yield None


def _result(ray: Any, reference: Any, task: Task) -> TaskRecord:
    """The record that a task has left."""
    try:
        record: TaskRecord = ray.get(reference)
    except ray.exceptions.TaskCancelledError:  # before it began
        return read_record(task.file)
    except ray.exceptions.RayError as error:
        words = one_line(" ".join(str(error).split()))
        return lost(task, f"its worker was lost {task.retries + 1} times: {words}")
    return record


def _words(resources: dict[str, float]) -> str:
    memory = resources.get("memory", 0.0) / 2**30
    gpus = f", {resources['GPU']:g} GPUs" if resources.get("GPU") else ""
    return f"{resources.get('CPU', 0.0):g} cores{gpus}, {memory:.1f} GiB"


def perform_on_node(task: Task) -> TaskRecord:
    """`settled` as a task of Ray, which cancels it by SIGINT."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        return settled(task, stop.is_set)
    finally:
        signal.signal(signal.SIGINT, before)

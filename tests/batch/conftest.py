"""A program that stands for v2d-slam, and tasks that run it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slam.batch.child import Limits
from slam.batch.tasks import Step, Task, TaskRecord, write_record
from slam.io.run import ONLINE
from slam.io.run import write_record as write_run
from slam.io.run_directory import RunDirectory
from slam.io.run_record import Outcome, RunRecord

PRETENDED = """
import os, shutil, signal, sys, time
from pathlib import Path

what, here = sys.argv[1], Path(__file__).parent
out = Path(sys.argv[sys.argv.index("--out") + 1]) if "--out" in sys.argv else None
name = out.parent.name if out else "step"
with (here / "started").open("a") as file:
    file.write(f"{name} {what} {os.getpid()}\\n")

def leave(run):
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(here / run, out)

def first_time():
    marker = here / f"{name}.seen"
    if marker.exists():
        return False
    marker.touch()
    return True

def wait(seconds=1000):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)

if what == "fails" or (what == "fails once" and first_time()):
    print("INFO: looking", "v2d-slam: the recording is damaged", sep="\\n", file=sys.stderr)
    sys.exit(1)
if what == "usage":
    print("v2d-slam: no such setting", file=sys.stderr)
    sys.exit(2)
if what == "dies":
    os.kill(os.getpid(), signal.SIGSEGV)
if what == "hangs":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wait()
if what == "fills memory":
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))
        time.sleep(0.01)
if what == "slow once" and first_time():
    def stop(*_):
        leave("stopped")
        sys.exit(0)
    signal.signal(signal.SIGINT, stop)
    (here / f"{name}.ready").touch()
    wait()
if out:
    leave("complete")
"""


@pytest.fixture
def pretended(tmp_path: Path, run_record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the program `pretended`, whose first word says what it does, and what it leaves; it writes down
    when it is started: the recording, the word, and its process."""
    folder = tmp_path / "pretended"
    for name, end in (("complete", "complete"), ("stopped", "stopped by the user")):
        run = RunDirectory(folder / name)
        write_run(run, replace(run_record, outcome=Outcome(end)))
        ate = {"evaluation": {"ate_m": {"sim3": {"rmse": 0.01234}}}}
        run.write_json("metrics.json", {"frames_seen": 80, "poses": 60, **ate})
        run.write_text(ONLINE, "")
    (folder / "pretended.py").write_text(PRETENDED)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def starts(pretended: Path) -> Callable[[], list[tuple[str, str, int]]]:
    """What was started so far: recording, word, process."""

    def read() -> list[tuple[str, str, int]]:
        file = pretended / "started"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(line.split()[0], " ".join(line.split()[1:-1]), int(line.split()[-1])) for line in lines]

    return read


@pytest.fixture
def task_of(pretended: Path, tmp_path: Path) -> Callable[..., Task]:
    """Makes a task that has not begun, by what its program does."""

    def make(name: str, *words: str, retries: int = 1, timeout_s: float = 60.0, memory_mb: int = 500) -> Task:
        track, *then = [Step(f"{'then ' * (n > 0)}{word}", "pretended", (word,)) for n, word in enumerate(words)]
        limits = Limits(timeout_s, memory_mb << 20)
        task = Task(name, str(tmp_path / "out"), track, tuple(then), limits, retries, str(tmp_path))
        write_record(task.file, TaskRecord(f"/recordings/{name}", name, ()))
        return task

    return make

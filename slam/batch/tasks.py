"""The programs to run on one recording, in turn: the same function does it on this computer and on a Ray cluster.

What is done is kept in a file of its own for each recording, so that the same command goes on where it was cut off.
This module waits in as many processes as there are runs: it loads no torch.
"""

import json
import shutil
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from slam.batch.child import Ending, Limits, run_program
from slam.errors import ConfigError, OutputError, SourceError, without_secrets
from slam.io.files import read_json, reason, write_text
from slam.settings import build_config, dump_config

FOLDER = "batch"  # of records, logs and attempts, in the folder of all results
RUN = "{run}"  # in the arguments of a step stands for the run directory
RUN_FILES = ("run.json", "trajectory_online.txt")  # every run has one of them
COMPLETE, STOPPED = "complete", "stopped by the user"


@dataclass(frozen=True)
class Step:
    """A program that is run on a recording."""

    word: str  # what it is called in the record
    module: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A recording, and what is to be done with it."""

    name: str  # of its results
    out: str  # folder of all results, absolute, the same on all computers
    track: Step  # makes the run directory, which it is given by `--out`
    then: tuple[Step, ...]  # work on that directory, each on what the one before left
    limits: Limits
    retries: int  # times that a step which failed is tried again
    folder: str  # to work in

    @property
    def run(self) -> Path:
        """The run directory."""
        return Path(self.out) / self.name

    @property
    def file(self) -> Path:
        """Of its record."""
        return Path(self.out) / FOLDER / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Of what its programs print."""
        return self.file.with_suffix(".log")

    @property
    def attempts(self) -> Path:
        """Folder of runs that have not ended."""
        return Path(self.out) / FOLDER / "attempts" / self.name

    @property
    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return (self.track, *self.then)


@dataclass(frozen=True)
class TaskRecord:
    """What is known of the work on a recording; kept in a file."""

    source: str  # without passwords and tokens of an address
    key: str  # by which the recording is known, with them
    arguments: tuple[str, ...]  # of `v2d-slam`, beside the recording's own
    done: tuple[str, ...] = ()  # words of the steps that ended well
    tries: int = 0  # of the step under way, that failed
    has_failed: bool = False  # and is not tried again
    error: str = ""  # of the last try that failed
    starts: int = 0  # of programs, in all
    seconds: float = 0.0  # that they took, in all

    def left(self, task: Task) -> list[Step]:
        """The steps that are not done."""
        return [step for step in task.steps if step.word not in self.done]

    def is_finished(self, task: Task) -> bool:
        """True if every step is done, or one is not tried again."""
        return self.has_failed or not self.left(task)

    def words(self, task: Task) -> str:
        """How far it is, for the table."""
        if not self.left(task):
            return COMPLETE
        return f"failed: {self.left(task)[0].word}" if self.has_failed else "not finished"


def read_record(path: Path) -> TaskRecord:
    """The record of a file; raises SourceError if it is missing or damaged."""
    try:
        return build_config(TaskRecord, read_json(path, dict))
    except ConfigError as error:
        raise SourceError(f"{path} is damaged: {error}; remove it to begin this recording anew") from error


def write_record(path: Path, record: TaskRecord) -> None:
    """Write the record as a whole; raises OutputError."""
    write_text(path, json.dumps(dump_config(record), indent=2) + "\n")


def perform(task: Task, stopped: Callable[[], bool]) -> TaskRecord:
    """Do what is left of a task; an earlier start may have done some of it.

    Raises:
        SlamError: if its record can be neither read nor written.
    """
    if not task.file.is_file():
        raise SourceError(f"{socket.gethostname()} does not see {task.file}: --out must be a path that all nodes share")
    record = read_record(task.file)
    while not record.is_finished(task) and not stopped():
        step = record.left(task)[0]
        record = replace(record, starts=record.starts + 1)
        write_record(task.file, record)
        begin_s = time.monotonic()
        ending = _tracked(task, stopped) if step is task.track else _run(task, step, (), stopped)
        record = _noted(record, task, step, ending, time.monotonic() - begin_s)
        write_record(task.file, record)
        if ending.error == STOPPED:
            break
    return record


def _noted(record: TaskRecord, task: Task, step: Step, ending: Ending, seconds: float) -> TaskRecord:
    """The record after a step has ended."""
    record = replace(record, seconds=round(record.seconds + seconds, 3))
    if not ending.error:
        return replace(record, done=(*record.done, step.word), tries=0, error="")
    if ending.error == STOPPED:
        return record
    tries = record.tries + 1
    has_failed = ending.is_usage or tries > task.retries
    return replace(record, tries=tries, has_failed=has_failed, error=ending.error)


def _run(task: Task, step: Step, more: tuple[str, ...], stopped: Callable[[], bool]) -> Ending:
    """Run the program of a step, with its name and its time in the log."""
    host, folder = socket.gethostname(), Path(task.folder)
    if not folder.is_dir():
        words = f"{host} does not see {folder}, where v2d-batch was started"
        return Ending(error=f"{words}: start it in a folder that all nodes share")
    arguments = [*step.arguments, *more]
    try:
        with task.log.open("a", encoding="utf-8") as log:
            words = without_secrets(f"{host}: {step.word} {' '.join(arguments)}")
            log.write(f"== {datetime.now():%Y-%m-%d %H:%M:%S} {words}\n")
        return run_program(step.module, arguments, task.log, task.limits, stopped, folder)
    except OSError as error:
        raise OutputError(f"cannot write {task.log}: {reason(error)}") from error


def _tracked(task: Task, stopped: Callable[[], bool]) -> Ending:
    """Track the recording into a folder that nobody else knows, then move it to its place: where another process works
    on the same recording, one that was taken for lost, they do not mix."""
    shutil.rmtree(task.attempts, ignore_errors=True)
    attempt = task.attempts / uuid.uuid4().hex
    ending = _run(task, task.track, ("--out", str(attempt)), stopped)
    if not ending.error and not is_complete(attempt):
        ending = replace(ending, error=STOPPED if stopped() else f"{task.track.word} was stopped by someone else")
    if task.track.word in read_record(task.file).done:  # by that other process
        ending = Ending(0)
    elif any((attempt / name).exists() for name in RUN_FILES):
        try:
            if task.run.exists():
                task.run.rename(task.attempts / "earlier")
            attempt.rename(task.run)
        except OSError as error:
            raise OutputError(f"cannot put the results at {task.run}: {reason(error)}") from error
    shutil.rmtree(task.attempts, ignore_errors=True)
    return ending


def is_complete(run: Path) -> bool:
    """True of the directory of a run that came to the end of its recording, with everything written."""
    try:
        values = read_json(run / RUN_FILES[0], dict)
    except SourceError:
        return False
    return values.get("outcome", {}).get("end") == COMPLETE and not values.get("missing")

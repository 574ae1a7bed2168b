"""The folder of all results: who works in it, which recordings it knows, and how far they are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from slam.batch.child import Limits
from slam.batch.recordings import key_of, name_recordings
from slam.batch.table import CSV, MARKDOWN
from slam.batch.tasks import FOLDER, RUN, Step, Task, TaskRecord, read_record, write_record
from slam.errors import UsageError, without_secrets
from slam.io.run_directory import RunDirectory


@dataclass(frozen=True)
class Work:
    """What is to be done with every recording."""

    then: tuple[Step, ...]  # after tracking, with RUN for the run directory
    limits: Limits
    retries: int


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Keep others from working in a folder at the same time; it is made.

    Raises:
        UsageError: if another does.
        OutputError: if it cannot be written to.
    """
    lock = FileLock(RunDirectory(out / FOLDER).path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"another v2d-batch is working in {out}: wait for its end, or choose another --out") from error
    try:
        yield
    finally:
        lock.release()


def begin(
    out: Path, sources: Sequence[str], arguments: tuple[str, ...], work: Work, retry_failed: bool
) -> dict[Task, TaskRecord]:
    """The tasks of all recordings, in their order, and how far they are by the records of earlier starts.

    A record is written of each, so that its name stays the same.

    Args:
        out: absolute.
        sources: see `find_sources`.
        arguments: of v2d-slam.
        retry_failed: forget that tasks have failed.

    Raises:
        UsageError: if an earlier start had other arguments.
        SourceError: if a record is damaged.
        OutputError: if one cannot be written.
    """
    records = {file.stem: read_record(file) for file in sorted((out / FOLDER).glob("*.json"))}
    for name, record in records.items():
        if record.arguments != arguments:
            before = " ".join(record.arguments) or "no options"
            raise UsageError(f"{out / name} was begun with {before} for v2d-slam: give the same, or another --out")
    known = {record.key: name for name, record in records.items()}
    others = [path.name for path in out.iterdir() if path.name not in records]
    batch = {}
    for recording in name_recordings(sources, known, [FOLDER, CSV, MARKDOWN, *others]):
        name, source = recording.name, recording.source
        track = Step("track", "apps.run", ("--sequence", source, "--headless", *arguments))
        then = tuple(
            replace(step, arguments=tuple(word.replace(RUN, str(out / name)) for word in step.arguments))
            for step in work.then
        )
        task = Task(name, str(out), track, then, work.limits, work.retries, str(Path.cwd()))
        record = records.get(name) or TaskRecord(without_secrets(source), key_of(source), arguments)
        if retry_failed:
            record = replace(record, tries=0, has_failed=False)
        if record != records.get(name):
            write_record(task.file, record)
        batch[task] = record
    return batch

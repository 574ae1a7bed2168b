"""v2d-batch: many recordings, each tracked by v2d-slam in a process of its own, here or on a Ray cluster."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.common import add_verbosity, parsed, program, stop_on_signals
from apps.run import build_parser as parser_of_runs
from slam.errors import UsageError, listed

if TYPE_CHECKING:
    from slam.batch.engines import Results
    from slam.batch.tasks import Step, Task, TaskRecord

log = logging.getLogger(__name__)

GIB = 2**30
OWN = ("out", "record", "save_map", "screenshot", "viewer")  # not for runs of a batch
ENDINGS = """What follows `--` goes to v2d-slam. Each recording gets the folder DIR/NAME; DIR/batch holds its log, and
the record by which the same command goes on where it was cut off: what is finished is left as it is. DIR/summary.md
and summary.csv tell what became of all. Ctrl-C ends the runs in order, a second one at once. With --ray DIR and the
recordings must be paths that all nodes share. Exit codes: 0 all are done, 1 some failed or are not finished, 2 the
command line is wrong."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-batch."""
    p = argparse.ArgumentParser(prog="v2d-batch", description="Many recordings at once.", epilog=ENDINGS)
    recordings = "folders that are searched, lists (.txt, a recording on each line), or recordings as for v2d-slam"
    p.add_argument("inputs", nargs="+", metavar="FOLDER|LIST", help=recordings)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of all results")
    p.add_argument("--then", default="", metavar="WORDS", help="afterwards, in turn: refine, export:TARGET")
    p.add_argument("--jobs", type=int, metavar="N", help="recordings at a time (default: as many as cores and memory)")
    p.add_argument(
        "--memory", type=float, default=4.0, metavar="GIB", help="most that one may take (default %(default)g)"
    )
    p.add_argument("--timeout", type=float, default=120.0, metavar="MINUTES", help="of a program (default %(default)g)")
    p.add_argument("--retries", type=int, default=1, metavar="N", help="of what failed (default %(default)d)")
    p.add_argument("--retry-failed", action="store_true", help="try again what an earlier start gave up")
    address = "on a Ray cluster: auto, host:port or ray://...; without, one that runs here or is begun here"
    p.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help=address)
    p.add_argument("--cores", type=float, default=1.0, metavar="N", help="for one recording (default %(default)g)")
    gpus = "of a Ray cluster for one recording, also 0.25 (default: one where there are some)"
    p.add_argument("--gpus", type=float, metavar="N", help=gpus)
    add_verbosity(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    return program("v2d-batch", lambda: run(parsed(build_parser(), words[:end]), words[end + 1 :]), argv is None)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    """Find the recordings, work on what is not finished, tell what became of all."""
    from slam.batch.child import Limits
    from slam.batch.folder import Work, begin, only_one
    from slam.batch.recordings import find_sources
    from slam.batch.table import markdown, row_of, write_tables

    check(options)
    check_runs(arguments)
    work = Work(parse_steps(options.then), Limits(60 * options.timeout, round(options.memory * GIB)), options.retries)
    out: Path = options.out.absolute()
    sources = find_sources(options.inputs, out)
    with only_one(out), stop_on_signals() as stop:
        batch = begin(out, sources, tuple(arguments), work, options.retry_failed)
        rows = {task.name: row_of(task, record) for task, record in batch.items()}
        waiting = [task for task, record in batch.items() if not record.is_finished(task)]
        if len(waiting) < len(rows):
            log.info("%d of %d recordings are finished: left as they are", len(rows) - len(waiting), len(rows))
        write_tables(out, list(rows.values()))
        for task, record in shown(engine(options, waiting, stop.is_set), len(rows), len(waiting), options.quiet):
            batch[task] = record
            rows[task.name] = row_of(task, record)
            write_tables(out, list(rows.values()))
    if not options.quiet:
        print(markdown(list(rows.values())))
    return verdict(batch, out)


def check(options: argparse.Namespace) -> None:
    """Refuse numbers that make no sense; raises UsageError."""
    from slam.batch.engines import import_ray

    least = {"memory": 0.1, "timeout": 0.001, "retries": 0, "cores": 0.01, "jobs": 1, "gpus": 0}
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and not low <= value < float("inf"):
            raise UsageError(f"--{name} must be at least {low:g}, got {value:g}")
    if options.ray is not None:
        import_ray()
    if options.ray is not None and options.jobs is not None:
        raise UsageError("--jobs is for this computer; a Ray cluster runs what fits by --cores, --gpus and --memory")
    if options.ray is None and options.gpus is not None:
        raise UsageError("--gpus is for --ray, which shares them out; without, every run uses that of this computer")


def check_runs(arguments: list[str]) -> None:
    """Refuse what v2d-slam would refuse of every recording, and what is not for several; raises UsageError."""
    from slam.config import SlamConfig, load_config

    parser = parser_of_runs()
    parser.prog, parser.usage = "v2d-batch: v2d-slam", "v2d-batch FOLDER|LIST ... --out DIR -- OPTIONS OF v2d-slam"
    given = parser.parse_args(["--sequence", "", *arguments])
    for name in OWN:
        if getattr(given, name) != parser.get_default(name):
            raise UsageError(f"--{name.replace('_', '-')} is not for the runs of a batch")
    load_config(SlamConfig, given.config, given.set)


def parse_steps(words: str) -> "tuple[Step, ...]":
    """The steps of --then, for the run directory RUN; raises UsageError."""
    from slam.batch.tasks import RUN, Step
    from slam.export.exporting import parse_targets

    steps, run = [], RUN
    for word in dict.fromkeys(words.split()):
        kind, _, target = word.partition(":")
        if word == "refine":
            steps.append(Step(word, "apps.refine", (run, "--again")))
            run = f"{RUN}/refined"  # what follows is done to that
        elif kind == "export" and target:
            parse_targets([target])
            steps.append(Step(word, "apps.export", (run, "--to", target, "--overwrite")))
        else:
            raise UsageError(f"--then takes refine and export:TARGET, got {word!r}")
    return tuple(steps)


def verdict(batch: "dict[Task, TaskRecord]", out: Path) -> int:
    """Say what is not done; the exit code."""
    failed = [task.name for task, record in batch.items() if record.left(task) and record.has_failed]
    left = [task.name for task, record in batch.items() if not record.is_finished(task)]
    if failed:
        log.error("%d of %d failed: %s; their logs are in %s", len(failed), len(batch), listed(failed), out / "batch")
    if left:
        log.error("%d of %d are not finished: the same command goes on", len(left), len(batch))
    return 1 if failed or left else 0


def engine(options: argparse.Namespace, tasks: "list[Task]", stopped: Callable[[], bool]) -> "Results":
    """The results of tasks, worked on where the options say."""
    from slam.batch.engines import Share, parallel_jobs, run_here, run_on_ray

    if not tasks:
        return iter(())
    share = Share(options.cores, options.gpus, round(options.memory * GIB))
    if options.ray is not None:
        return run_on_ray(tasks, options.ray or None, share, stopped)
    return run_here(tasks, options.jobs or parallel_jobs(share), stopped)


def shown(results: "Results", total: int, waiting: int, quiet: bool) -> "Iterator[tuple[Task, TaskRecord]]":
    """The results, with a progress bar on a terminal, and a line for each."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    hidden = True if quiet else None  # None: unless it is a terminal
    with tqdm(total=total, initial=total - waiting, unit="recording", disable=hidden) as bar, logging_redirect_tqdm():
        for result in results:
            if result is None:
                bar.refresh()  # of the time
                continue
            task, record = result
            log.info("%s: %s", task.name, " ".join(filter(None, (record.words(task), record.error))))
            bar.update(record.is_finished(task))
            yield result


if __name__ == "__main__":
    sys.exit(main())

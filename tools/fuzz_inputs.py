"""Damaged inputs of every kind, opened as the programs open them: no traceback, no hang, no gigabyte.

    python tools/fuzz_inputs.py --count 2000 --seed 0
    python tools/fuzz_inputs.py --only "archive.zip" map --count 100
    python tools/fuzz_inputs.py --seed 0 --case 1234          # one alone, with its traceback

Case n of a seed is the same everywhere. Workers open one after the other, and are watched: what takes longer than
`--seconds`, more than `--megabytes` of resident memory, or kills its worker has failed. Exit code 1 if any has. Linux
only.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from apps.common import guarded
from slam.errors import SlamError, UsageError

POLL_S = 0.05
BEGIN_S = 120.0  # for the imports of a worker, and for a kind that it meets first


@dataclass
class Tally:
    """What came of the cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = 0.0, ""  # seconds, and of what
    largest: tuple[float, str] = 0.0, ""  # MB


class Worker:
    """A process that opens cases, and is killed where it takes too long or too much."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        command = [sys.executable, __file__, "--worker", str(folder), "--seed", str(options.seed)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._options = options
        self._said = b""  # after the last line feed
        self.ask(None)  # it has begun

    def ask(self, case: tuple[str, int] | None) -> dict[str, object]:
        """What came of a case; raises TimeoutError, MemoryError or ChildProcessError, and the worker is gone then."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if case is not None:
            self._process.stdin.write(json.dumps(case).encode() + b"\n")
            self._process.stdin.flush()
        limit_s, begin_s = BEGIN_S, time.monotonic()
        while time.monotonic() - begin_s < limit_s:
            if select.select([self._process.stdout], [], [], POLL_S)[0]:
                said = os.read(self._process.stdout.fileno(), 1 << 16)
                if not said:
                    raise ChildProcessError(f"the process died with exit code {self._process.wait()}")
                *lines, self._said = (self._said + said).split(b"\n")
                for answer in map(json.loads, lines):
                    if "outcome" in answer:
                        return dict(answer)
                    limit_s, begin_s = self._options.seconds, time.monotonic()  # the sound files are written
            if memory_mb(self._process.pid) > self._options.megabytes:
                self.close()
                raise MemoryError(f"more than {self._options.megabytes:g} MB")
        self.close()
        raise TimeoutError(f"no end within {limit_s:g} s")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def memory_mb(pid: int | str, name: str = "VmRSS") -> float:
    """Resident memory of a process, MB; `VmHWM`: the largest since that was set back."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def run(options: argparse.Namespace) -> int:
    """Open all cases, and print what came of them."""
    from damaged_inputs import KINDS

    unknown = sorted(set(options.only) - set(KINDS))
    if unknown:
        raise UsageError(f"no kind {', '.join(unknown)}; known: {', '.join(KINDS)}")
    names = options.only or list(KINDS)
    numbers = range(options.count) if options.case is None else [options.case]
    cases: SimpleQueue[tuple[str, int]] = SimpleQueue()
    for number in numbers:
        cases.put((names[number % len(names)], number))
    tally, begin_s = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="v2d-fuzz-") as folder:
        folders = [Path(folder) / str(n) for n in range(options.jobs)]
        threads = [threading.Thread(target=work, args=(options, cases, tally, place)) for place in folders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(
        f"{len(numbers)} damaged files of {len(names)} kinds in {time.monotonic() - begin_s:.0f} s: "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
        + "; the slowest took {:.1f} s ({}), the largest {:.0f} MB ({})".format(*tally.slowest, *tally.largest)
    )
    return 1 if tally.failures else 0


def work(options: argparse.Namespace, cases: "SimpleQueue[tuple[str, int]]", tally: Tally, folder: Path) -> None:
    """Give cases to one worker after the other, until none is left."""
    worker, lives = None, 0
    while True:
        try:
            case = cases.get_nowait()
        except Empty:
            break
        if worker is None:
            lives += 1
            worker = Worker(options, folder / str(lives))
        problem = ""
        try:
            answer = worker.ask(case)
            tally.outcomes[str(answer["outcome"])] += 1
            tally.slowest = max(tally.slowest, (float(str(answer["seconds"])), str(answer["what"])))
            tally.largest = max(tally.largest, (float(str(answer["peak_mb"])), str(answer["what"])))
            if answer["outcome"] == "failed" or options.case is not None:
                problem = f"{answer['what']}: {answer['message']}"
        except (TimeoutError, MemoryError, ChildProcessError) as error:
            tally.outcomes["failed"] += 1
            problem, worker = f"case {case[1]}, {case[0]}: {error}", None
        if problem:
            tally.failures.append(problem)
            print(problem, flush=True)
    if worker is not None:
        worker.close()


def serve(folder: Path, seed: int) -> int:
    """The worker: opens the cases that it is given, and answers a line for each."""
    from damaged_inputs import Case

    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # libraries below OpenCV say there what they think
    os.dup2(nowhere, 2)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    warnings.simplefilter("error", RuntimeWarning)  # such as overflow in NumPy: the reader did not see what it read

    def answer(**words: object) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    answer(outcome="begun")
    known: dict[str, Case] = {}
    for line in sys.stdin:
        name, number = json.loads(line)
        if name not in known:
            known[name] = Case(name, folder / f"kind{len(known)}")
        with known[name].spoilt(f"{seed} {number}") as what:
            answer(begins=what)
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
            begin_s, outcome, message = time.monotonic(), "read", ""
            try:
                outcome = "refused" if known[name].open() else "read"
            except SlamError as error:
                outcome, message = "refused", str(error)
            except BaseException:
                outcome, message = "failed", traceback.format_exc()
            seconds, peak_mb = time.monotonic() - begin_s, memory_mb("self", "VmHWM")
        answer(outcome=outcome, what=what, message=message, seconds=seconds, peak_mb=peak_mb)
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="cases (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, metavar="N", help="this case alone, told whatever comes of it")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="these kinds alone")
    parser.add_argument("--jobs", type=int, default=2, help="workers (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="for one case (default %(default)s)")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of a worker (default %(default)s)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return serve(options.worker, options.seed)
    return guarded("fuzz_inputs", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())

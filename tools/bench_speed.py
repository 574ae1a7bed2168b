"""Speed of whole runs on recordings with ground truth, of one version or of two side by side, as a table.

    python tools/bench_speed.py DATA/desk_gentle DATA/tag_corner --runs 3
    python tools/bench_speed.py DATA/desk_gentle --set pixels=19200 --against .
    python tools/bench_speed.py DATA/desk_gentle --against v1.0 --against-set loops.enabled=false

A is this checkout with --set. B, if --against or --against-set is given, is that commit, or this checkout, with
--against-set alone. Each run is a process of its own; they go A B A B, after a short one of each that compiles the
loops and is not counted. Numbers are medians of the runs, A/B that of the ratios of neighbouring runs, of processor
time. CPU: processor time of all threads for each frame (least to most). Track: time of a frame on the tracking thread,
median and 95th percentile of those after the start-up, without waiting for the backend and with it. Stages of the
backend: median ms. ATE is Sim(3)-aligned; AbsRel is of confident pixels, median-scaled.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

import numpy as np

from apps.common import guarded
from slam import experiment
from slam.errors import SlamError, UsageError
from slam.frames import Estimate, Frame, Status
from slam.sources import SourceSpec, open_source
from slam.system import Slam

ROOT = Path(__file__).resolve().parents[1]
HERE = "."  # instead of a commit: this checkout
TIMES = ("track_ms", "with_wait_ms")  # of a frame: median and 95th percentile
STAGES = ("match", "adjust", "stereo", "keypoints", "loops")  # of the backend
WARM_UP_FRAMES = 100
COLUMNS = "recording | version | CPU ms | A/B | frames/s | track ms, p95 | with waiting, p95"
COLUMNS += f" | {' | '.join(STAGES)} | keyframes | memory MB | ATE m | coverage | AbsRel"

Numbers = dict[str, Any]


class FrameTimes:
    """Times the frames of a system on its tracking thread, from outside; those before there is a map are left out."""

    def __init__(self, slam: Slam) -> None:
        """Put clocks around the step of a system, and around its waiting for the backend."""
        self.with_wait_ms: list[float] = []
        self.track_ms: list[float] = []  # without
        self._slam, self._step, self._wait_s = slam, slam.step, 0.0
        slam.step = self._timed_step
        slam.backend.submit = self._as_wait(slam.backend.submit)
        slam.backend.wait = self._as_wait(slam.backend.wait)

    def numbers(self) -> Numbers:
        """Median and 95th percentile, ms; 0 without a frame."""
        return {name: [float(np.quantile(getattr(self, name) or [0.0], q)) for q in (0.5, 0.95)] for name in TIMES}

    def _timed_step(self, frame: Frame) -> list[Estimate]:
        starting, self._wait_s, start_s = self._slam.status is Status.INIT, 0.0, time.perf_counter()
        estimates = self._step(frame)
        seconds = time.perf_counter() - start_s
        if not starting:
            self.with_wait_ms.append(1e3 * seconds)
            self.track_ms.append(1e3 * (seconds - self._wait_s))
        return estimates

    def _as_wait(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start_s = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self._wait_s += time.perf_counter() - start_s

        return timed


@dataclass(frozen=True)
class Version:
    """What is measured."""

    name: str  # A or B
    tree: Path  # checkout whose package runs
    settings: tuple[str, ...]

    def __str__(self) -> str:
        commit = git("-C", str(self.tree), "rev-parse", "--short", "HEAD").strip()
        changed = git("-C", str(self.tree), "status", "--porcelain", "slam")
        return f"{self.name}: {commit}{' with changes' if changed else ''}, {' '.join(self.settings) or 'default'}"


def one_run(folder: Path, settings: list[str], max_frames: int | None, threads: bool) -> Numbers:
    """Numbers of a run in this process, whichever checkout its package is of."""
    clocks: list[FrameTimes] = []

    def build_timed(*arguments: Any, **options: Any) -> Slam:
        built = build(*arguments, **options)
        clocks.append(FrameTimes(built))
        return built

    build, experiment.build_slam = experiment.build_slam, build_timed
    source = open_source(SourceSpec(str(folder), max_frames=max_frames))
    result = experiment.run_and_score(folder, settings, threads=threads, source=source)
    frames, ate = result.slam.counts.seen, result.report.ate["sim3"]
    stages = {t.name.removeprefix("backend: "): t.median_ms for t in result.slam.times.table()}
    keyframes = len(result.slam.store.everything())
    result.slam.store.close()
    return {
        "package": experiment.__file__,
        "cpu_ms": 1e3 * result.cpu_s / frames,
        "fps": frames / result.seconds,
        **clocks[0].numbers(),
        "stages": [stages.get(name) for name in STAGES],
        "keyframes": keyframes,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "ate": ate.rmse,
        "coverage": ate.coverage,
        "abs_rel": None if result.depth is None else result.depth.abs_rel,
    }


def in_checkout(version: Version, folder: Path, threads: bool, max_frames: int | None) -> Numbers:
    """`one_run` in a process of its own, with the package of a version.

    Raises:
        SlamError: if it fails.
    """
    command = [sys.executable, __file__, "--worker", str(folder.resolve()), "--threads", "on" if threads else "off"]
    command += [] if max_frames is None else ["--max-frames", str(max_frames)]
    command += [word for setting in version.settings for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(version.tree), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SlamError(f"{folder}, {version.name}: {(done.stderr.splitlines() or ['it was killed'])[-1]}")
    numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
    assert Path(numbers["package"]).is_relative_to(version.tree), numbers["package"]  # not the installed one
    return numbers


def measured(
    versions: list[Version], folder: Path, runs: int, measure: Callable[[Version, Path], Numbers]
) -> list[list[Numbers]]:
    """Numbers of the runs of each version, which take turns."""
    found: list[list[Numbers]] = [[] for _ in versions]
    for _ in range(runs):
        for version, numbers in zip(versions, found):
            numbers.append(measure(version, folder))
    return found


def rows(versions: list[Version], folder: Path, found: list[list[Numbers]]) -> list[str]:
    """Lines of the table: one for each version."""
    lines = []
    for version, runs in zip(versions, found):
        cpu_ms = [run["cpu_ms"] for run in runs]
        ratio = median(a["cpu_ms"] / b["cpu_ms"] for a, b in zip(*found)) if len(found) == 2 else None
        cells = [
            folder.name,
            version.name,
            f"{median(cpu_ms):.1f} ({min(cpu_ms):.1f} to {max(cpu_ms):.1f})",
            f"{ratio:.3f}" if ratio is not None and version is versions[0] else "",
            middle([run["fps"] for run in runs]),
            *(", ".join(middle(list(values)) for values in zip(*(run[name] for run in runs))) for name in TIMES),
            *(middle(list(values), ".0f") for values in zip(*(run["stages"] for run in runs))),
            middle([run["keyframes"] for run in runs], ".0f"),
            f"{max(run['memory_mb'] for run in runs):.0f}",
            middle([run["ate"] for run in runs], ".4f"),
            f"{100 * min(run['coverage'] for run in runs):.1f} %",
            middle([run["abs_rel"] for run in runs], ".3f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def middle(values: list[float | None], form: str = ".1f") -> str:
    """Their median in words, of those that there are."""
    known = [value for value in values if value is not None]
    return format(median(known), form) if known else ""


def git(*words: str) -> str:
    """What a git command says; raises UsageError with its complaint."""
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def checked_out(repository: Path, commit: str) -> Iterator[Path]:
    """A temporary checkout of a commit, removed at the end whatever happens."""
    with tempfile.TemporaryDirectory(prefix="bench_speed_") as folder:
        tree = Path(folder).resolve() / "tree"
        git("-C", str(repository), "worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("-C", str(repository), "worktree", "remove", "--force", str(tree))


def compare(options: argparse.Namespace, versions: list[Version]) -> None:
    """Print the table."""
    threads = options.threads == "on"
    for version in versions:
        print(version)
    print(f"\n| {COLUMNS} |\n" + "| --- " * len(COLUMNS.split(" | ")) + "|", flush=True)
    for version in versions:
        with suppress(SlamError):  # too short for a map, or it comes again below
            in_checkout(version, options.folders[0], threads, min(WARM_UP_FRAMES, options.max_frames or WARM_UP_FRAMES))
    for folder in options.folders:
        found = measured(
            versions, folder, options.runs, lambda version, f: in_checkout(version, f, threads, options.max_frames)
        )
        print("\n".join(rows(versions, folder, found)), flush=True)


def run(options: argparse.Namespace) -> int:
    """Be the worker, or start workers."""
    if options.worker:
        numbers = one_run(options.folders[0], options.set, options.max_frames, options.threads == "on")
        print(json.dumps(numbers))
        return 0
    here = Version("A", ROOT, tuple(options.set))
    if options.against is None and not options.against_set:
        compare(options, [here])
    elif options.against in (None, HERE):
        compare(options, [here, Version("B", ROOT, tuple(options.against_set))])
    else:
        with checked_out(ROOT, options.against) as tree:
            compare(options, [here, Version("B", tree, tuple(options.against_set))])
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--runs", type=int, default=3, help="of each version (default %(default)d)")
    parser.add_argument("--max-frames", type=int, metavar="N")
    parser.add_argument("--threads", choices=("on", "off"), default="on", help="off: one thread, so that runs repeat")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="a setting of A")
    parser.add_argument("--against", metavar="COMMIT", help=f"what B is: a commit, or {HERE} for this checkout")
    parser.add_argument("--against-set", action="append", default=[], metavar="A.B=V", help="a setting of B")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # one run, numbers as JSON
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a checkout is removed also then
    return guarded("bench_speed", lambda: run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

"""v2d-batch through what goes wrong: rendered and damaged recordings, 24 in all, on a Ray cluster of two workers, here.

python tools/bench_batch.py --out runs/batch

A worker is killed in the middle, then v2d-batch itself, which is started again; one recording hangs (a server that
sends a byte a second), one fills its memory limit (photographs of 48 million pixels), four are damaged. Checked: every
good recording is complete, was done once, and has the bytes of a single run. Then the good ones are run by v2d-batch
without Ray, for the throughput beside one after the other. Exit code 1 if a check fails.
"""

import argparse
import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from render_sequence import write_sequence

from apps.common import guarded
from slam.errors import OutputError, SlamError
from slam.processes import own_program, own_python
from slam.sources.demo import DemoConfig

FRAMES = 40
MEMORY_GIB, TIMEOUT_MIN = 1.0, 3.0
RUN_OPTIONS = ("--deterministic", "--set", "pixels=19200")
SAME = ("trajectory.txt", "trajectory_online.txt", "keyframes.txt", "map.ply")
MODULE = "slam.batch.child"  # in the command of every run
WAIT_S = 1800.0


class Trickle(BaseHTTPRequestHandler):
    """Serves a video of ten megabytes, a byte a second."""

    def do_GET(self) -> None:
        """Until nobody listens."""
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(10_000_000))
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"\0")
                time.sleep(1.0)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Checks:
    """What was checked, and whether it held."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, holds: bool, words: str) -> None:
        """Print it."""
        self.failed += not holds
        print(f"{'ok' if holds else 'FAILED':8s}{words}", flush=True)


def render_good(folder: Path, count: int) -> list[Path]:
    """Rooms of the same size, each of its own seed."""
    paths = []
    for n in range(count):
        paths.append(folder / f"room{n:02d}")
        config = DemoConfig(kind="office", variant="orbit", seed=n, frames=FRAMES, width=160, height=120, fps=15)
        if not (paths[-1] / "rgb.txt").exists():
            write_sequence(config, paths[-1])
    return paths


def damage(folder: Path, good: Path) -> dict[str, tuple[str, str]]:
    """Bad recordings: what names each, and a word of the line that says what is wrong."""
    found = {}
    for name, line in (("no_numbers", "what is this\n"), ("no_images", "1.0 rgb/none.jpg\n2.0 rgb/no.jpg\n")):
        shutil.copytree(good, folder / name, dirs_exist_ok=True)
        (folder / name / "rgb.txt").write_text(line)
        found[name] = str(folder / name), "v2d-slam: "
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    found["noise"] = str(folder / "noise.mp4"), "v2d-slam: "
    found["missing"] = str(folder / "missing.mp4"), "v2d-slam: "
    (folder / "photographs").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    image = cv2.resize(noise, (8000, 6000))
    for n in range(12):
        cv2.imwrite(str(folder / "photographs" / f"{n}.jpg"), np.roll(image, 40 * n, 1))
    found["photographs"] = str(folder / "photographs"), "of memory (--memory)"
    return found


@contextmanager
def trickling_server() -> Iterator[str]:
    """The address of a video that never comes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trickle)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/endless.mp4"
    finally:
        server.shutdown()


@contextmanager
def cluster(log: Path) -> Iterator[str]:
    """The address of a Ray cluster of two cores here, which lives on when v2d-batch dies; raises SlamError."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--head", "--block", "--num-cpus=2", f"--port={port}", "--include-dashboard=false"]
    options += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    command = own_python("from ray.scripts.scripts import main; main()", "start", *options)
    with log.open("w") as file:
        head = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text(), "the cluster starts", head)
        yield f"127.0.0.1:{port}"
    finally:
        processes = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
        head.terminate()
        _, left = psutil.wait_procs(processes, timeout=20)
        for process in left:
            process.kill()


def wait_for(condition: Callable[[], bool], words: str, process: "subprocess.Popen[str] | None" = None) -> None:
    """Until a condition holds; raises SlamError if it does not, or if the process has ended."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end_s or (process is not None and process.poll() is not None):
            raise SlamError(f"in vain: {words}")
        time.sleep(0.1)


def runs_of(out: Path) -> list[psutil.Process]:
    """The programs that run for a batch now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(MODULE in word for word in words) and any(str(out) in word for word in words):
            found.append(process)
    return found


def complete(out: Path) -> int:
    """Recordings that are done so far."""
    file = out / "summary.csv"
    return sum(row["end"] == "complete" for row in rows_of(file)) if file.exists() else 0


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as table:
        return list(csv.DictReader(table))


def start(words: list[str], log: Path) -> "subprocess.Popen[str]":
    """v2d-batch as a process of its own."""
    command = own_program("apps.batch", *words, "--", *RUN_OPTIONS)
    with log.open("a") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, text=True)


def single_runs(good: list[Path], out: Path) -> float:
    """One after the other by v2d-slam; seconds."""
    begin_s = time.monotonic()
    for path in good:
        command = own_program("apps.run", "--sequence", path, "--headless", "--out", out / path.name, *RUN_OPTIONS)
        subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begin_s


def with_faults(listing: Path, count: int, out: Path, address: str, checks: Checks) -> str:
    """A worker is killed, then v2d-batch, then the same command is given again; the recording that lost its worker."""
    words = [str(listing), "--out", str(out), "--ray", address, "--memory", str(MEMORY_GIB)]
    words += ["--timeout", str(TIMEOUT_MIN), "--retries", "1"]
    log = out.with_suffix(".log")
    batch = start(words, log)
    wait_for(lambda: complete(out) >= count // 6 and bool(room_runs(out)), "a sixth is done", batch)
    victim = room_runs(out)[0]
    name, worker = recording_of(victim, out), victim.ppid()
    os.kill(worker, signal.SIGKILL)
    psutil.wait_procs([victim], timeout=20)
    checks.check(not victim.is_running(), f"the run of {name} died with its worker, which was killed")
    wait_for(lambda: complete(out) >= count // 2 and bool(runs_of(out)), "a half is done", batch)
    running = runs_of(out)
    batch.send_signal(signal.SIGKILL)
    batch.wait()
    _, left = psutil.wait_procs(running, timeout=60)
    checks.check(bool(running) and not left, f"{len(running)} runs ended after v2d-batch was killed")
    done = complete(out)
    batch = start(words, log)
    code = batch.wait(WAIT_S)
    checks.check(code == 1, f"started again with {done} done, v2d-batch ended with exit code {code}: some failed")
    return name


def room_runs(out: Path) -> list[psutil.Process]:
    return [process for process in runs_of(out) if recording_of(process, out).startswith("room")]


def recording_of(process: psutil.Process, out: Path) -> str:
    """The name of the recording that a run works on."""
    with suppress(psutil.NoSuchProcess):
        words = process.cmdline()
        return Path(words[words.index("--out") + 1]).relative_to(out).parts[2]
    return ""


def check_results(
    out: Path, single: Path, good: list[Path], bad: dict[str, tuple[str, str]], lost: str, checks: Checks
) -> None:
    """The table, the logs and the files."""
    rows = {row["name"]: row for row in rows_of(out / "summary.csv")}
    checks.check(len(rows) == len(good) + len(bad), f"{len(rows)} recordings in the table")
    ended = [path.name for path in good if rows[path.name]["end"] == "complete"]
    checks.check(len(ended) == len(good), f"{len(ended)} of {len(good)} good recordings are complete")
    times = {path.name: (out / "batch" / f"{path.name}.log").read_text().count("results in ") for path in good}
    checks.check(
        set(times.values()) == {1}, f"each was brought to its end once, not {sorted(set(times.values()))} times"
    )
    starts = sum(int(rows[path.name]["starts"]) for path in good)
    checks.check(int(rows[lost]["starts"]) >= 2, f"{lost} was begun {rows[lost]['starts']} times; all: {starts}")
    differ = [
        f"{path.name}/{name}"
        for path in good
        for name in SAME
        if (out / path.name / name).read_bytes() != (single / path.name / name).read_bytes()
    ]
    checks.check(not differ, f"{len(good)} times {len(SAME)} files have the bytes of single runs; others: {differ}")
    for name, (_, words) in bad.items():
        end, error = rows[name]["end"], rows[name]["error"]
        checks.check(end == "failed: track" and words in error, f"{name}: {end}, {error}")


def run(options: argparse.Namespace) -> int:
    """All of it."""
    torch.set_num_threads(1)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else reaches this cluster
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # as the single runs
    out: Path = options.out.absolute()
    if any((out / name).exists() for name in ("single", "ray", "here")):
        raise OutputError(f"{out} has results of an earlier call: choose another folder, or remove it")
    recordings, checks = out / "recordings", Checks()
    good = render_good(recordings, options.good)
    bad = damage(recordings, good[0])
    single_s = single_runs(good, out / "single")
    print(f"{len(good)} single runs, one after the other: {single_s:.0f} s", flush=True)
    with trickling_server() as address:
        bad["endless"] = address, "not done within"
        sources = [*map(str, good), *(source for source, _ in bad.values())]
        for n, source in enumerate([sources.pop() for _ in bad]):
            sources.insert(4 * n, source)  # among the others
        listing = out / "recordings.txt"
        listing.write_text("\n".join(sources) + "\n")
        print(f"{len(sources)} recordings", flush=True)
        without = own_python("sys.modules['ray'] = None; from apps.batch import main; sys.exit(main())")
        said = subprocess.run([*without, listing, "--out", out / "none", "--ray"], capture_output=True, text=True)
        checks.check(said.returncode == 2 and said.stderr.count("\n") == 1, f"without ray: {said.stderr.strip()}")
        with cluster(out / "cluster.log") as address:
            lost = with_faults(listing, len(good), out / "ray", address, checks)
    check_results(out / "ray", out / "single", good, bad, lost, checks)
    (out / "good.txt").write_text("\n".join(map(str, good)) + "\n")
    begin_s = time.monotonic()
    code = start([str(out / "good.txt"), "--out", str(out / "here"), "--jobs", "2"], out / "here.log").wait(WAIT_S)
    here_s = time.monotonic() - begin_s
    checks.check(code == 0 and complete(out / "here") == len(good), f"without Ray, two at a time: exit code {code}")
    rates = [3600 * len(good) / seconds for seconds in (single_s, here_s)]
    print(f"recordings of {FRAMES} frames an hour: one after the other {rates[0]:.0f}, two at a time {rates[1]:.0f}")
    return 1 if checks.failed else 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of recordings and results")
    parser.add_argument("--good", type=int, default=18, metavar="N", help="good recordings (default %(default)d)")
    return guarded("bench_batch", lambda: run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())

"""What `faults.py` is made of: real programs as child processes in a folder of their own, and what is asked of them."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from slam.errors import SlamError
from slam.io.trajectory import read_tum
from slam.processes import own_program

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 40  # of the recording
TIMEOUT_S = 180.0  # of a child on a busy computer: what takes longer hangs
POLL_S = 0.02
SMALL = ("--set", "pixels=19200", "--headless")  # 160x120, no window
FAULTS: "dict[str, Callable[[Scene], None]]" = {}


class Unmet(Exception):
    """What a fault should leave, and did not."""


def fault(function: "Callable[[Scene], None]") -> "Callable[[Scene], None]":
    """Decorator of a fault: a function that makes it and checks what comes of it; its name is the fault's, with dashes,
    its docstring says in one line what happens."""
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


def check(holds: object, words: object) -> None:
    """Raise `Unmet` unless something holds."""
    if not holds:
        raise Unmet(words)


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int  # negative: the signal that killed it
    out: str
    err: str
    seconds: float
    peak_mb: float  # resident memory of it and of its own children

    def check(self, code: int, *patterns: str, lines: int | None = None) -> None:
        """Refuse another exit code, a traceback, and messages without each of the patterns.

        Args:
            patterns: regular expressions, each of one line of standard error.
            lines: of standard error, if their number matters.
        """
        check(self.code == code, f"exit code {self.code}, not {code}: {self.err[-600:] or self.out[-300:]!r}")
        check("Traceback" not in self.err + self.out, f"a traceback: {self.err[-600:]}")
        for pattern in patterns:
            check(any(re.search(pattern, line) for line in self.err.splitlines()), f"no {pattern!r} in {self.err!r}")
        found = sum("INFO: compiling" not in line for line in self.err.splitlines())  # that comes once on a computer
        check(lines is None or found == lines, f"{found} lines of error, not {lines}: {self.err!r}")

    def refused(self, code: int, pattern: str) -> None:
        """One line and no more."""
        self.check(code, pattern, lines=1)


class Child:
    """A program that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self._process, self._out, self._err = process, out, err
        self._start_s = time.monotonic()
        self._ended: Ended | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        os.kill(self._process.pid, number)

    def is_running(self) -> bool:
        """True until it ended."""
        if self._ended is None:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = code = os.waitstatus_to_exitcode(status)
                texts = (path.read_text(errors="replace") if path.exists() else "" for path in (self._out, self._err))
                unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
                peak_mb = usage.ru_maxrss * unit / 2**20
                self._ended = Ended(code, *texts, time.monotonic() - self._start_s, peak_mb)
        return self._ended is None

    def wait_until(self, condition: Callable[[], object], words: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait for something that happens while it runs."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            check(self.is_running(), f"it ended before {words}: {self._err.read_text()[-600:]!r}")
            check(time.monotonic() < deadline_s, f"waited {timeout_s:g} s for {words}")
            time.sleep(POLL_S)

    def wait_for_poses(self, run: Path) -> None:
        """Wait until the online trajectory has poses."""
        path = run / "trajectory_online.txt"
        self.wait_until(lambda: path.exists() and re.search(r"^[0-9].*\n", path.read_text(), re.MULTILINE), "poses")

    def end(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Wait for its end; it is killed, and the fault unmet, if that does not come."""
        deadline_s = time.monotonic() + timeout_s
        while self.is_running():
            if time.monotonic() > deadline_s:
                self.kill()
                raise Unmet(f"it hangs: no end within {timeout_s:g} s; it said {self._err.read_text()[-600:]!r}")
            time.sleep(POLL_S)
        assert self._ended is not None
        return self._ended

    def kill(self) -> None:
        """Kill it with its own children, where it still runs."""
        if self.is_running():
            os.killpg(self._process.pid, signal.SIGKILL)
            while self.is_running():
                time.sleep(POLL_S)


class Scene:
    """A folder for one fault, which is the working directory of its programs; and a recording."""

    def __init__(self, folder: Path, shared: "Shared") -> None:
        self.folder = folder
        self.shared = shared
        self.children: list[Child] = []

    @property
    def recording(self) -> Path:
        """FRAMES images of a rendered room in TUM layout, which must not be changed."""
        return self.shared.recording

    @property
    def run(self) -> Path:
        """Where `track` writes."""
        return self.folder / "run"

    def start(
        self,
        program: str,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        before: Callable[[], object] = lambda: None,
        package: Path = ROOT,
    ) -> Child:
        """Start a program, `run` for v2d-slam.

        Args:
            env: changes of the environment.
            stdout, stderr: None for a file, of which `Ended` has the text.
            before: is done in the child before the program begins: limits, closed streams.
            package: folder of `slam` and `apps`.
        """

        def prepared() -> None:
            for heard in (signal.SIGINT, signal.SIGHUP):  # a shell may have started us with these ignored
                signal.signal(heard, signal.SIG_DFL)
            before()

        number = len(self.children)
        out, err = (self.folder / f".{number}.{name}" for name in ("out", "err"))
        with out.open("wb") as own_out, err.open("wb") as own_err:
            process = subprocess.Popen(
                [word.replace(str(ROOT), str(package)) for word in own_program(f"apps.{program}", *arguments)],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(package), **(env or {})},
                stdin=stdin,
                stdout=own_out if stdout is None else stdout,
                stderr=own_err if stderr is None else stderr,
                start_new_session=True,
                preexec_fn=prepared,
            )
        self.children.append(Child(process, out, err))
        return self.children[-1]

    def track(self, *options: object, source: "tuple[object, ...] | None" = None, **streams: Any) -> Child:
        """Start v2d-slam on the recording, or on another source; into `run` unless options say otherwise."""
        out = () if "--out" in options else ("--out", self.run)
        return self.start("run", *(source or ("--sequence", self.recording)), *out, *SMALL, *options, **streams)

    def check_complete(self, run: Path | None = None, end: str = "complete") -> dict[str, Any]:
        """Refuse a run directory without whole results, or with another end; gives what `run.json` says."""
        run = run or self.run
        try:
            record = json.loads((run / "run.json").read_text())
        except (OSError, ValueError) as error:
            raise Unmet(f"no results: {error}") from error
        check(record["missing"] == {}, f"missing: {record['missing']}")
        check(re.fullmatch(end, record["outcome"]["end"]), f"the end is {record['outcome']['end']!r}, not {end!r}")
        check(len(read_tum(run / "trajectory.txt")) == record["frames_tracked"] > 0, "no whole trajectory")
        check(len(list((run / "keyframes").glob("*_color.jpg"))) == record["keyframes"], "keyframes are missing")
        check((run / "map.ply").stat().st_size > 1000, "no cloud")
        self.check_no_leftovers()
        return record

    def check_no_leftovers(self) -> None:
        """Refuse temporary files."""
        left = [str(path) for path in self.folder.rglob("*") if path.suffix in (".part", ".partial", ".tmp")]
        check(not left, f"left behind: {left}")


@dataclass(frozen=True)
class Shared:
    """What faults share: made when it is first asked for."""

    folder: Path

    @cached_property
    def recording(self) -> Path:
        """See `Scene.recording`."""
        path = self.folder / "recording"
        command = [sys.executable, str(ROOT / "tools/render_sequence.py"), "office", "orbit", str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, "--frames", str(FRAMES)], env=environment, check=True, stderr=subprocess.DEVNULL)
        return path


def meet(name: str, shared: Shared) -> tuple[str | None, float, float]:
    """Make a fault in a temporary folder.

    Returns:
        What was wrong, None if nothing; seconds; and the largest memory of a child, MB.
    """
    start_s, problem = time.monotonic(), None
    with tempfile.TemporaryDirectory(prefix="v2d-fault-") as folder:
        scene = Scene(Path(folder), shared)
        try:
            FAULTS[name](scene)
        except Unmet as unmet:
            problem = str(unmet)
        except (SlamError, OSError) as error:  # of what it left
            problem = repr(error)
        finally:
            for child in scene.children:
                child.kill()
        peaks = [child.end().peak_mb for child in scene.children]
    return problem, time.monotonic() - start_s, max(peaks, default=0.0)

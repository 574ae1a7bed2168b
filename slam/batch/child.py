"""A program in a process of its own, ended when it takes too long or too much memory, and when its parent is gone."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from slam.errors import one_line
from slam.io.files import reason
from slam.processes import own_program

POLL_S = 0.2
GRACE_S = 60.0  # from being asked to end to being killed: results are written, and that takes a while on a busy machine
TAIL_BYTES = 1 << 16  # of a log, in which the reason of a failure is looked for
IS_POSIX = os.name == "posix"


@dataclass(frozen=True)
class Limits:
    """What each program may take."""

    timeout_s: float
    memory_bytes: int  # resident


@dataclass(frozen=True)
class Ending:
    """How a program ended."""

    exit_code: int | None = None  # None: it was ended, or did not start
    error: str = ""  # one line; empty: it went well

    @property
    def is_usage(self) -> bool:
        """True if the command line was wrong: trying again does not help."""
        return self.exit_code == 2


def run_program(
    module: str, arguments: Sequence[str], log: Path, limits: Limits, stopped: Callable[[], bool], folder: Path
) -> Ending:
    """Run one of our programs and wait for its end.

    Ended are also the processes that it started. It ends by itself when this process dies, however that happens.

    Args:
        module: of the program, `apps.run`.
        log: what it prints is added to this file.
        stopped: once it says so, the program is asked to end as by Ctrl-C, and killed GRACE_S later.
        folder: to work in.
    """
    command = own_program(__name__, module, *arguments)
    with log.open("ab") as output:
        start = output.tell()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # nothing is written: its end says that this process is gone
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            return Ending(error=f"cannot start a program in {folder}: {reason(error)}")
        try:
            why = _watch(process, limits, stopped)
        finally:
            _kill(process)
    if why:
        return Ending(error=why)
    if process.returncode == 0:
        return Ending(0)
    return Ending(process.returncode, _last_words(log, start, process.returncode))


def _watch(process: "subprocess.Popen[bytes]", limits: Limits, stopped: Callable[[], bool]) -> str:
    """Wait for the end of a process; why it had to be ended, if it had."""
    end_s = time.monotonic() + limits.timeout_s
    why = ""
    while process.poll() is None:
        if memory_of(process.pid) > limits.memory_bytes:
            return f"it took more than {limits.memory_bytes / 2**30:.3g} GiB of memory (--memory)"
        is_late = time.monotonic() > end_s
        if why and is_late:
            return why
        if not why and (is_late or stopped()):
            why = "stopped by the user" if stopped() else f"not done within {limits.timeout_s / 60:g} min (--timeout)"
            _interrupt(process)
            end_s = time.monotonic() + GRACE_S
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_S)
    return why


def memory_of(pid: int) -> int:
    """Resident bytes of a process; 0 if it is gone.

    Not limited is the address space: torch asks for twice, with a GPU for a hundred times of what it uses.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, as Ctrl-C does; Windows cannot."""
    if IS_POSIX:
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End whatever is left of a process and of those that it started."""
    if IS_POSIX:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
    process.communicate()


def _last_words(log: Path, start: int, code: int) -> str:
    """Why a program failed, by the last line of what it printed from an offset on."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    words = one_line(lines[-1].strip()) if lines else ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (f" after: {words}" if words else "")
    return words or f"exit code {code}"


def end_with_parent() -> None:
    """From now on this process, and those of its session, are killed once its standard input ends."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        if IS_POSIX:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def hear_interrupts() -> None:
    """Let SIGINT end this process: workers of Ray block it, and a shell's jobs of the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if IS_POSIX:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


if __name__ == "__main__":
    end_with_parent()
    hear_interrupts()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

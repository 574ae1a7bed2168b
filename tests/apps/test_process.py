"""A program as a process: streams that nobody reads, signals, an environment that cannot work."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.common import guarded, program, stop_on_signals
from apps.environment import NEEDED_MB, check_environment
from apps.streams import forgiving_streams
from slam.errors import UsageError
from slam.processes import own_python

posix = pytest.mark.skipif(os.name == "nt", reason="descriptors and signals of POSIX")
TALKING = """
import logging, sys
from pathlib import Path
from apps.common import program
def job():
    logging.basicConfig(level=logging.INFO)
    with open(sys.argv[1], "w") as file:
        for n in range(3000):
            print("words on standard output", n)
            logging.info("words on standard error %d", n)
            sys.stderr.flush()
        file.write("done")
    return 7
sys.exit(program("talking", job, True))
"""


@posix
@pytest.mark.parametrize(
    "streams", [">/dev/full", "2>/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", "| head -1", "2>&1 | head -1"]
)
def test_words_that_nobody_takes_end_nothing(tmp_path, streams):
    """A full disk, a closed descriptor, a reader that has gone; and no word goes into the file that is open."""
    command = own_python(TALKING, tmp_path / "file")
    line = f'( "$@"; echo $? >"$0" ) {streams}'
    done = subprocess.run(["sh", "-c", line, str(tmp_path / "code"), *command], capture_output=True, text=True)
    assert (tmp_path / "code").read_text() == "7\n" and (tmp_path / "file").read_text() == "done"
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_name_that_the_encoding_lacks_is_printed_as_escapes(tmp_path):
    code = "from apps.common import program; program('p', lambda: print('caf\\udce9 \\u00e9') or 0, True)"
    done = subprocess.run(own_python(code), env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"caf\\udce9 \\xe9\n"), done.stderr


def test_streams_are_put_back(capsys):
    before = sys.stdout, sys.stderr
    with forgiving_streams():
        print("words")
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "words\n"


WAITING = """
import sys, time
from apps.common import program, stop_on_signals
def job():
    if sys.argv[1] == "starting":
        print("ready", flush=True)
        time.sleep(60)
    with stop_on_signals() as stop:
        print("ready", flush=True)
        while not stop.is_set():
            time.sleep(0.01)
        print("stopped", flush=True)
        time.sleep(1 if sys.argv[1] == "ends" else 60)
    return 0
sys.exit(program("waiting", job, True))
"""


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_a_program_starts_is_one_line(name):
    number = getattr(signal, name)
    with subprocess.Popen(own_python(WAITING, "starting"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (128 + number, f"waiting: interrupted by {name}\n".encode())


@posix
def test_a_second_ctrl_c_interrupts_and_other_signals_again_do_not():
    """A terminal that is closed sends SIGHUP several times."""
    for again, code in ((signal.SIGINT, 130), (signal.SIGHUP, 0)):
        words = "hangs" if code else "ends"
        with subprocess.Popen(own_python(WAITING, words), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            process.send_signal(again)
            assert process.stdout.readline() == b"stopped\n"
            process.send_signal(again)
            process.communicate(timeout=30)
        assert process.returncode == code


@posix
def test_what_starts_with_ctrl_c_ignored_keeps_it_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert program("p", lambda: os.kill(os.getpid(), signal.SIGHUP) or 5, False) == 5
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_ctrl_c_before_a_program_hears_signals_leaves_no_stack(tmp_path):
    """While its modules are imported it ends like any other program."""
    script = tmp_path / "v2d-view"
    script.write_text("import apps, time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command, environment = [sys.executable, str(script)], os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_NUM_THREADS", "0"),
        ("NUMBA_NUM_THREADS", "abc"),
        ("NUMBA_NUM_THREADS", "2,2"),
        ("OMP_NUM_THREADS", "-1"),
        ("OMP_NUM_THREADS", "abc"),
        ("OMP_NUM_THREADS", "99999999999"),
        ("MKL_NUM_THREADS", "1.5"),
        ("NUMBA_DISABLE_JIT", "yes"),
    ],
)
def test_a_variable_that_libraries_cannot_read_is_one_line(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    assert program("p", lambda: 0, False) == 2
    assert capsys.readouterr().err.startswith(f"p: the environment says {name}={value}: it must be ")


def test_variables_that_mean_something_pass(monkeypatch):
    for value in ("1", " 8 ", "4,2", "9999", ""):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        check_environment()
    assert "OMP_NUM_THREADS" not in os.environ  # an empty word is none


@posix
def test_too_few_addresses_and_a_directory_that_has_gone_are_refused(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: ((NEEDED_MB - 1) << 20, resource.RLIM_INFINITY))
    with pytest.raises(UsageError, match=r"2047 MB of addresses.*ulimit -v unlimited"):
        check_environment()
    monkeypatch.undo()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="the working directory was removed"):
        check_environment()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_no_memory_is_one_line(capsys, error):
    def job() -> int:
        raise error

    assert guarded("p", job) == 1
    line = capsys.readouterr().err
    assert line.startswith("p: there is not enough memory") and line.count("\n") == 1
    with pytest.raises(RuntimeError, match="a mistake"):
        guarded("p", lambda: (_ for _ in ()).throw(RuntimeError("a mistake")))

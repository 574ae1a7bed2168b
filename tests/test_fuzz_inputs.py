"""Files damaged at random: every input gives frames or one line, soon, and without swallowing the memory.

The inputs, their damages and what opens them are those of `tools/fuzz_inputs.py`, which makes thousands.
"""

import contextlib
import importlib
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from slam.errors import SlamError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
inputs = importlib.import_module("damaged_inputs")

EACH = 6  # damaged versions of each kind
LIMIT_S = 10.0  # what opens one takes a fraction of a second
LIMIT_MB = 400  # growth of the process over all versions of a kind
REFUSED = dict.fromkeys(("truth, KITTI", "truth, matrices"), "no time stamps")  # sound, and of no use alone
NEEDED = {"bag": "rosbags", "record3d": "lzfse"}  # libraries of extras, by words of the kinds


def peak_mb() -> float:
    resource = pytest.importorskip("resource", reason="this system does not say how much memory a process takes")
    peak: float = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """A reader that hangs fails instead of stopping the tests."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def expire(*_: Any) -> None:
        raise TimeoutError(f"a reader took longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(read: Callable[[], Any], what: str) -> None:
    """It is read or refused by one line; anything else fails with the damage that did it."""
    try:
        with in_time(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # overflow in NumPy: the reader did not see what it read
            read()
    except SlamError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) <= 2000, f"{what}: {error}"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("name", inputs.KINDS)
def test_damaged_inputs_are_read_or_refused(tmp_path, monkeypatch, name: str):
    for word, library in NEEDED.items():
        if word in name:
            pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    case = inputs.Case(name, tmp_path / "case")
    refusal = REFUSED.get(name)
    if name == "depth.exr" and not cv2.haveImageReader(str(case.files[0])):
        refusal = "of a kind that OpenCV cannot read"  # most are built without OpenEXR
    with pytest.raises(SlamError, match=refusal) if refusal else contextlib.nullcontext():
        assert not case.open()
    before = peak_mb()
    for seed in range(EACH):
        with case.spoilt(seed, can_swap=hasattr(signal, "setitimer")) as what:
            check(case.open, what)
    assert peak_mb() - before < LIMIT_MB


def test_a_case_is_the_same_everywhere_and_leaves_the_sound_file(tmp_path):
    case = inputs.Case("configuration", tmp_path / "case")
    file = case.folder / "slam.yaml"
    sound, spoilt = file.read_text(), []
    for _ in range(2):
        with case.spoilt("0 7", can_swap=False):
            spoilt.append(file.read_bytes())
        assert file.read_text() == sound
    assert spoilt[0] == spoilt[1] != sound.encode()


FAKE = """
import contextlib, os, time

def swallow(): return b"x" * (800 << 20), time.sleep(99)

KINDS = {"crash": lambda: 1 / 0, "hang": lambda: time.sleep(99), "memory": swallow, "dead": lambda: os._exit(3)}
KINDS["sound"] = int

class Case:
    def __init__(self, name, folder): self.name = name
    def spoilt(self, seed): return contextlib.nullcontext(f"{self.name}, {seed}")
    def open(self): return KINDS[self.name]()
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="watches memory as Linux tells it")
def test_the_tool_finds_what_crashes_hangs_and_swallows_memory(tmp_path):
    """Kinds that do so, in the workers of the tool itself."""
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "sitecustomize.py").write_text("import sys, fake\nsys.modules['damaged_inputs'] = fake\n")
    options = ["--count", "5", "--jobs", "1", "--seconds", "3", "--megabytes", "400", "--seed", "8"]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    command = [sys.executable, str(ROOT / "tools/fuzz_inputs.py"), *options]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 1, found.stderr
    assert "crash, 8 0: Traceback" in found.stdout and "ZeroDivisionError" in found.stdout
    assert "case 1, hang: no end within 3 s" in found.stdout
    assert "case 2, memory: more than 400 MB" in found.stdout
    assert "case 3, dead: the process died with exit code 3" in found.stdout
    assert "4 failed, 1 read; the slowest took " in found.stdout

"""Child processes of our own: what lies in the working directory is not theirs."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.probes import child
from slam.errors import SourceError
from slam.processes import in_new_process, own_program, own_python
from slam.sources.locate import located

ROOT = Path(__file__).resolve().parents[1]
SHADOWS = ("argparse", "cv2", "json", "numba", "pickle", "runpy", "slam", "tempfile")


@pytest.fixture
def strange_directory(tmp_path, monkeypatch) -> Path:
    """A working directory with modules that must not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    for name in SHADOWS:
        Path(f"{name}.py").write_text("raise SystemExit('from the working directory')\n")
    for package in ("apps", "multiprocessing"):
        Path(package).mkdir()
        Path(package, "__init__.py").write_text("raise SystemExit('from the working directory')\n")
    return tmp_path


def output(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_runs_whatever_lies_in_the_working_directory(strange_directory):
    assert (
        "from the working directory"
        in subprocess.run(  # else this test would prove nothing
            [sys.executable, "-c", "import cv2"], capture_output=True, text=True
        ).stderr
    )
    assert output(own_program("apps.view", "--help")).startswith("usage: v2d-view")
    assert child("import cv2; print(cv2.__version__)")[0]  # of v2d-doctor
    assert in_new_process(math.factorial, 5) == 120
    with pytest.raises(ValueError, match="negative"):
        in_new_process(math.factorial, -5)


def test_the_packages_are_those_of_this_process_and_pythonpath_counts(tmp_path, monkeypatch):
    (tmp_path / "developers_own.py").write_text("")
    code = "import developers_own, apps, slam; print(slam.__file__, apps.__file__, sys.argv[1:])"
    monkeypatch.chdir("/")
    printed = output(own_python(code, "a b", 3), PYTHONPATH=str(tmp_path))
    assert printed.split("\n")[0] == f"{ROOT / 'slam/__init__.py'} {ROOT / 'apps/__init__.py'} ['a b', '3']"


def test_what_a_process_dies_of_is_told():
    with pytest.raises(RuntimeError, match="exit code 7"):
        in_new_process(os._exit, 7)
    with pytest.raises(SourceError, match="no folder at nowhere"):
        in_new_process(located, Path("nowhere"))


def test_nobody_else_starts_python():
    """`python -m`, `python -c` and multiprocessing put the working directory on the path."""
    found = []
    for file in (f for folder in ("slam", "apps", "tools") for f in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            words = node.elts if isinstance(node, ast.List) else []  # of a command
            is_flag = any(isinstance(word, ast.Constant) and word.value in ("-m", "-c") for word in words)
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            pools = {"multiprocessing", "torch.multiprocessing", "ProcessPoolExecutor"} & set(names)
            if (is_flag or pools) and file.name != "processes.py":
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not found

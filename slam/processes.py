"""Our own code in child processes. The working directory is not on their path: a `cv2.py` in it would run."""

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import spawn
from pathlib import Path
from traceback import print_exc
from typing import ParamSpec, TypeVar

from slam.errors import SlamError

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]  # of the packages slam and apps
# `python -c` puts the working directory on the path as an empty word, as `python -m` does by its name. Options of the
# interpreter against that are either too new (-P, Python 3.11) or leave out PYTHONPATH and the user's packages (-I).
SAFE_PATH = "import sys; sys.path[:] = filter(None, sys.path); {root!r} in sys.path or sys.path.insert(0, {root!r})\n"
PROGRAM = "import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
CALL = "from slam.processes import call; call(*sys.argv[1:])"


def own_python(code: str, *arguments: object) -> list[str]:
    """The command that runs code, which finds `slam` and `apps` as this process has them, and nothing that lies in the
    working directory; PYTHONPATH and the user's own packages count as ever."""
    return [sys.executable, "-c", SAFE_PATH.format(root=str(ROOT)) + code, *map(str, arguments)]


def own_program(module: str, *arguments: object) -> list[str]:
    """The command that runs one of our programs, `apps.run` for v2d-slam; see `own_python`."""
    return own_python(PROGRAM.format(module=module), *arguments)


def in_new_process(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """The result of a function in a Python of its own: nothing is warm, and its memory is its own.

    Raises:
        RuntimeError: if the process died.
        Exception: what the function raised.
    """
    as_here = spawn.get_preparation_data("call")  # where functions of the main module are found
    del as_here["authkey"]  # of multiprocessing's connections; it refuses to be written
    with tempfile.TemporaryDirectory(prefix="v2d-") as folder:
        job, answer = Path(folder) / "job", Path(folder) / "answer"
        job.write_bytes(pickle.dumps(as_here) + pickle.dumps((function, arguments, options)))
        code = subprocess.run(own_python(CALL, job, answer)).returncode
        if not answer.exists():
            raise RuntimeError(f"the process of {function.__name__} died with exit code {code}")
        result, error = pickle.loads(answer.read_bytes())
    if error is not None:
        raise error
    return result


def call(job: str, answer: str) -> None:
    """The other side of `in_new_process`."""
    with open(job, "rb") as file:
        spawn.prepare(pickle.load(file))
        function, arguments, options = pickle.load(file)
    result, error = None, None
    try:
        result = function(*arguments, **options)
    except Exception as caught:  # raised again where the result is awaited
        error = caught
        if not isinstance(error, SlamError):
            print_exc()
    Path(answer).write_bytes(pickle.dumps((result, error)))

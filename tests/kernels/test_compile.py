import ast
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching

import slam.kernels
from slam.errors import warn_once
from slam.kernels.compile import is_compiled


def test_a_loop_that_ran_before_is_known(tmp_path, monkeypatch):
    source = tmp_path / "loops.py"
    source.write_text("from slam.kernels.compile import compiled\n\n@compiled()\ndef first(x):\n    return x[0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    from loops import first  # type: ignore[import-not-found]

    assert not is_compiled(first)
    assert first(np.ones(2)) == 1
    assert is_compiled(first)


def test_a_loop_called_by_loops_is_compiled_into_them():
    """Else its callers run one of two versions of it, whichever this process has compiled or read from the disk."""
    marked: dict[str, bool] = {}
    called: dict[str, str] = {}
    for path in sorted(Path(slam.kernels.__file__).parent.glob("*.py")):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef):
                for decorator in function.decorator_list:
                    if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "compiled":
                        marked[function.name] = any(word.arg == "part" for word in decorator.keywords)
                        calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                        called |= {call.id: function.name for call in calls if isinstance(call, ast.Name)}
    assert len(marked) > 30
    inner = {name for name in called if name in marked}
    assert inner and {name for name in inner if not marked[name]} == set()


LOOP = "from slam.kernels.compile import compiled\n\n@compiled()\ndef second(x):\n    return x[1]\n"


@pytest.mark.parametrize("trouble", ["nowhere", "full", "damaged"])
def test_a_loop_that_cannot_be_kept_works_all_the_same(tmp_path, monkeypatch, caplog, trouble):
    """No folder may be written; the disk is full when the code is kept; what was kept is damaged."""
    warn_once.cache_clear()
    name = f"loops_{trouble}"
    (tmp_path / f"{name}.py").write_text(LOOP)
    monkeypatch.syspath_prepend(tmp_path)
    if trouble == "nowhere":

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        for locator in (caching.UserProvidedCacheLocator, caching.InTreeCacheLocator, caching.UserWideCacheLocator):
            monkeypatch.setattr(locator, "ensure_cache_path", refused)
    if trouble == "full":

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    loop = importlib.import_module(name).second
    if trouble == "damaged":
        Path(loop.stats.cache_path).mkdir(exist_ok=True)
        line = loop.py_func.__code__.co_firstlineno
        version = f"py{sys.version_info[0]}{sys.version_info[1]}"
        (Path(loop.stats.cache_path) / f"{name}.second-{line}.{version}.nbi").write_bytes(b"\x80")
    assert loop(np.arange(3)) == 1
    assert is_compiled(loop) == (trouble == "damaged")
    if trouble != "damaged":
        (warning,) = caplog.messages
        assert warning.startswith("compiled loops are not kept") and "NUMBA_CACHE_DIR" in warning

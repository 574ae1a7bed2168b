import ast
from pathlib import Path

import numpy as np

import slam.kernels
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

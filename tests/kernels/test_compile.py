import ast
from pathlib import Path

import slam.kernels


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

"""The shape of the house: imports go one way, heavy libraries have homes, importing the package is light."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = [
    {"errors", "memory", "parsing", "threads", "timing"},
    {"reading"},
    {"device", "geometry", "settings", "processes"},
    {"kernels"},
    {"inv_depth"},
    {"solvers", "frames"},
    {"io"},
    {"networks", "rendering"},
    {"mapping", "sources", "calibration"},
    {"matching", "recognition"},
    {"stereo"},
    {"frontend", "backend", "viewer", "evaluation"},
    {"training", "config", "report", "export", "batch"},
    {"parts", "refinement"},
    {"system", "warm_up"},
    {"build"},
    {"experiment"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# path prefixes, below the root, of the files that may import a library
HOMES = {
    "open3d": ("slam/viewer/", "slam/export/mesh.py", "slam/evaluation/surface.py"),
    "viser": ("slam/viewer/",),
    "pyrealsense2": ("slam/sources/realsense.py",),
    "cv2": (
        "slam/sources/",
        "slam/io/",
        "slam/viewer/",
        "slam/calibration/",
        "slam/matching/",
        "slam/recognition/",
        "slam/stereo/",
        "slam/solvers/two_view.py",
        "slam/frames.py",  # gray images
        "slam/frontend/preparation.py",
        "slam/export/",
        "slam/threads.py",  # its threads
    ),
    "evo": (),  # GPL: tests only
}
HEAVY = ("open3d", "viser", "pyrealsense2", "cv2", "matplotlib", "numba")


def imported_modules(tree: ast.AST, package: str) -> Iterator[str]:
    """Absolute names of everything a file imports, wherever in the file; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """`slam.geometry.se3` -> `geometry`; None outside the package and for names of slam/__init__.py."""
    names = module.split(".")
    if names[0] != "slam" or len(names) < 2:
        return None
    return names[1] if not names[1].startswith("__") else None


def layer_violations(source: str, path: str) -> list[str]:
    """What a file at `path` (slam/geometry/se3.py) imports that its layer does not allow."""
    names = Path(path).with_suffix("").parts
    own = names[1]
    if own not in LEVEL:
        return [f"{path}: {own} is in no layer"]
    found = []
    for module in imported_modules(ast.parse(source), package=".".join(names[:-1])):
        other = part_of(module)
        if module.split(".")[0] == "apps":
            found.append(f"{path} imports {module}: programs are imported by nobody")
        elif other is not None and other != own and LEVEL.get(other, len(LAYERS)) >= LEVEL[own]:
            found.append(f"{path} imports {module}: {other} is not below {own}")
    return found


def files_below(*folders: str) -> list[str]:
    """Python files, as posix paths below the root."""
    return sorted(p.relative_to(ROOT).as_posix() for folder in folders for p in (ROOT / folder).rglob("*.py"))


def test_imports_go_one_way():
    problems = []
    for path in files_below("slam"):
        if path != "slam/__init__.py":
            problems += layer_violations((ROOT / path).read_text(encoding="utf-8"), path)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("path", "source", "allowed"),
    [
        ("slam/frontend/tracker.py", "from slam.geometry import se3", True),
        ("slam/frontend/tracker.py", "from slam.frontend.keyframing import wants", True),
        ("slam/frontend/tracker.py", "from slam.backend import graph", False),
        ("slam/frontend/tracker.py", "from slam import backend", False),
        ("slam/frontend/tracker.py", "from ..backend import graph", False),
        ("slam/frontend/tracker.py", "def f():\n    import slam.system", False),
        ("slam/geometry/se3.py", "from slam.solvers import gauss_newton", False),
        ("slam/networks/motion.py", "from slam.solvers import gauss_newton", True),
        ("slam/evaluation/trajectory.py", "from slam.io import trajectory", True),
        ("slam/config.py", "from slam.frontend.tracker import TrackerConfig", True),
        ("slam/system.py", "from apps import run", False),
        ("slam/stranger.py", "import math", False),
    ],
)
def test_the_layer_check_sees_what_it_should(path, source, allowed):
    assert (layer_violations(source, path) == []) is allowed


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_stay_at_home(library):
    strangers = []
    for path in files_below("slam", "apps"):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        roots = {module.split(".")[0] for module in imported_modules(tree, package="")}
        if library in roots and not path.startswith(HOMES[library]):
            strangers.append(path)
    assert not strangers, f"{library} belongs to {HOMES[library] or 'tests'}, imported by {strangers}"


def test_no_test_touches_a_private_field():
    """A test that does breaks with every change of the inside, and proves nothing about the outside."""
    found = []
    for path in files_below("tests"):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
                is_of_torch = isinstance(node.value, ast.Attribute) and node.value.attr in ("Tensor", "utils", "_C")
                found += [] if is_own or is_of_torch else [f"{path}:{node.lineno} .{node.attr}"]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("slam", "apps"):
                found += [f"{path}:{node.lineno} {a.name}" for a in node.names if a.name.startswith("_")]
    assert not found, "\n".join(found)


def test_matplotlib_is_imported_only_where_it_draws():
    """At the head of a module it would cost every program its import time."""
    eager = []
    for path in files_below("slam", "apps"):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        heads = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        if any(module.split(".")[0] == "matplotlib" for module in imported_modules(heads, package="")):
            eager.append(path)
    assert not eager


def test_v2d_slam_loads_torch_after_its_environment_is_set():
    """OpenMP reads how its threads wait once, when torch loads it; nor should --help wait for torch."""
    code = "import os, sys, apps.run; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False PASSIVE"), done.stderr


def test_import_slam_loads_no_heavy_library():
    code = f"import sys, slam; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr

"""A small textured world as a fixture: test folders are no packages, so they cannot import each other."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def wall_and_box() -> ModuleType:
    """The module `tests/mapping/wall_and_box.py`."""
    path = Path(__file__).parents[1] / "mapping" / "wall_and_box.py"
    spec = importlib.util.spec_from_file_location("v2d_test_wall_and_box", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def world(wall_and_box: ModuleType) -> Any:
    """A slanted wall and a box before it."""
    return wall_and_box.World()

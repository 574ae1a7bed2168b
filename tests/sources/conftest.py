"""The hand-made recordings as a fixture: test folders are no packages, so they cannot import each other."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest


def neighbour(name: str) -> ModuleType:
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(f"v2d_test_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scenes() -> ModuleType:
    """The module `scenes.py` of this folder."""
    return neighbour("scenes")


@pytest.fixture(scope="session")
def board_pictures() -> ModuleType:
    """The module `board_pictures.py` of this folder."""
    return neighbour("board_pictures")


@pytest.fixture(scope="session")
def realsense_recording() -> ModuleType:
    """The module `realsense_recording.py` of this folder; skips where the library is not installed."""
    pytest.importorskip("pyrealsense2", reason="pyrealsense2 cannot be loaded", exc_type=ImportError)
    return neighbour("realsense_recording")


@pytest.fixture
def development_data() -> Path:
    """The folder of real development sequences; skips where there is none."""
    root = os.environ.get("V2D_TEST_DATA")
    if not root:
        pytest.skip("V2D_TEST_DATA does not name the development sequences")
    return Path(root)

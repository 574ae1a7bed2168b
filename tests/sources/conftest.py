"""The hand-made recordings as a fixture: test folders are no packages, so they cannot import each other."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def scenes() -> ModuleType:
    """The module `scenes.py` of this folder."""
    spec = importlib.util.spec_from_file_location("v2d_test_scenes", Path(__file__).with_name("scenes.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def development_data() -> Path:
    """The folder of real development sequences; skips where there is none."""
    root = os.environ.get("V2D_TEST_DATA")
    if not root:
        pytest.skip("V2D_TEST_DATA does not name the development sequences")
    return Path(root)

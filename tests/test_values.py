"""Values that hold arrays are compared by what they are, not by what is in them."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import slam


def dataclasses_with_arrays() -> Iterator[type]:
    """Every dataclass of the package with a field that holds tensors or arrays."""
    for module in pkgutil.walk_packages(slam.__path__, "slam."):
        for cls in vars(importlib.import_module(module.name)).values():
            is_here = inspect.isclass(cls) and cls.__module__ == module.name and is_dataclass(cls)
            if is_here and any(word in str(f.type) for f in fields(cls) for word in ("Tensor", "ndarray")):
                yield cls


def test_comparing_two_values_never_compares_arrays() -> None:
    """`==` of two arrays is an array, which is neither true nor false: a generated `__eq__` would raise."""
    found = list(dataclasses_with_arrays())
    assert {cls.__name__ for cls in found} >= {"Frame", "Keyframe", "Estimate", "Trajectory", "InvDepth", "PointCloud"}
    assert [f"{cls.__module__}.{cls.__name__}" for cls in found if cls.__eq__ is not object.__eq__] == []

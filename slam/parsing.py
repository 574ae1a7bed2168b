"""YAML and JSON of strangers: values of a bounded size, or a ValueError of one line.

The parsers themselves raise many kinds of errors for damaged text, recurse as deeply as it is nested, and keep
aliases that refer to themselves or unfold without end.
"""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

yaml: Any
try:
    import yaml
except ModuleNotFoundError:  # a training machine with little beside torch
    yaml = None

MAX_YAML = 1 << 20  # characters: the parser takes a second for 300 000
MAX_VALUES = 1_000_000  # of a file, the aliases of YAML unfolded
MAX_INTEGER = 2**64
MAX_DEPTH = 200


def parse_yaml(text: str, loader: Any = None) -> Any:
    """The value of a YAML text.

    Args:
        loader: a class of PyYAML; None: its SafeLoader.

    Raises:
        ValueError: saying in one line why there is none.
    """
    if len(text) > MAX_YAML:
        raise ValueError(f"it is longer than {MAX_YAML} characters")
    opened = sum(text.count(a) - text.count(b) for a, b in ("[]", "{}"))
    if opened > MAX_DEPTH:  # the parser finds out too, after seconds
        raise ValueError("nested too deeply")
    try:
        value = _constructed((loader or yaml.SafeLoader)(text))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark else str(problem)) from error
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:  # from tags and odd scalars
        raise ValueError(f"a value cannot be read: {error}") from error
    _check(value)
    return value


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises ValueError as `parse_yaml`."""
    commas = text.count(",") if isinstance(text, str) else text.count(b",")
    if commas > 2 * MAX_VALUES:  # some may stand in texts
        raise ValueError(f"it holds more than {MAX_VALUES} values")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # the interpreter's own limit
        raise ValueError("a whole number has thousands of digits") from None
    _check(value)
    return value


def _constructed(loader: Any) -> Any:
    """The value of a document whose aliases and merge keys do not unfold without end; they are counted before."""
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > MAX_VALUES:
            raise ValueError("its aliases unfold without end")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _unfolded(node: Any, known: dict[int, int]) -> int:
    """Number of values below a node, those of an alias counted each time; 0 in `known`: not counted yet."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("nested too deeply: an alias holds itself")
        return known[id(node)]
    known[id(node)] = 0
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = count = 1 + sum(_unfolded(child, known) for child in children)
    return count


def _check(value: Any) -> None:
    """Refuse what readers cannot walk through: endless structures, and integers that no number of theirs holds."""
    waiting: list[Iterator[Any]] = [iter((value,))]
    count = 0
    while waiting:
        for item in waiting[-1]:
            count += 1
            if count > MAX_VALUES or len(waiting) > MAX_DEPTH:
                is_large = count > MAX_VALUES
                raise ValueError(f"it holds more than {MAX_VALUES} values" if is_large else "nested too deeply")
            if isinstance(item, int) and abs(item) > MAX_INTEGER:
                raise ValueError(f"a number of {item.bit_length()} bits is no number of a recording")
            if isinstance(item, dict):
                waiting.append(chain(item, item.values()))
                break
            if isinstance(item, list | tuple | set):
                waiting.append(iter(item))
                break
        else:
            waiting.pop()

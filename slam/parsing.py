"""YAML and JSON of strangers: values of a bounded size, or a ValueError of one line.

The parsers themselves raise many kinds of errors for damaged text, recurse as deeply as it is nested, and keep
aliases that refer to themselves or unfold without end.
"""

import json
from typing import Any

yaml: Any
try:
    import yaml
except ModuleNotFoundError:  # a training machine with little beside torch
    yaml = None

MAX_YAML = 16 << 20  # characters: the parser takes a second for 300 000
MAX_VALUES = 1_000_000  # aliases unfolded
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
        raise ValueError(f"longer than {MAX_YAML >> 20} million characters")
    opened = sum(text.count(a) - text.count(b) for a, b in ("[]", "{}"))
    if opened > MAX_DEPTH:  # the parser finds out too, after seconds
        raise ValueError("nested too deeply")
    try:
        value = yaml.load(text, loader or yaml.SafeLoader)
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
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check(value)
    return value


def _check(value: Any) -> None:
    """Refuse what readers cannot walk through: endless structures, and integers that no number of theirs holds."""
    waiting = [iter((value,))]
    count = 0
    while waiting:
        for item in waiting[-1]:
            count += 1
            if count > MAX_VALUES or len(waiting) > MAX_DEPTH:
                raise ValueError("its aliases unfold without end" if count > MAX_VALUES else "nested too deeply")
            if isinstance(item, int) and abs(item) > MAX_INTEGER:
                raise ValueError(f"a number of {item.bit_length()} bits is no number of a recording")
            if isinstance(item, dict | list | tuple | set):
                waiting.append(iter(item.values() if isinstance(item, dict) else item))
                break
        else:
            waiting.pop()

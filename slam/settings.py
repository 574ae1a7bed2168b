"""Configuration: nested frozen dataclasses read strictly from YAML and from `a.b=value` overrides.

Types come from the fields, not from YAML (which reads `1e-8` as text); unknown keys and wrong types are refused with
their full path.
"""

import difflib
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from slam.errors import ConfigError, shown
from slam.parsing import parse_yaml, yaml
from slam.reading import read_text

T = TypeVar("T")

MAX_BYTES = 1 << 20  # of a file; one with every setting has 10 kB
INHERIT = "inherit"  # key of a file: another file, relative to it, whose values this one overrides


def load_config(cls: type[T], path: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Build a configuration from defaults, a file and overrides, in this order.

    Args:
        cls: a dataclass, its fields scalars, tuples, mappings, enums, literals, optionals or further dataclasses.
        path: YAML file, a nested mapping of field names; `inherit: other.yaml` starts from another file.
        overrides: `section.field=value`, the value written as in YAML.

    Raises:
        ConfigError: if a file is missing or no mapping, or a key is unknown, a value of the wrong type or out of
            range; the message has the key's full path.
    """
    values = {} if path is None else _read(Path(path), ())
    for override in overrides:
        values = _merged(values, _parse_override(override))
    return build_config(cls, values)


def build_config(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """A dataclass from a nested mapping; `path` is the section's own, for messages.

    Raises:
        ConfigError: as `load_config`.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} is a section of settings, got {shown(values)}")
    hints, known = get_type_hints(cls), {field.name: field for field in _fields(cls)}
    arguments = {}
    for key, value in values.items():
        full = f"{path}.{key}" if path else str(key)
        if key not in known:
            raise ConfigError(f"unknown setting {full}; {_suggestion(str(key), list(known))}")
        arguments[str(key)] = _convert(hints[str(key)], value, full)
    for name, field in known.items():
        if name not in arguments and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{path + '.' if path else ''}{name} has no default and must be set")
    try:
        return cls(**arguments)
    except ConfigError as error:  # a range check of the section, which does not know its own path
        raise ConfigError(f"{path}: {error}" if path else str(error)) from None


def dump_config(config: Any) -> dict[str, Any]:
    """The nested mapping of plain values that `build_config` and YAML turn back into an equal configuration."""
    return {field.name: _plain(getattr(config, field.name)) for field in _fields(type(config))}


def _fields(cls: type) -> tuple[Field, ...]:
    if not is_dataclass(cls):
        raise TypeError(f"{cls} is no dataclass")
    return tuple(field for field in fields(cls) if field.init)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return dump_config(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _read(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    """A file's mapping over that of the file it inherits from."""
    path = path.resolve()
    if path in heirs:
        raise ConfigError(f"{path} inherits from itself: {' -> '.join(p.name for p in (*heirs, path))}")
    try:
        values = _load_yaml(read_text(path, "configuration", ConfigError, MAX_BYTES))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must be a mapping of settings, got {type(values).__name__}")
    parent = values.pop(INHERIT, None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(f"{INHERIT} in {path} names a file, got {shown(parent)}")
    return _merged(_read(path.parent / parent, (*heirs, path)), values)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(merged.get(key), Mapping) and (value is None or isinstance(value, Mapping)):
            merged[key] = _merged(merged[key], value or {})  # a section without lines changes nothing
        else:
            merged[key] = value
    return merged


def _parse_override(text: str) -> dict[str, Any]:
    """`a.b=v` -> {"a": {"b": v}}."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"a setting is written section.field=value, got {shown(text)}")
    try:
        parsed = _load_yaml(value)
    except ValueError:
        raise ConfigError(f"the value of {key.strip()} is not readable: {shown(value)}") from None
    for name in reversed(names):
        parsed = {name: parsed}
    return parsed


def _load_yaml(text: str) -> Any:
    """What a YAML text says. Without PyYAML: nested mappings, their values as of JSON or else text."""
    if yaml is not None:
        return parse_yaml(text)
    lines = [line.partition(" #")[0].rstrip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    lines = [line for line in lines if line]
    if not any(":" in line for line in lines):
        return _plain_scalar(text.strip())
    top: dict[str, Any] = {}
    sections = [(-1, top)]  # of the mappings that are open: their indent, themselves
    for line in lines:
        key, colon, value = line.strip().partition(":")
        indent = len(line) - len(line.lstrip())
        while sections[-1][0] >= indent:
            sections.pop()
        if not colon or key.startswith(("-", "{", "[")):
            raise ValueError(f"{shown(line.strip())} needs PyYAML, which is not installed")
        section: dict[str, Any] = {}
        sections[-1][1][key] = _plain_scalar(value.strip()) if value.strip() else section
        sections.append((indent, section))
    return top


def _plain_scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text or None


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"


def _convert(hint: Any, value: Any, path: str) -> Any:
    """The value as the field's type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is Literal:
        return _convert_choice({str(choice): choice for choice in arguments}, value, path)
    if origin is tuple or hint is tuple:
        return _convert_tuple(arguments, value, path)
    if origin is dict:
        return _convert_mapping(arguments, value, path)
    if is_dataclass(hint) and isinstance(hint, type):
        return build_config(hint, {} if value is None else value, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _convert_choice({str(choice.value): choice for choice in hint}, value, path)
    if hint in (bool, int, float, str, Path):
        return _convert_scalar(hint, value, path)
    raise TypeError(f"{path}: fields of type {hint} cannot be read from a configuration")


def _convert_union(arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [choice for choice in arguments if choice is not type(None)]
    for choice in choices[:-1]:
        try:
            return _convert(choice, value, path)
        except ConfigError:
            continue  # the next type may fit; the last one reports
    return _convert(choices[-1], value, path)


def _convert_choice(choices: Mapping[str, Any], value: Any, path: str) -> Any:
    # YAML reads a bare `on`, `off`, `yes`, `no` as a boolean
    names = [str(value)] if not isinstance(value, bool) else ["on", "yes", "true"] if value else ["off", "no", "false"]
    for name in [str(value), *names]:
        if name in choices:
            return choices[name]
    raise ConfigError(f"{path} must be one of {', '.join(choices)}, got {shown(value)}")


def _convert_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} must be a list, got {shown(value)}")
    if not arguments:
        return tuple(value)
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{path} must have {len(arguments)} values, got {len(value)}: {shown(value)}")
    return tuple(_convert(hint, item, f"{path}[{i}]") for i, (hint, item) in enumerate(zip(arguments, value)))


def _convert_mapping(arguments: tuple[Any, ...], value: Any, path: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} must be a mapping, got {shown(value)}")
    key_hint, item_hint = arguments
    return {_convert(key_hint, k, path): _convert(item_hint, item, f"{path}.{k}") for k, item in value.items()}


def _convert_scalar(hint: type, value: Any, path: str) -> Any:
    """bool only from a boolean; int and float also from text that reads as one (`1e-8`); text from any number."""
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}[hint]
    error = ConfigError(f"{path} must be {wanted}, got {shown(value)}")
    if hint is bool:
        if not isinstance(value, bool):
            raise error
        return value
    if hint in (str, Path):
        if not isinstance(value, str | Path | int | float) or isinstance(value, bool):
            raise error
        return hint(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise error
    try:
        number = float(value)
        if hint is float:
            return number
        return int(value) if isinstance(value, str) else _whole(value)
    except (ValueError, OverflowError):
        raise error from None


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(f"{value} is not whole")
    return int(value)

"""Strict conversion of configs between `ml_collections.ConfigDict`, JSON and frozen dataclasses.

Config files build a ConfigDict, so that any field can be overridden on the command line. The program reads frozen
dataclasses, so that a field has one type, one default and one docstring.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import operator
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import ml_collections

from uno_jax.process.errors import UserError

T = TypeVar("T")

_LARGEST_INT = 2**1023  # larger ones are no floats
_MAX_PROBLEMS = 20  # a config of another command has a hundred

Dtype = Literal["float32", "bfloat16"]
"""Floating-point dtypes of config fields."""


class ConfigError(UserError):
    """Raised for an invalid config. The message names every invalid field by its full path, and the expected value."""


def from_config_dict(config: Mapping[str, Any] | ml_collections.ConfigDict, cls: type[T], path: str = "config") -> T:
    """Builds dataclass `cls` from a ConfigDict or a JSON object; `path` is the name of the object in messages.

    Supported field types: bool, int, float (also accepts int), str, Literal, Optional, tuples (also accept lists),
    mappings from str, and dataclasses of these. Fields with a default are optional.

    Raises:
      ConfigError: a field is unknown, missing or of the wrong type. The message names all of them.
    """
    problems: list[str] = []
    value: T = _convert(config, cls, path, problems)
    if problems:
        more = [f"and {len(problems) - _MAX_PROBLEMS} more"] if len(problems) > _MAX_PROBLEMS else []
        raise ConfigError("\n".join([*problems[:_MAX_PROBLEMS], *more]))
    return value


def to_json(value: Any) -> Any:
    """Converts a dataclass to dicts, lists and scalars for `json.dumps`; `from_config_dict` is the inverse."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return value


def json_file(value: Any) -> bytes:
    """Contents of an indented JSON file with `to_json(value)`."""
    return (json.dumps(to_json(value), indent=1) + "\n").encode()


def to_config_dict(value: Any) -> ml_collections.ConfigDict:
    """Converts a dataclass to a ConfigDict with a node for every dataclass and dictionary; tuples stay tuples."""
    if isinstance(value, Mapping):
        items: Mapping[str, Any] = value
    else:
        items = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    config = ml_collections.ConfigDict()
    for name, item in items.items():
        nested = dataclasses.is_dataclass(item) or isinstance(item, Mapping)
        config[name] = to_config_dict(item) if nested else item
    return config


def dictionary_fields(cls: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the dotted name of each field of a dataclass that is a dictionary of scalars, and their type."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            found |= dictionary_fields(kind, f"{prefix}{name}.")
        elif typing.get_origin(kind) is Mapping and not dataclasses.is_dataclass(typing.get_args(kind)[1]):
            found[prefix + name] = typing.get_args(kind)[1]
    return found


def range_rules(config: Any, ranges: Iterable[tuple[str, float, float]]) -> Iterator[tuple[bool, str]]:
    """Yields for each range whether the value of its field is in it, and the message if it is not.

    A range is the dotted name of the field, the minimum (inclusive) and the end (exclusive). An end of infinity
    excludes infinity itself, and every range excludes NaN.
    """
    for name, lowest, end in ranges:
        value = operator.attrgetter(name)(config)
        # A large end is of interest only to a value beyond it.
        if end == math.inf:
            expected = f"at least {lowest}" + (", and finite" if value == math.inf else "")
        else:
            expected = f"a number from {lowest} to below {end}" if end == 1 or value >= end else f"at least {lowest}"
        yield lowest <= value < end, f"config.{name} is {value}: give {expected}"


def _convert(value: Any, kind: Any, path: str, problems: list[str]) -> Any:
    """Converts `value` to `kind`. If that is not possible, appends to `problems` and returns None."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(value, kind, path, problems)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        if len(kinds) == 1:
            return _convert(value, kinds[0], path, problems)
        raise TypeError(f"{path} has type {kind}: configs do not support unions of several types")
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        choices = ", ".join(map(repr, arguments))
        problems.append(f"{path} is {value!r}: expected one of {choices}{_suggestion(value, arguments)}")
        return None
    if origin is tuple:
        return _convert_tuple(value, kind, arguments, path, problems)
    if origin is Mapping:
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            return {str(name): _convert(value[name], arguments[1], f"{path}.{name}", problems) for name in value}
        problems.append(f"{path} is {value!r} ({type(value).__name__}): expected {_describe(kind)}")
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_INT:
        return float(value)
    if kind in (bool, int, float, str):
        if type(value) is kind:
            return value
        problems.append(f"{path} is {value!r} ({type(value).__name__}): expected {kind.__name__}")
        return None
    raise TypeError(f"{path}: configs do not support fields of type {kind}")


def _convert_dataclass(value: Any, cls: Any, path: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(value):
        value = to_config_dict(value)
    if not isinstance(value, (Mapping, ml_collections.ConfigDict)):
        problems.append(f"{path} is {value!r} ({type(value).__name__}): expected the fields of {cls.__name__}")
        return None
    kinds = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name in value:
        if name not in fields:
            hint = _suggestion(name, fields) or f"; expected one of {', '.join(fields)}"
            problems.append(f"{path}.{name} is not a field of {cls.__name__}{hint}")
    found: dict[str, Any] = {}
    before = len(problems)
    for name, field in fields.items():
        if name in value:
            found[name] = _convert(value[name], kinds[name], f"{path}.{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{path}.{name} is missing: expected {_describe(kinds[name])}")
    if len(problems) > before:
        return None
    try:
        return cls(**found)
    except ValueError as error:  # raised by the checks of a dataclass, which name the field but not its path
        problems.append(f"{path}: {error}")
        return None


def _convert_tuple(value: Any, kind: Any, arguments: tuple[Any, ...], path: str, problems: list[str]) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        problems.append(f"{path} is {value!r} ({type(value).__name__}): expected {_describe(kind)}")
        return None
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        problems.append(f"{path} is {tuple(value)!r}: expected {len(arguments)} values, {_describe(kind)}")
        return None
    pairs = zip(value, arguments, strict=True)
    return tuple(_convert(item, argument, f"{path}[{i}]", problems) for i, (item, argument) in enumerate(pairs))


def _describe(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_origin(kind) else str(kind)


def _suggestion(name: Any, known: Any) -> str:
    """Returns `; did you mean ...?` if a known name is similar, otherwise an empty string."""
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""

"""Configs: `ml_collections.ConfigDict` and JSON in, frozen dataclasses out, and back. Strict, and generic.

Config files build a ConfigDict so that any field can be overridden on the command line; the program reads frozen
dataclasses, so that a field has one type, one default and one place that says what it means.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import ml_collections

from uno_jax.process.errors import UserError

T = TypeVar("T")

Dtype = Literal["float32", "bfloat16"]
"""Floating-point dtypes that a config may ask for."""


class ConfigError(UserError):
    """A config that cannot be run: the message names every wrong field by its full path, and what to do."""


def from_config_dict(config: Mapping[str, Any] | ml_collections.ConfigDict, cls: type[T], path: str = "config") -> T:
    """Builds dataclass `cls` from a ConfigDict or a JSON object; `path` is how messages name the whole.

    Supported field types: bool, int, float (an int is taken for it), str, Literal, Optional, tuples (lists are taken
    for them), mappings from str, and dataclasses of these. Fields with a default may be absent.

    Raises:
      ConfigError: naming every unknown, missing or wrongly typed field.
    """
    problems: list[str] = []
    value: T = _convert(config, cls, path, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return value


def to_json(value: Any) -> Any:
    """A dataclass as plain dicts, lists and scalars, ready for `json.dumps`; `from_config_dict` reads it back."""
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    return value


def json_file(value: Any) -> bytes:
    """What `to_json` makes of it, as the contents of a file that people may read."""
    return (json.dumps(to_json(value), indent=1) + "\n").encode()


def to_config_dict(value: Any) -> ml_collections.ConfigDict:
    """A dataclass as a ConfigDict with a node for every nested dataclass; tuples stay tuples."""
    config = ml_collections.ConfigDict()
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        config[field.name] = to_config_dict(item) if dataclasses.is_dataclass(item) else item
    return config


def _convert(value: Any, kind: Any, path: str, problems: list[str]) -> Any:
    """`value` as `kind`; appends to `problems` (and returns None) where that cannot be."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(value, kind, path, problems)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        if len(kinds) == 1:
            return _convert(value, kinds[0], path, problems)
        raise TypeError(f"{path}: unions of several types are not supported in configs, got {kind}")
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        choices = ", ".join(map(repr, arguments))
        problems.append(f"{path} is {value!r}: expected one of {choices}{_near(value, arguments)}")
        return None
    if origin is tuple:
        return _convert_tuple(value, kind, arguments, path, problems)
    if origin is Mapping:
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            return {str(name): _convert(value[name], arguments[1], f"{path}.{name}", problems) for name in value}
        problems.append(f"{path} is {value!r} ({type(value).__name__}): expected {_describe(kind)}")
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, float, str):
        if type(value) is kind:
            return value
        problems.append(f"{path} is {value!r} ({type(value).__name__}): expected {kind.__name__}")
        return None
    raise TypeError(f"{path}: configs cannot hold fields of type {kind}")


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
            problems.append(f"{path}.{name} is not a field of {cls.__name__}{_near(name, fields)}")
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
    except ValueError as error:  # a dataclass that checks itself names its field; here it gets its place
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


def _near(name: Any, known: Any) -> str:
    """`; did you mean ...?` where a known name is close, else the names that there are."""
    names = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(names)}"

"""Reads JSON files of checkpoints, each of which holds an object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uno_jax.process.errors import CheckpointError
from uno_jax.process.json_reader import JsonError, read_json_object

_LARGEST = 2.0**1023


def read_object(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file of a checkpoint.

    Raises:
      CheckpointError: the file cannot be read, or does not hold a JSON object.
    """
    try:
        return read_json_object(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    except JsonError as error:
        raise CheckpointError(str(error)) from error


def section(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Returns the object stored under a field, or an empty one if the field is missing.

    Args:
      values: the enclosing object.
      name: the field.
      where: name of the enclosing object in error messages.

    Raises:
      CheckpointError: the field is not an object.
    """
    value = values.get(name, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: {name} is {value!r}; expected a JSON object")
    return value


def number(values: Mapping[str, Any], name: str, default: float, where: str, *, positive: bool = False) -> float:
    """Returns the finite number stored under a field, or the default if the field is missing.

    Args:
      values: the enclosing object.
      name: the field.
      default: value of a missing field.
      where: name of the enclosing object in error messages.
      positive: requires a number greater than 0.

    Raises:
      CheckpointError: the field is not such a number.
    """
    value = values.get(name, default)
    if type(value) not in (int, float) or not abs(value) < _LARGEST or (positive and value <= 0):
        raise CheckpointError(f"{where}: {name} is {value!r}; expected a {'positive ' if positive else ''}number")
    return float(value)

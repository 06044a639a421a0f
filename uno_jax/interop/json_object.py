"""JSON files that hold an object, as all of a checkpoint do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uno_jax.process.errors import CheckpointError
from uno_jax.process.json_reader import JsonError, read_json_object


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint.

    Raises:
      CheckpointError: the file cannot be read, or holds no JSON object.
    """
    try:
        return read_json_object(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    except JsonError as error:
        raise CheckpointError(str(error)) from error


def section(values: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """The object under a field; empty where there is none. `where` is how messages name the object around it.

    Raises:
      CheckpointError: something else is there.
    """
    value = values.get(name, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: {name} is {value!r}; expected a JSON object")
    return value


def number(values: Mapping[str, Any], name: str, default: float, where: str, *, positive: bool = False) -> float:
    """The finite number under a field, or the default; `where` as above.

    Raises:
      CheckpointError: something else is there, or none that is positive where it must be.
    """
    value = values.get(name, default)
    if type(value) not in (int, float) or not abs(value) < math.inf or (positive and value <= 0):
        raise CheckpointError(f"{where}: {name} is {value!r}; expected a {'positive ' if positive else ''}number")
    return float(value)

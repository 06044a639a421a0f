"""Reads JSON that people or other programs wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uno_jax.process.errors import UserError


class JsonError(UserError):
    """Text that is not valid JSON, or not the kind of value that was expected."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8, with or without a byte order mark.

    Raises:
      JsonError: the text is not valid JSON; the message gives the reason and the place in the text.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in error.doc else ""
        reason = f"{error.msg} at {line}character {error.colno}"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not UTF-8"
    except RecursionError:
        reason = "brackets nested too deeply"
    except ValueError as error:  # an integer of too many digits
        reason = str(error)
    raise JsonError(f"not valid JSON ({reason})")


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      OSError: the file cannot be read.
      JsonError: the file holds no JSON object; the message begins with its path.
    """
    try:
        value = parse_json(file.read_bytes())
    except JsonError as error:
        raise JsonError(f"{file}: {error}; if it was downloaded or copied, fetch it again") from None
    if not isinstance(value, dict):
        raise JsonError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value

"""Reads JSON from users and other programs, with errors that name the reason and the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uno_jax.process.errors import UserError


class JsonError(UserError):
    """Raised for invalid JSON, or for a value of an unexpected type."""


def parse_json(text: str | bytes) -> Any:
    """Parses a JSON text. Bytes are UTF-8, with or without a byte order mark.

    Raises:
      JsonError: the text is not valid JSON. The message gives the reason and the place in the text.
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
    except ValueError as error:  # an integer with too many digits
        reason = str(error)
    raise JsonError(f"not valid JSON ({reason})")


def read_json_object(file: Path) -> dict[str, Any]:
    """Reads a file with a JSON object.

    Raises:
      OSError: the file cannot be read.
      JsonError: the file does not contain a JSON object. The message begins with its path.
    """
    try:
        value = parse_json(file.read_bytes())
    except JsonError as error:
        raise JsonError(f"{file}: {error}. If the file was downloaded or copied, fetch it again") from None
    if not isinstance(value, dict):
        raise JsonError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value

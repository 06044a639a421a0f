"""Reads JSON from users and other programs, with errors that name the reason and the place."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from uno_jax.process.errors import UserError

LARGEST_FILE = 2**28
"""Maximum size in bytes of a JSON file. The largest of a published checkpoint has 10 MB."""


class JsonError(UserError):
    """Raised for invalid JSON, or for a value of an unexpected type."""


def parse_json(text: str | bytes) -> Any:
    """Parses a JSON text. Bytes are UTF-8, with or without a byte order mark.

    Raises:
      JsonError: the text is not valid JSON. The message gives the reason and the place in the text.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in error.doc else ""
        reason = f"{error.msg} at {line}character {error.colno}"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not UTF-8"
    except RecursionError:
        reason = "brackets nested too deeply"
    except ValueError as error:  # an integer with too many digits, or from _object
        too_long = str(error).startswith("Exceeds the limit")
        reason = f"a number of more than {sys.get_int_max_str_digits()} digits" if too_long else str(error)
    raise JsonError(f"not valid JSON ({reason})")


def half_pair(value: Any) -> str | None:
    """Returns the name of a text with half of a surrogate pair in a JSON value, or None if there is none.

    Such a text, as `"\\ud83d"` gives, is no valid Unicode and cannot be stored. A name is one such as `a.b[0]`.
    """
    parts = [("", value)]
    while parts:
        name, part = parts.pop()
        if isinstance(part, str) and any("\ud800" <= character <= "\udfff" for character in part):
            return name
        if isinstance(part, dict):
            named = [(f"{name}.{key}" if name else key, key, item) for key, item in part.items()]
            parts += [pair for where, key, item in named for pair in ((where, item), (where, key))]
        elif isinstance(part, list):
            parts += [(f"{name}[{number}]", item) for number, item in enumerate(part)]
    return None


def read_json_object(file: Path) -> dict[str, Any]:
    """Reads a file with a JSON object.

    Raises:
      OSError: the file cannot be read.
      JsonError: the file does not contain a JSON object, or is too large. The message begins with its path.
    """
    size = file.stat().st_size
    if size > LARGEST_FILE:
        raise JsonError(f"{file}: {size:,} bytes are more than the maximum of {LARGEST_FILE:,} for a JSON file")
    try:
        value = parse_json(file.read_bytes())
    except JsonError as error:
        raise JsonError(f"{file}: {error}. If the file was downloaded or copied, fetch it again") from None
    if not isinstance(value, dict):
        raise JsonError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object, in which no key may occur twice: readers disagree on which of the values counts."""
    values = dict(pairs)
    if len(values) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} occurs twice")
    return values

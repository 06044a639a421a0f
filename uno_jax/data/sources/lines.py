"""Lines of JSONL files, read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from uno_jax.data.sources.schema import Problem
from uno_jax.process.json_reader import JsonError, parse_json

LONGEST_LINE = 2**20
"""Maximum length of a line in bytes. A longer one is read in parts of this size."""

_REMEDY = "Write one JSON object per line, as UTF-8 text"


def bounded_lines(file: Any) -> Iterator[tuple[bytes, int]]:
    """Yields the lines of a binary file, without what follows their maximum, and their whole lengths in bytes."""
    while line := file.readline(LONGEST_LINE + 1):
        length, part = len(line), line
        while len(part) > LONGEST_LINE and not part.endswith(b"\n"):
            part = file.readline(LONGEST_LINE + 1)
            length += len(part)
        yield line, length


def read_lines(path: Path | epath.Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields line number (from 1), byte offset and content of each non-empty line, without what follows its maximum."""
    offset = 0
    with path.open("rb") as file:
        for number, (line, length) in enumerate(bounded_lines(file), 1):
            if line.strip():
                yield number, offset, line
            offset += length


def parse_line(line: bytes) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Returns the JSON object of a line, or what is wrong with the line."""
    if len(line) > LONGEST_LINE:
        return {}, (("(line)", f"more than {LONGEST_LINE:,} bytes", _REMEDY),)
    try:
        fields = parse_json(line)
    except JsonError as error:
        return {}, (("(line)", str(error), _REMEDY),)
    if not isinstance(fields, dict):
        return {}, (("(line)", f"a JSON {type(fields).__name__}, not an object", _REMEDY),)
    return fields, ()

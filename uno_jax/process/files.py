"""Writes files atomically."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yields a temporary path next to `file`, and renames it to `file` at the end.

    An error removes the temporary file and keeps an existing `file`.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)

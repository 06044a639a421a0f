"""Writes output directories atomically: under a temporary name, renamed once they are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from uno_jax.process.errors import CheckpointError
from uno_jax.process.files import is_empty, partial_folder, put_folder
from uno_jax.process.signals import signals_held

# Time that an interrupted writer may need to finish its current file.
_REMOVAL_SECONDS = 10.0


@contextmanager
def new_directory(path: str | Path, source: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a path where nothing exists yet, and renames the directory written there to `path` at the end.

    An error removes the new directory and keeps an existing `path`. A symbolic link stays, and its target is created
    or replaced. An existing empty folder is filled in place. All hosts enter together: each gets the same path, and the
    first host renames.

    Args:
      path: the directory to create.
      source: what the directory is created from; never replaced.
      overwrite: whether an existing `path` is replaced.

    Raises:
      CheckpointError: `path` exists and `overwrite` is off, or replacing it would destroy `source`.
      OSError: the directory cannot be created.
    """
    path, source = Path(path).resolve(), Path(source).resolve()
    if path.exists() and not (path.is_dir() and is_empty(path)):
        if not overwrite:
            raise CheckpointError(f"{path} already exists; choose another path, or replace it with --overwrite")
        if source.is_relative_to(path) or path.is_relative_to(source):
            raise CheckpointError(f"{path}: replacing it would destroy the source {source}; choose another path")
    number = os.getpid()
    if jax.process_count() > 1:
        number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    partial = partial_folder(path, number)
    first = jax.process_index() == 0
    new_parents = [parent for parent in path.parents if not parent.exists()]
    complete = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"complete {partial}")
        if first:
            with signals_held():
                put_folder(partial, path, path.with_name(f".{path.name}.old-{number}"))
        complete = True
    finally:
        if first:
            _remove(partial)
        for parent in [] if complete else new_parents:
            with contextlib.suppress(OSError):  # another process has written there
                parent.rmdir()


def _remove(partial: Path) -> None:
    """Removes `partial`, and the temporary directories of Orbax whose names start with its name."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while time.monotonic() < deadline and partial.parent.is_dir():
        left = [
            path for path in partial.parent.iterdir() if path == partial or path.name.startswith(f"{partial.name}.")
        ]
        if not left:
            return
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.01)

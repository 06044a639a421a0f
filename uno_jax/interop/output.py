"""Directories that appear whole: made beside their place, and renamed when they are complete."""

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
from uno_jax.process.signals import signals_held

# What a writer that was interrupted may still take to finish the file that it is at.
_REMOVAL_SECONDS = 10.0


@contextmanager
def new_directory(path: str | Path, source: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path to make a directory at (nothing is there yet), which becomes `path` when the context is left.

    If it is left by an error nothing is left behind, and what was at `path` stays. Of a symbolic link the directory
    that it leads to is made or replaced, and the link stays. For all hosts together: each gets the same path, and the
    first host renames.

    Args:
      path: the directory to make.
      source: what it is made from, which is not to be replaced.
      overwrite: whether what is at `path` may be replaced.

    Raises:
      CheckpointError: there is something at `path`, and `overwrite` is off, or it holds `source` or is part of it.
      OSError: the directory cannot be made there.
    """
    path, source = Path(path).resolve(), Path(source).resolve()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not overwrite:
            raise CheckpointError(
                f"{path}: there is something already; give another place, or --overwrite to replace it"
            )
        if source.is_relative_to(path) or path.is_relative_to(source):
            raise CheckpointError(f"{path}: to replace it would destroy {source}, which is read; give another place")
    number = os.getpid()
    if jax.process_count() > 1:
        number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    partial = path.with_name(f".{path.name}.partial-{number}")
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
                _replace(partial, path, path.with_name(f".{path.name}.old-{number}"))
        complete = True
    finally:
        if first:
            _remove(partial)
        for parent in [] if complete else new_parents:
            with contextlib.suppress(OSError):  # something else has come there
                parent.rmdir()


def _replace(new: Path, path: Path, old: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old) if old.is_dir() else old.unlink()


def _remove(partial: Path) -> None:
    """Removes what was made at `partial`, and what Orbax made beside it under that name and a suffix."""
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

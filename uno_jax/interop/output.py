"""Directories that appear whole: made beside their place, and renamed when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from uno_jax.checkpoint_errors import CheckpointError


@contextmanager
def new_directory(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path to make a directory at (nothing is there yet), which becomes `path` when the context is left.

    If it is left by an error nothing is left behind, and what was at `path` stays. For all hosts together: each gets
    the same path, and the first host renames.

    Raises:
      CheckpointError: there is something at `path`, and `overwrite` is off; or no directory that it could be made in.
    """
    path = Path(path).absolute()
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(f"{path}: there is something already; give another place, or --overwrite to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.getpid()
    if jax.process_count() > 1:
        number = int(multihost_utils.broadcast_one_to_all(np.int32(number)))
    partial = path.with_name(f".{path.name}.partial-{number}")
    first = jax.process_index() == 0
    try:
        yield partial
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"complete {partial}")
        if first:
            _replace(partial, path, path.with_name(f".{path.name}.old-{number}"))
    finally:
        if first:
            shutil.rmtree(partial, ignore_errors=True)


def _replace(new: Path, path: Path, old: Path) -> None:
    if path.exists():
        path.rename(old)
        new.rename(path)
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    else:
        new.rename(path)

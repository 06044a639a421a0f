"""The name and the hash of a checkpoint, for what was made with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uno_jax.interop.public_files import open_public
from uno_jax.interop.source import PublicDirectory, find_source
from uno_jax.process.files import hash_files
from uno_jax.training.stored_trees import CHECKSUMS, CHECKSUMS_FILE


def about_checkpoint(path: str) -> dict[str, Any]:
    """Returns the files that identify the parameters at a path, and their hash.

    For a checkpoint of a run, that is its `checksums.json`, which has the checksum of every array. For the public
    layout, or without that file, all files of tensors are read.

    Raises:
      CheckpointError: there is no checkpoint, or its files are damaged.
    """
    source = find_source(path)
    if isinstance(source, PublicDirectory):
        files = [file for part in open_public(source.path).parts for file in part.files.files]
    elif (checksums := source.path / CHECKSUMS / CHECKSUMS_FILE).is_file():
        files = [checksums]
    else:
        files = sorted(file for file in source.path.rglob("*") if file.is_file())
    names = [str(file.relative_to(source.path)) for file in files]
    return {"files": names, "sha256": hash_files(files)}


def folder_name(path: str) -> str:
    """Returns the last part of a path that names a model: not `checkpoints`, nor the number of a step."""
    parts = [part for part in Path(path).resolve().parts if part != "checkpoints" and not part.isdecimal()]
    return parts[-1] if len(parts) > 1 else "model"

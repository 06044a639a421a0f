"""Damages stored files as disks, copies and people do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from uno_jax.training.stored_trees import CHECKSUMS, METADATA_FILE


def files_of(directory: Path) -> list[Path]:
    """Returns all files below a directory, the largest first."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


def flip_bit(file: Path, bit: int) -> None:
    """Flips one bit of a file. Numbers beyond its end begin again."""
    content = bytearray(file.read_bytes())
    byte, place = divmod(bit % (8 * len(content)), 8)
    content[byte] ^= 1 << place
    file.write_bytes(content)


def cut(file: Path) -> None:
    """Cuts a file in half."""
    os.truncate(file, file.stat().st_size // 2)


def remove_checksums(checkpoint: Path) -> None:
    """Makes a checkpoint look like those that were written before there were checksums."""
    shutil.rmtree(checkpoint / CHECKSUMS)
    file = checkpoint / METADATA_FILE
    metadata = json.loads(file.read_bytes())
    del metadata["item_handlers"][CHECKSUMS]
    file.write_text(json.dumps(metadata))


def put_value(checkpoint: Path, name: str, index: int, value: float) -> None:
    """Writes a value into a parameter of a checkpoint, as a run that was not checked may have left it."""
    params = flatten_dict(ocp.PyTreeCheckpointHandler().restore(checkpoint / "params"), sep="/")
    arrays = {path: np.array(array) for path, array in params.items()}
    arrays[name].flat[index] = value
    shutil.rmtree(checkpoint / "params")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(checkpoint.resolve() / "params", unflatten_dict(arrays, sep="/"))
    remove_checksums(checkpoint)

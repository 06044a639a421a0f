"""Damages stored files as disks, copies and people do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

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

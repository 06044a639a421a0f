"""Folders of checkpoints: which there are, whether their files are whole, and their small files. Reads no arrays.

`checkpoints.py` describes what a folder holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from uno_jax.parallel.hosts import gather_json, together
from uno_jax.process.errors import CheckpointError
from uno_jax.process.json_reader import JsonError, parse_json
from uno_jax.training.checksums import file_checksum
from uno_jax.training.stored_trees import CHECKSUMS, METADATA_FILE, items_of, read_checksums

DataState = dict[str, Any]
"""Position of virtual shards by their name, JSON."""

RUN_ITEMS = ("params", "training", "data", "assets")
"""Items that every checkpoint of a run has."""
DATA_FILE = "metadata"
"""File of the item `data`."""
# Orbax writes a checkpoint under a name with the first ending. The second is added to that of a failed attempt.
_UNFINISHED, _FAILED = ".orbax-checkpoint-tmp", ".failed"


def find_checkpoint(directory: str | Path) -> Path | None:
    """Returns the checkpoint at a path: the path itself, or the newest in a checkpoints folder or workdir, or None."""
    directory = Path(directory).resolve()
    if _is_checkpoint(directory):
        return directory
    for folder in (directory, (directory / "checkpoints").resolve()):
        steps = saved_steps(folder)
        if steps:
            return folder / str(steps[-1])
    return None


def saved_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, whole or not, in ascending order."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal() and _is_checkpoint(path))


def set_aside(folder: Path, steps: Sequence[int], suffix: str) -> list[Path]:
    """Renames checkpoints, so that no command finds them and new ones of the same steps can be saved.

    Called by all hosts. Returns their new paths, which end with the suffix.

    Raises:
      CheckpointError: the folder cannot be written.
    """

    def rename() -> list[str]:
        renamed = []
        for step in steps if jax.process_index() == 0 else ():
            path = unused_name(folder / f"{step}.{suffix}")
            try:
                (folder / str(step)).rename(path)
            except OSError as error:
                raise CheckpointError(f"{folder / str(step)}: cannot be renamed ({cause(error)})") from None
            renamed.append(str(path))
        return renamed

    return [Path(path) for path in gather_json(together(rename))[0]]


def _is_checkpoint(directory: Path) -> bool:
    """Whether a directory is a checkpoint, which may lack a part."""
    parts = [(directory / item).is_dir() for item in RUN_ITEMS]
    return sum(parts) > 1 or (directory / METADATA_FILE).is_file()


def is_of_run(checkpoint: Path) -> bool:
    """Whether a checkpoint is a run's, and not only a model."""
    return any((checkpoint / item).is_dir() for item in ("training", "data"))


def has_ema(checkpoint: Path) -> bool:
    """Whether a checkpoint holds EMA weights of the trained parameters."""
    return "ema" in items_of(checkpoint)


def has_anchor(checkpoint: Path) -> bool:
    """Whether a checkpoint holds the trainable parameters that its run started from."""
    return "anchor" in items_of(checkpoint)


def check_files(checkpoint: Path, *, resumable: bool = False) -> bool:
    """Checks that the items of a checkpoint are there and that its small files are whole. Reads no arrays.

    Without `resumable`, only the model is needed: a copy may lack `training`, `data` and `ema`.

    Returns:
      Whether it has checksums. Those of earlier versions have none.

    Raises:
      CheckpointError: an item or a file is missing or damaged.
    """
    checksums = read_checksums(checkpoint)
    written = items_of(checkpoint) if checksums is None else {*checksums.arrays, CHECKSUMS}
    items = {*RUN_ITEMS, *written} if resumable else {"params", "assets", *({"autoencoder"} & written)}
    missing = sorted(item for item in items if not (checkpoint / item).is_dir())
    if missing:
        raise CheckpointError(f"{checkpoint}: {', '.join(missing)} is missing. Use another checkpoint")
    for name, checksum in (checksums.files if checksums else {}).items():
        if name.split("/")[0] in items:
            _check_file(checkpoint / name, checksum)
    return checksums is not None


def _check_file(file: Path, checksum: str) -> None:
    try:
        whole = file_checksum(file.read_bytes()) == checksum
    except OSError as error:
        raise CheckpointError(f"{file}: missing or unreadable ({cause(error)}). Use another checkpoint") from None
    if not whole:
        raise CheckpointError(f"{file}: damaged: it differs from what was saved. Use another checkpoint")


def read_asset(checkpoint: Path, name: str) -> bytes:
    """Reads a file of a checkpoint's `assets` folder, for example `config.json`."""
    return (checkpoint / "assets" / name).read_bytes()


def read_data_state(checkpoint: Path) -> DataState:
    """Reads the data position of a checkpoint, for all shards of all hosts.

    Raises:
      CheckpointError: files are missing or damaged.
    """
    file = checkpoint / "data" / DATA_FILE
    try:
        state: DataState = parse_json(file.read_bytes())
        return state
    except (OSError, JsonError) as error:
        raise CheckpointError(f"{file}: missing or damaged ({error}). Use another checkpoint") from None


def why_unwritable(directory: Path) -> str | None:
    """Tries to write a file into the folder, which is made. Returns why it cannot be, or None."""
    probe = directory / f".writable.{jax.process_index()}.{os.getpid()}.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(4096))
    except OSError as error:
        return cause(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def remove_unfinished(directory: Path) -> None:
    """Removes what failed or interrupted attempts left in the folder.

    Threads of a failed attempt may still write files. So a folder is renamed first, and what cannot be removed is left
    for the next time.
    """
    for path in directory.glob(f"*{_UNFINISHED}*"):
        if _FAILED not in path.name:
            with contextlib.suppress(OSError):
                path = path.rename(unused_name(path.with_name(f"{path.name}{_FAILED}")))
        shutil.rmtree(path, ignore_errors=True)


def unused_name(path: Path) -> Path:
    names = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 10_000)))
    return next(name for name in names if not name.exists())


def cause(error: Exception) -> str:
    """Returns the file system's own words. TensorStore's message begins with its layers and ends with them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0].split(" [")[0].rsplit(": ", 1)[-1] or type(error).__name__

"""Checkpoints: everything needed to resume a run, or to use its model on another machine.

A checkpoint is a directory named by its step. Its items are `params` (trainable and frozen), `training` (optimizer,
counters, running estimates), `ema` (if the run keeps an EMA), `autoencoder` (if it has parameters), `data` (position of
every virtual shard, JSON), and `assets` (config, model sizes, tokenizer files, package versions). A model without a
run is saved without `training`, `ema` and `data`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from uno_jax.parallel.hosts import gather_json
from uno_jax.process.errors import CheckpointError, CheckpointMismatch, lines_of
from uno_jax.process.signals import signals_held
from uno_jax.training.state import Params, TrainState, is_under_any, merge, partition
from uno_jax.training.versions import VERSIONS_FILE, versions_json

DataState = dict[str, Any]

# Limits of host memory and of the size of a stored chunk while `save_model` writes.
_CONCURRENT_GB = 1
_CHUNK_BYTES = 2**26

# Fields of TrainState in the item `training`. Parameters and EMA are separate items.
_TRAINING = ("step", "opt_state", "gradient_norms", "latched", "skipped")


@dataclass(frozen=True)
class CheckpointConfig:
    """Interval and number of checkpoints. The last step is always saved."""

    every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Number of newest checkpoints to keep."""


class Checkpoints:
    """The checkpoints of one run, in `directory`. Saving is asynchronous; `close` waits until it is finished."""

    def __init__(self, directory: str | Path, keep: int, assets: Mapping[str, bytes]):
        self.directory = Path(directory).resolve()
        self._assets = {**assets, VERSIONS_FILE: versions_json()}
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
        )

    def save(self, step: int, state: TrainState, data_state: DataState, autoencoder: Params | None = None) -> None:
        """Starts saving `state` as the checkpoint of `step`, unless it exists.

        `data_state` is the position of this host's shards after the last batch that `state` has consumed. Shard names
        do not depend on the number of hosts. The arrays are copied before this returns, so the state may be donated.
        """
        if step in self._manager.all_steps():
            return
        items = {
            "params": ocp.args.StandardSave(merge(state.trainable, state.frozen)),
            "training": ocp.args.StandardSave({name: getattr(state, name) for name in _TRAINING}),
            "data": ocp.args.JsonSave(gather_hosts(data_state)),
            "assets": FilesSave(self._assets),
        }
        if state.ema is not None:
            items["ema"] = ocp.args.StandardSave(state.ema)
        if autoencoder:
            # Every host has its own copy on its own devices. As numpy, Orbax writes one of them.
            items["autoencoder"] = ocp.args.StandardSave(jax.tree.map(np.asarray, autoencoder))
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step: int, target: TrainState) -> tuple[TrainState, DataState]:
        """Restores the state of `step` and the data position of all hosts' shards.

        `target` is a TrainState of arrays or of `jax.ShapeDtypeStruct` with shardings. It determines shapes, dtypes and
        shardings, so the mesh may differ from the one that saved the checkpoint. If the checkpoint has no EMA but
        `target` does, the EMA starts from the parameters. Gradient norms of losses missing from the checkpoint start at
        0 (not measured).

        Raises:
          CheckpointMismatch: the checkpoint's tensors differ from those of `target`.
          CheckpointError: files are missing or damaged.
        """
        directory = self.directory / str(step)
        params = restore_tree(directory / "params", merge(target.trainable, target.frozen))
        training = _restore_training(directory / "training", target)
        paths = ["/".join(path) for path in flatten_dict(target.trainable)]
        trainable, frozen = partition(params, paths)
        if target.ema is None:
            ema = None
        elif has_ema(directory):
            ema = restore_tree(directory / "ema", target.ema)
        else:
            # Copies, because a donated state must not contain a buffer twice.
            ema = jax.tree.map(lambda x, to: jax.device_put(jnp.array(x, to.dtype), to.sharding), trainable, target.ema)
        return TrainState(trainable=trainable, frozen=frozen, ema=ema, **training), read_data_state(directory)

    def wait(self) -> None:
        """Blocks until everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until saving is finished, and ends the threads."""
        self._manager.close()


def _restore_training(directory: Path, target: TrainState) -> dict[str, Any]:
    saved = saved_leaves(directory)
    known = {name: leaf for name, leaf in target.gradient_norms.items() if f"gradient_norms/{name}" in saved}
    fields = {name: getattr(target, name) for name in _TRAINING}
    restored = restore_tree(directory, {**fields, "gradient_norms": known})
    new = {
        name: jax.device_put(jnp.zeros((), leaf.dtype), leaf.sharding)
        for name, leaf in target.gradient_norms.items()
        if name not in known
    }
    return {**restored, "gradient_norms": {**restored["gradient_norms"], **new}}


def save_model(directory: Path, params: Params, autoencoder: Params, assets: Mapping[str, bytes]) -> None:
    """Writes a model without a run as the checkpoint `directory`, which appears when complete. Called by all hosts.

    Arrays are written a few at a time and in chunks, which bounds host memory. This is slower than saving the
    checkpoints of a run, which blocks training as little as possible.

    Raises:
      FileExistsError: `directory` exists.
      CheckpointError: writing failed, for example because the disk is full.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} already exists")
    # Replica-parallel saving would compile a program for every slice of every leaf.
    arrays = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
    tree = functools.partial(
        ocp.PyTreeCheckpointHandler,
        save_concurrent_gb=_CONCURRENT_GB,
        save_device_host_concurrent_gb=_CONCURRENT_GB,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((jax.Array, arrays)),
    )
    parts = {"params": params, "autoencoder": autoencoder}
    items = {
        name: ocp.args.PyTreeSave(
            part,
            save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), part),
            ocdbt_target_data_file_size=_CHUNK_BYTES,
        )
        for name, part in parts.items()
        if part
    }
    handler = ocp.CompositeCheckpointHandler(**{name: tree() for name in items}, assets=_FilesHandler())
    with signals_held(), _writing(directory), ocp.Checkpointer(handler) as checkpointer:
        files = FilesSave({**assets, VERSIONS_FILE: versions_json()})
        checkpointer.save(directory.resolve(), args=ocp.args.Composite(**items, assets=files))


def find_checkpoint(directory: str | Path) -> Path | None:
    """Returns the checkpoint at a path: the path itself, or the newest in a checkpoints folder or workdir, or None."""
    directory = Path(directory).resolve()
    if (directory / "params").is_dir() and (directory / "assets").is_dir():
        return directory
    for folder in (directory, directory / "checkpoints"):
        steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit() and (path / "params").is_dir()]
        if steps:
            return folder / str(max(steps))
    return None


def has_ema(checkpoint: Path) -> bool:
    """Whether a checkpoint holds EMA weights of the trained parameters."""
    return (checkpoint / "ema").is_dir()


def saved_leaves(directory: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every array of a saved tree, by path with slashes, without reading the arrays.

    Raises:
      CheckpointError: the saved tree is missing or damaged.
    """
    with signals_held(), _reading(directory):
        tree = ocp.PyTreeCheckpointHandler().metadata(directory).tree
    return {name: jax.ShapeDtypeStruct(tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in _named(tree).items()}


def restore_tree(directory: Path, target: Any, ignored: Sequence[str] = ()) -> Any:
    """Restores a saved tree with the shapes, dtypes and shardings of `target` (arrays or ShapeDtypeStruct).

    Saved leaves under the path prefixes `ignored` are not read.

    Raises:
      CheckpointMismatch: tensors are missing, unexpected, or have another shape. The message names the first 20.
      CheckpointError: files are missing or damaged.
    """
    saved = {name: leaf.shape for name, leaf in saved_leaves(directory).items() if not is_under_any(name, ignored)}
    differences = compare_shapes({name: tuple(leaf.shape) for name, leaf in _named(target).items()}, saved)
    if differences:
        raise CheckpointMismatch(
            f"{directory}: the checkpoint's model or optimizer differs from the config's. "
            f"Use the checkpoint's config (in its assets folder), or another workdir.{lines_of(differences)}"
        )
    abstract = jax.tree.map(_abstract, target)
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    # A Checkpointer around the handler would look for files that a single item does not have. A partial restore does
    # not read the ignored leaves.
    with _reading(directory):
        return ocp.PyTreeCheckpointHandler().restore(
            directory, args=ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=bool(ignored))
        )


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turns errors of Orbax and TensorStore while writing files into a one-line CheckpointError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # TensorStore's message begins with its own layers and ends with the file system's error.
        reason = str(error).split("\n")[0].split(" [")[0].rsplit(": ", 1)[-1] or type(error).__name__
        raise CheckpointError(f"{directory.parent}: writing the checkpoint failed ({reason})") from None


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Turns errors of Orbax and TensorStore over missing or damaged files into a one-line CheckpointError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{directory}: files are missing or damaged ({reason[:300]}). If the checkpoint was copied, copy it again. "
            "Otherwise use an older one"
        ) from error


def restore_leaves(directory: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads some arrays of a saved tree, by paths with slashes, as complete numpy arrays in their stored dtypes."""
    saved = saved_leaves(directory)
    target = unflatten_dict({name: saved[name] for name in names}, sep="/")
    restore_args = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), target)
    with signals_held(), _reading(directory):
        restored = ocp.PyTreeCheckpointHandler().restore(
            directory, args=ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        )
    leaves: dict[str, np.ndarray] = flatten_dict(restored, sep="/")
    return leaves


def compare_shapes(expected: Mapping[str, tuple[int, ...]], saved: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Returns a line for every tensor that is missing, unexpected or has another shape."""
    lines = []
    for name in sorted(expected.keys() | saved.keys()):
        if name not in saved:
            lines.append(f"{name} {expected[name]} is missing from the checkpoint")
        elif name not in expected:
            lines.append(f"{name} {saved[name]} is in the checkpoint but not in the model")
        elif expected[name] != saved[name]:
            lines.append(f"{name} is {saved[name]} in the checkpoint but {expected[name]} in the model")
    return lines


def read_asset(checkpoint: Path, name: str) -> bytes:
    """Reads a file of a checkpoint's `assets` folder, for example `config.json`."""
    return (checkpoint / "assets" / name).read_bytes()


def read_data_state(checkpoint: Path) -> DataState:
    """Reads the data position of a checkpoint, for all shards of all hosts.

    Raises:
      CheckpointError: files are missing or damaged.
    """
    with _reading(checkpoint / "data"):
        state: DataState = ocp.JsonCheckpointHandler().restore(checkpoint / "data")
        return state


def gather_hosts(local: DataState) -> DataState:
    """Returns the union of all hosts' dictionaries (JSON values), on every host."""
    merged: DataState = {}
    for state in gather_json(local):
        merged |= state
    return merged


def _named(tree: Any) -> dict[str, Any]:
    """Flattens a tree, or Orbax's metadata of one (plain dicts and lists), to {path with slashes: leaf}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(_key_name(key) for key in path): leaf for path, leaf in leaves}


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


class _FilesHandler(ocp.CheckpointHandler):
    """Orbax handler of small files, stored unchanged."""

    def save(self, directory: Any, args: FilesSave) -> None:
        if jax.process_index() == 0:
            for name, content in args.files.items():
                (directory / name).write_bytes(content)

    def restore(self, directory: Any, args: Any = None) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in directory.iterdir()}


@ocp.args.register_with_handler(_FilesHandler, for_save=True)
@dataclass
class FilesSave(ocp.args.CheckpointArgs):
    """Saves a dictionary of file name -> content as files."""

    files: dict[str, bytes]


@ocp.args.register_with_handler(_FilesHandler, for_restore=True)
@dataclass
class FilesRestore(ocp.args.CheckpointArgs):
    """Restores all files as a dictionary of file name -> content."""

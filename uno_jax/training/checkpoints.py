"""Checkpoints: everything that a run needs to go on, or that another machine needs to use its model.

A checkpoint is a directory named by its step, with one item each for `params` (trainable and frozen together),
`training` (optimizer, counters, running estimates), `ema` (when there is one), `autoencoder` (when it has
parameters), `data` (position of every virtual shard, JSON), and `assets` (config, model sizes, tokenizer files, and
the versions of what wrote it). A model alone is saved without `training`, `ema` and `data`.
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
from uno_jax.training.state import Params, TrainState, is_under, merge, partition
from uno_jax.training.versions import VERSIONS_FILE, versions_json

DataState = dict[str, Any]

# Of a model that is saved alone: what is held in host memory while it is written, and the size of one stored piece.
_CONCURRENT_GB = 1
_CHUNK_BYTES = 2**26

# Fields of TrainState that are saved together; `params` and `ema` are items of their own.
_TRAINING = ("step", "opt_state", "gradient_norms", "latched", "skipped")


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and how many to keep. The last step is always saved."""

    every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """How many of the newest to keep."""


class Checkpoints:
    """The checkpoints of one run, in `directory`. Saving returns at once; `close` waits for what is being written."""

    def __init__(self, directory: str | Path, keep: int, assets: Mapping[str, bytes]):
        self.directory = Path(directory).resolve()
        self._assets = {**assets, VERSIONS_FILE: versions_json()}
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
        )

    def save(self, step: int, state: TrainState, data_state: DataState, autoencoder: Params | None = None) -> None:
        """Starts saving `state` as the checkpoint of `step`, unless there is one.

        `data_state` is the position after the last batch that `state` has seen: this host's shards, by names that do
        not depend on hosts. The arrays are copied before this returns, so that the state may be donated.
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
            # Every host has it on devices of its own; one writes it.
            items["autoencoder"] = ocp.args.StandardSave(jax.tree.map(np.asarray, autoencoder))
        self._manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, step: int, target: TrainState) -> tuple[TrainState, DataState]:
        """The state of `step` and the data position of all hosts' shards.

        `target` is a TrainState of `jax.ShapeDtypeStruct` with shardings, or of arrays: shapes, dtypes and places
        come from it, so a checkpoint may be restored onto another mesh than the one it was saved from. Averages that
        it has and the checkpoint has not begin with the parameters; gradient norms of losses that the checkpoint does
        not know begin at 0, not measured.

        Raises:
          CheckpointMismatch: the checkpoint's tensors are not those of `target`.
          CheckpointError: files are missing or damaged.
        """
        directory = self.directory / str(step)
        params = restore_tree(directory / "params", merge(target.trainable, target.frozen))
        training = _restore_training(directory / "training", target)
        paths = ["/".join(path) for path in flatten_dict(target.trainable)]
        trainable, frozen = partition(params, paths)
        if target.ema is None:
            ema = None
        elif holds_averages(directory):
            ema = restore_tree(directory / "ema", target.ema)
        else:
            # By way of new arrays: a donated state may not hold one buffer twice.
            ema = jax.tree.map(lambda x, to: jax.device_put(jnp.array(x, to.dtype), to.sharding), trainable, target.ema)
        return TrainState(trainable=trainable, frozen=frozen, ema=ema, **training), read_data_state(directory)

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the threads that save."""
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
    """Writes the checkpoint `directory` of a model alone; it appears when it is complete. For all hosts together.

    Arrays are written a few at a time and in pieces, so that a host holds little of them at any time: slower than
    the checkpoints of a run, which are to hold up the training as little as they can.

    Raises:
      FileExistsError: there is something at `directory`.
      CheckpointError: it cannot be written, for example to a disk that is full.
    """
    if directory.exists():
        raise FileExistsError(f"{directory} is there already")
    # One replica writes a shard whole: to share it out, Orbax compiles a program for every slice of every leaf.
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
    """The checkpoint that a path means: itself, or the newest of a checkpoint folder or a run's workdir; else None."""
    directory = Path(directory).resolve()
    if (directory / "params").is_dir() and (directory / "assets").is_dir():
        return directory
    for folder in (directory, directory / "checkpoints"):
        steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit() and (path / "params").is_dir()]
        if steps:
            return folder / str(max(steps))
    return None


def holds_averages(checkpoint: Path) -> bool:
    """Whether the run that wrote a checkpoint kept averages of its trained parameters."""
    return (checkpoint / "ema").is_dir()


def saved_leaves(directory: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every array of a saved tree, by its path with slashes; reads no array.

    Raises:
      CheckpointError: the folder holds no saved tree, or a damaged one.
    """
    with signals_held(), _reading(directory):
        tree = ocp.PyTreeCheckpointHandler().metadata(directory).tree
    return {name: jax.ShapeDtypeStruct(tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in _named(tree).items()}


def restore_tree(directory: Path, target: Any, ignored: Sequence[str] = ()) -> Any:
    """One saved tree, with the shapes, dtypes and shardings of `target` (arrays or ShapeDtypeStruct).

    Saved leaves under the path prefixes `ignored` are not read.

    Raises:
      CheckpointMismatch: naming tensors that are missing, left over, or of another shape (the first 20).
      CheckpointError: files are missing or damaged.
    """
    saved = {
        name: leaf.shape
        for name, leaf in saved_leaves(directory).items()
        if not any(is_under(name, prefix) for prefix in ignored)
    }
    differences = compare_shapes({name: tuple(leaf.shape) for name, leaf in _named(target).items()}, saved)
    if differences:
        raise CheckpointMismatch(
            f"{directory}: the checkpoint is of another model or optimizer than the config's; "
            f"use its own config (in its assets folder), or another workdir.{lines_of(differences)}"
        )
    abstract = jax.tree.map(_abstract, target)
    places = ocp.checkpoint_utils.construct_restore_args(abstract)
    # The handler itself and not a Checkpointer around it, which looks for files that only a whole checkpoint has.
    # Partial, so that what is ignored is not read.
    with _reading(directory):
        return ocp.PyTreeCheckpointHandler().restore(
            directory, args=ocp.args.PyTreeRestore(abstract, restore_args=places, partial_restore=bool(ignored))
        )


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise over files that cannot be written into one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # TensorStore tells of its layers first, and of what the file system said last.
        reason = str(error).split("\n")[0].split(" [")[0].rsplit(": ", 1)[-1] or type(error).__name__
        raise CheckpointError(f"{directory.parent}: the checkpoint cannot be written there ({reason})") from None


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Turns what Orbax and TensorStore raise over files that are missing or damaged into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{directory}: it cannot be read, files are missing or damaged ({reason[:300]}). If the checkpoint was "
            "copied, copy it again; else use an older one"
        ) from error


def restore_leaves(directory: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some arrays of a saved tree, by their paths with slashes, whole on this host and in their stored dtypes."""
    saved = saved_leaves(directory)
    target = unflatten_dict({name: saved[name] for name in names}, sep="/")
    places = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), target)
    with signals_held(), _reading(directory):
        restored = ocp.PyTreeCheckpointHandler().restore(
            directory, args=ocp.args.PyTreeRestore(target, restore_args=places, partial_restore=True)
        )
    leaves: dict[str, np.ndarray] = flatten_dict(restored, sep="/")
    return leaves


def compare_shapes(expected: Mapping[str, tuple[int, ...]], saved: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A line for every tensor that the two do not share with the same shape."""
    lines = []
    for name in sorted(expected.keys() | saved.keys()):
        if name not in saved:
            lines.append(f"{name} {expected[name]} is missing from the checkpoint")
        elif name not in expected:
            lines.append(f"{name} {saved[name]} is in the checkpoint and not in the model")
        elif expected[name] != saved[name]:
            lines.append(f"{name} is {saved[name]} in the checkpoint and {expected[name]} by the config")
    return lines


def read_asset(checkpoint: Path, name: str) -> bytes:
    """One file of a checkpoint's `assets` folder, for example `config.json`."""
    return (checkpoint / "assets" / name).read_bytes()


def read_data_state(checkpoint: Path) -> DataState:
    """The data position of a checkpoint: all shards of all hosts.

    Raises:
      CheckpointError: files are missing or damaged.
    """
    with _reading(checkpoint / "data"):
        state: DataState = ocp.JsonCheckpointHandler().restore(checkpoint / "data")
        return state


def gather_hosts(local: DataState) -> DataState:
    """The union of every host's dictionary (JSON values), on every host."""
    merged: DataState = {}
    for state in gather_json(local):
        merged |= state
    return merged


def _named(tree: Any) -> dict[str, Any]:
    """Name with slashes -> leaf, of a tree or of Orbax's metadata, whose containers are plain dicts and lists."""
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
    """Small files, as they are."""

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
    """Restores all files as such a dictionary."""

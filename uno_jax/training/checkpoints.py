"""Checkpoints: everything needed to resume a run, or to use its model on another machine.

A checkpoint is a directory named by its step. Its items are `params` (trainable and frozen), `training` (optimizer,
counters, running estimates), `ema` (if the run keeps an EMA), `anchor` (the trainable parameters that the run started
from, if a loss needs them), `autoencoder` (if it has parameters), `data` (position of every virtual shard, JSON),
`assets` (config, model sizes, tokenizer files, package versions), and `checksums` (of every array and of the files of
`data` and `assets`). A model without a run is saved without `training`, `ema`, `anchor` and `data`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from uno_jax.models.apart import like, stacked
from uno_jax.models.quantised import Originals, with_originals
from uno_jax.parallel.hosts import gather_json, together
from uno_jax.process.errors import CheckpointError
from uno_jax.process.signals import signals_held
from uno_jax.training.checkpoint_folders import (
    DATA_FILE,
    DataState,
    cause,
    has_ema,
    read_data_state,
    remove_unfinished,
    saved_steps,
    why_unwritable,
)
from uno_jax.training.checksums import check_arrays, file_checksum
from uno_jax.training.state import Params, TrainState, is_under_any, merge, partition
from uno_jax.training.stored_trees import (
    CHECKSUMS,
    CHECKSUMS_FILE,
    Checksums,
    array_records,
    cast_tree,
    check_tree,
    named_leaves,
    read_tree,
    saved_leaves,
)
from uno_jax.training.versions import VERSIONS_FILE, versions_json

# Limits of host memory and of the size of a stored chunk while `save_model` writes.
_CONCURRENT_GB = 1
_CHUNK_BYTES = 2**26

# Fields of TrainState in the item `training`. Parameters and EMA are separate items.
_TRAINING = ("step", "opt_state", "gradient_norms", "latched", "skipped", "recent_losses")
# Path prefixes, by item, of arrays whose values must be finite. Norms are only measured.
_FINITE = {"params": ("",), "ema": ("",), "anchor": ("",), "training": ("opt_state",)}


@dataclass(frozen=True)
class CheckpointConfig:
    """Intervals and number of checkpoints. The last step is always saved."""

    every: int = 500
    """Steps between checkpoints; 0 = never by steps."""
    every_minutes: float = 0.0
    """Minutes after which the state is saved although no checkpoint is due by steps; 0 = never by time."""
    keep: int = 2
    """Number of newest checkpoints to keep."""
    keep_every: int = 0
    """Checkpoints of steps that are a multiple of this are saved as well, and never deleted; 0 = none."""


class Checkpoints:
    """The checkpoints of one run, in `directory`. Saving is asynchronous; `wait` raises what went wrong.

    The methods are called by all hosts together, unless they say otherwise.
    """

    def __init__(self, directory: str | Path, keep: int, assets: Mapping[str, bytes], keep_every: int = 0):
        """Opens the folder and removes checkpoints that were never finished.

        Raises:
          CheckpointError: the folder cannot be written.
        """
        self.directory = Path(directory).resolve()
        self._assets = {**assets, VERSIONS_FILE: versions_json()}
        self._keep, self._keep_every = keep, keep_every
        self.originals: Originals = {}
        """Frozen kernels that are int8 in the state. They are saved instead."""
        self.saved: int | None = None
        """Step of the newest checkpoint that is known to be on disk, of those that this object wrote."""
        self.usable = True
        """Whether another checkpoint can be saved. After a failure with several hosts it cannot, because the hosts no
        longer agree on what Orbax has done."""
        self._pending: int | None = None
        self._failure: str | None = None
        self._raise_together(why_unwritable(self.directory))
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        if jax.process_index() == 0:
            remove_unfinished(self.directory)
        kept = [ocp.checkpoint_managers.LatestN(self._keep)]
        if self._keep_every:
            kept.append(ocp.checkpoint_managers.EveryNSteps(self._keep_every))
        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(kept),
                # Otherwise a damaged metadata file of any old checkpoint is an error here.
                lightweight_initialize=True,
                # Otherwise a folder that cannot be made is noticed only after a timeout of five minutes.
                async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, in ascending order. Any host may call it alone."""
        return saved_steps(self.directory)

    def save(self, step: int, state: TrainState, data_state: DataState, autoencoder: Params | None = None) -> None:
        """Starts saving `state` as the checkpoint of `step`, unless it exists.

        `data_state` is the position of this host's shards after the last batch that `state` has consumed. Shard names
        do not depend on the number of hosts. The arrays are copied before this returns, so the state may be donated.

        Raises:
          CheckpointError: saving this checkpoint, or the one before, failed.
          FloatingPointError: a parameter or moment is not finite. Nothing is saved, so good checkpoints are kept.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        self._raise_together(why_unwritable(self.directory))
        state = stacked(dataclasses.replace(state, frozen=with_originals(state.frozen, self.originals)))
        trees: dict[str, Any] = {
            "params": merge(state.trainable, state.frozen),
            "training": _training(state),
        }
        trees |= {name: tree for name in ("ema", "anchor") if (tree := getattr(state, name)) is not None}
        if autoencoder:
            # Every host has its own copy on its own devices. As numpy, Orbax writes one of them.
            trees["autoencoder"] = jax.tree.map(np.asarray, autoencoder)
        files = {
            "assets": self._assets,
            "data": {DATA_FILE: json.dumps(gather_hosts(data_state)).encode()},
        }
        checksums = _checksums(trees, files, finite=_FINITE)
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items |= {name: FilesSave(dict(content)) for name, content in files.items()}
        items[CHECKSUMS] = FilesSave({CHECKSUMS_FILE: checksums.file()})
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError, RuntimeError) as error:
            if jax.process_count() > 1:  # the other hosts wait inside Orbax for this one
                self.usable = False
                raise self._error(cause(error)) from None
            self._failure = cause(error)
            self.wait()
        self._pending = step

    def failure(self) -> str | None:
        """Returns why the checkpoint that was being written failed, if it did. Does not block.

        Any host may call it alone. The reason stays until `wait`.
        """
        if self._failure is None and self._pending is not None and not self._manager.is_saving_in_progress():
            self._failure = self._finish()
        return self._failure

    def wait(self) -> None:
        """Blocks until everything saved is on disk.

        Raises:
          CheckpointError: the checkpoint that was being written failed. Another one can be saved if `usable`.
        """
        reason = _first(gather_json(self._failure or self._finish()))
        self._failure = None
        if reason is None:
            return
        self.usable = jax.process_count() == 1
        if self.usable:
            with contextlib.suppress(Exception):  # the same failure again
                self._manager.close()
            self._manager = self._open()  # without what the failed attempt left
        raise self._error(reason)

    def _finish(self) -> str | None:
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        try:
            self._manager.wait_until_finished()
            self.saved = pending
            return None
        except (OSError, ValueError, RuntimeError) as error:
            return cause(error)

    def _raise_together(self, reason: str | None) -> None:
        """Raises CheckpointError on all hosts if there is a reason on any of them."""
        reason = _first(gather_json(reason))
        if reason is not None:
            raise self._error(reason)

    def _error(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.directory}: a checkpoint cannot be written ({reason})")

    def close(self) -> None:
        """Waits until saving is finished, and ends the threads.

        Raises:
          CheckpointError: the checkpoint that was being written failed.
        """
        try:
            self.wait()
        finally:
            self._manager.close()


def _training(state: TrainState) -> dict[str, Any]:
    """Returns the item `training` of a state."""
    return {name: part for name in _TRAINING if (part := getattr(state, name)) is not None}


def restore_state(checkpoint: Path, target: TrainState) -> tuple[TrainState, DataState]:
    """Restores the state of a run and the data position of all hosts' shards. Every array is checked.

    `target` is a TrainState of arrays or of `jax.ShapeDtypeStruct` with shardings. It determines shapes, dtypes and
    shardings, so the mesh may differ from the one that saved the checkpoint. If the checkpoint has no EMA but `target`
    does, the EMA starts from the parameters. Gradient norms of losses missing from the checkpoint start at 0 (not
    measured), and those of losses missing from `target` are dropped. So are recent losses of another number. Called by
    all hosts.

    Raises:
      CheckpointMismatch: the checkpoint's tensors differ from those of `target`.
      CheckpointError: files are missing or damaged, or a value is not finite. All hosts raise it if one does.
    """
    saved = stacked(target)
    trees, data_state = together(lambda: _read_state(checkpoint, saved))
    for item, tree in trees.items():
        check_tree(checkpoint / item, tree, finite=_FINITE[item])
    return like(_assemble(trees, saved), target), data_state


def _read_state(directory: Path, target: TrainState) -> tuple[dict[str, Any], DataState]:
    """Reads the trees of a run's checkpoint in their stored dtypes, unchecked, and its data position."""
    saved = saved_leaves(directory / "training")
    training = _training(target)
    training["gradient_norms"] = {
        name: leaf for name, leaf in target.gradient_norms.items() if f"gradient_norms/{name}" in saved
    }
    recent = "recent_losses"
    if recent in training and (recent not in saved or saved[recent].shape != training[recent].shape):
        del training[recent]
    unknown = [name for name in saved if name.startswith("gradient_norms/") or name == recent]
    unknown = [name for name in unknown if name not in named_leaves(training)]
    trees = {
        "params": read_tree(directory / "params", merge(target.trainable, target.frozen)),
        "training": read_tree(directory / "training", training, ignored=unknown),
    }
    if target.ema is not None and has_ema(directory):
        trees["ema"] = read_tree(directory / "ema", target.ema)
    if target.anchor is not None:
        trees["anchor"] = read_tree(directory / "anchor", target.anchor)
    return trees, read_data_state(directory)


def _assemble(trees: Mapping[str, Any], target: TrainState) -> TrainState:
    """Returns the state of the trees, in the dtypes of `target`, with what the checkpoint lacks."""
    wanted = {name: part for name, part in _training(target).items() if name in trees["training"]}
    norms = target.gradient_norms
    wanted["gradient_norms"] = {name: norms[name] for name in trees["training"]["gradient_norms"]}
    training = cast_tree(trees["training"], wanted)
    new = {
        name: jax.device_put(jnp.zeros((), leaf.dtype), leaf.sharding)
        for name, leaf in norms.items()
        if name not in wanted["gradient_norms"]
    }
    training["gradient_norms"] = training["gradient_norms"] | new
    if (recent := target.recent_losses) is not None and "recent_losses" not in training:
        training["recent_losses"] = jax.device_put(jnp.full(recent.shape, jnp.inf, recent.dtype), recent.sharding)
    paths = ["/".join(path) for path in flatten_dict(target.trainable)]
    params = cast_tree(trees["params"], merge(target.trainable, target.frozen))
    trainable, frozen = partition(params, paths)
    if target.ema is None:
        ema = None
    elif "ema" in trees:
        ema = cast_tree(trees["ema"], target.ema)
    else:
        # Copies, because a donated state must not contain a buffer twice.
        ema = jax.tree.map(lambda x, to: jax.device_put(jnp.array(x, to.dtype), to.sharding), trainable, target.ema)
    anchor = None if target.anchor is None else cast_tree(trees["anchor"], target.anchor)
    return TrainState(trainable=trainable, frozen=frozen, ema=ema, anchor=anchor, **training)


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
    trees = {name: part for name, part in {"params": params, "autoencoder": autoencoder}.items() if part}
    files = {"assets": {**assets, VERSIONS_FILE: versions_json()}}
    checksums = _checksums(trees, files)
    items = {
        name: ocp.args.PyTreeSave(
            part,
            save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), part),
            ocdbt_target_data_file_size=_CHUNK_BYTES,
        )
        for name, part in trees.items()
    }
    items |= {name: FilesSave(content) for name, content in files.items()}
    items[CHECKSUMS] = FilesSave({CHECKSUMS_FILE: checksums.file()})
    handler = ocp.CompositeCheckpointHandler(
        **{name: tree() if name in trees else _FilesHandler() for name in items},
    )
    with signals_held(), _writing(directory), ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(directory.resolve(), args=ocp.args.Composite(**items))


def _checksums(
    trees: Mapping[str, Any],
    files: Mapping[str, Mapping[str, bytes]],
    finite: Mapping[str, Sequence[str]] | None = None,
) -> Checksums:
    """Returns the checksums of items.

    Raises:
      FloatingPointError: an array under the path prefixes `finite` of its item holds a value that is not finite.
    """
    arrays: dict[str, Mapping[str, str]] = {}
    for item, tree in trees.items():
        leaves = named_leaves(tree)
        checks = check_arrays(leaves)
        strange = [name for name, check in checks.items() if not check.finite]
        strange = [name for name in strange if is_under_any(name, (finite or {}).get(item, ()))]
        if strange:
            raise FloatingPointError(f"{item}/{strange[0]} holds values that are not finite, so the state is not saved")
        arrays[item] = array_records(leaves, checks)
    checked = {f"{item}/{name}": file_checksum(content) for item in files for name, content in files[item].items()}
    return Checksums(arrays, checked)


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turns errors of Orbax and TensorStore while writing files into a one-line CheckpointError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{directory.parent}: writing the checkpoint failed ({cause(error)})") from None


def _first(reasons: Sequence[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def gather_hosts(local: DataState) -> DataState:
    """Returns the union of all hosts' dictionaries (JSON values), on every host."""
    merged: DataState = {}
    for state in gather_json(local):
        merged |= state
    return merged


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

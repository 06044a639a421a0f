"""Reads the trees of arrays of a checkpoint, and checks every array that is read against its recorded checksum."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from uno_jax.process.errors import CheckpointError, CheckpointMismatch, lines_of
from uno_jax.process.json_reader import JsonError, parse_json
from uno_jax.process.signals import signals_held
from uno_jax.training.checksums import ArrayCheck, check_arrays, file_checksum
from uno_jax.training.state import Params, is_under_any

CHECKSUMS = "checksums"
"""Item of a checkpoint that holds its checksums."""
CHECKSUMS_FILE = "checksums.json"
METADATA_FILE = "_CHECKPOINT_METADATA"
"""File of Orbax that names the items of a checkpoint."""

_CAST_BYTES = 2**30
"""Arrays that are cast after they were checked are read this many bytes at a time."""
_SHOWN = 3


@dataclass(frozen=True)
class Checksums:
    """The checksums of a checkpoint, stored in its item `checksums`."""

    arrays: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Item -> path of an array -> its dtype, shape and checksum."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path of a file below the checkpoint -> its checksum."""

    def file(self) -> bytes:
        """Content of the file, which includes a checksum of itself."""
        content = {"arrays": self.arrays, "files": self.files}
        return json.dumps({**content, "checksum": file_checksum(_canonical(content))}, indent=1).encode()


def read_checksums(checkpoint: Path) -> Checksums | None:
    """Reads the checksums of a checkpoint. Returns None for a checkpoint that an earlier version wrote without them.

    Raises:
      CheckpointError: the file is missing or damaged.
    """
    file = checkpoint / CHECKSUMS / CHECKSUMS_FILE
    if not file.is_file() and CHECKSUMS not in _written_items(checkpoint):
        return None
    try:
        content = parse_json(file.read_bytes())
        checksum = content.pop("checksum")
        if checksum != file_checksum(_canonical(content)):
            raise CheckpointError("its own checksum differs")
        return Checksums(content["arrays"], content["files"])
    except (OSError, JsonError, CheckpointError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: missing or damaged ({_first_line(error)}). {_ADVICE}") from None


def items_of(checkpoint: Path) -> set[str]:
    """Returns the names of the items that a checkpoint holds or held when it was written."""
    present = {path.name for path in checkpoint.iterdir() if path.is_dir()} if checkpoint.is_dir() else set()
    return present | _written_items(checkpoint)


def _written_items(checkpoint: Path) -> set[str]:
    try:
        metadata = parse_json((checkpoint / METADATA_FILE).read_bytes())
        return set(metadata["item_handlers"])
    except (OSError, JsonError, KeyError, TypeError):
        return set()


def array_records(arrays: Mapping[str, Any], checks: Mapping[str, ArrayCheck]) -> dict[str, str]:
    """Returns what `Checksums` records of the arrays."""
    return {name: _record(array, checks[name]) for name, array in arrays.items()}


def _record(array: Any, check: ArrayCheck) -> str:
    return f"{_describe(array)} {check.checksum:08x}"


def _describe(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


def saved_leaves(directory: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every array of a saved tree, by path with slashes, without reading the arrays.

    Raises:
      CheckpointError: the saved tree is missing or damaged.
    """
    with signals_held(), reading(directory):
        tree = ocp.PyTreeCheckpointHandler().metadata(directory).tree
        leaves = {
            name: jax.ShapeDtypeStruct(tuple(leaf.shape), np.dtype(leaf.dtype))
            for name, leaf in named_leaves(tree).items()
        }
    recorded = _recorded(directory)
    if recorded is not None:
        described = {name: _describe(leaf) for name, leaf in leaves.items()}
        wrong = {name for name, record in recorded.items() if described.get(name) != record.split(" ")[0]}
        _reject_damaged(directory, wrong | (described.keys() - recorded.keys()), "the list of arrays")
    return leaves


def read_tree(directory: Path, target: Any, ignored: Sequence[str] = ()) -> Any:
    """Reads a saved tree in its stored dtypes, with the shapes and shardings of `target`, without checking values.

    Saved leaves with the names `ignored` are not read. Hosts do not wait for each other.

    Raises:
      CheckpointMismatch: tensors are missing, unexpected, or have another shape. The message names the first 20.
      CheckpointError: files are missing or damaged.
    """
    saved = {name: leaf for name, leaf in saved_leaves(directory).items() if name not in ignored}
    _compare(directory, named_leaves(target), saved)
    return _read(directory, target, saved, partial=bool(ignored))


def _compare(directory: Path, wanted: Mapping[str, Any], saved: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    differences = compare_shapes(
        {name: tuple(leaf.shape) for name, leaf in wanted.items()},
        {name: tuple(leaf.shape) for name, leaf in saved.items()},
    )
    if differences:
        raise CheckpointMismatch(
            f"{directory}: the checkpoint's model or optimizer differs from the config's. "
            f"Use the checkpoint's config (in its assets folder), or another workdir.{lines_of(differences)}"
        )


def _read(directory: Path, target: Any, saved: Mapping[str, jax.ShapeDtypeStruct], *, partial: bool) -> Any:
    names, (leaves, structure) = list(named_leaves(target)), jax.tree.flatten(target)
    abstract = jax.tree.unflatten(
        structure,
        [
            jax.ShapeDtypeStruct(leaf.shape, saved[name].dtype, sharding=getattr(leaf, "sharding", None))
            for name, leaf in zip(names, leaves, strict=True)
        ],
    )
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    # A Checkpointer around the handler would look for files that a single item does not have. A partial restore does
    # not read the other leaves.
    with reading(directory):
        return _handler().restore(
            directory, args=ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=partial)
        )


def check_tree(directory: Path, tree: Any, *, finite: Sequence[str] = ("",)) -> None:
    """Compares arrays, read from `directory` in their stored dtypes, with their recorded checksums.

    Called by all hosts if the arrays span several of them.

    Args:
      directory: the saved tree.
      tree: the arrays, all or some of those that were saved.
      finite: path prefixes of the arrays whose values must be finite.

    Raises:
      CheckpointError: an array differs from what was saved, or holds a value that is not finite.
    """
    arrays, recorded = named_leaves(tree), _recorded(directory)
    checks = check_arrays(arrays)
    if recorded is not None:
        wrong = {name for name, array in arrays.items() if recorded.get(name) != _record(array, checks[name])}
        _reject_damaged(directory, wrong, "the checksum")
    strange = sorted(name for name, check in checks.items() if not check.finite and is_under_any(name, finite))
    if strange:
        raise CheckpointError(f"{directory}: {_listed(strange)} holds values that are not finite. {_ADVICE}")


def restore_tree(directory: Path, target: Params, ignored: Sequence[str] = ()) -> Params:
    """Restores a saved tree with the shapes, dtypes and shardings of `target` (arrays or ShapeDtypeStruct).

    Every array is checked, before it is cast. Called by all hosts if the arrays span several of them. Saved leaves
    under the path prefixes `ignored` are not read.

    Raises:
      CheckpointMismatch: tensors are missing, unexpected, or have another shape. The message names the first 20.
      CheckpointError: files are missing or damaged, or values are not finite.
    """
    saved, wanted = saved_leaves(directory), flatten_dict(target, sep="/")
    _compare(directory, wanted, {name: leaf for name, leaf in saved.items() if not is_under_any(name, ignored)})
    cast = {name: saved[name] for name, leaf in wanted.items() if saved[name].dtype != np.dtype(leaf.dtype)}
    restored: dict[str, Any] = {}
    for group in (list(wanted.keys() - cast.keys()), *_groups(cast)):
        if group:
            chosen = unflatten_dict({name: wanted[name] for name in group}, sep="/")
            part = _read(directory, chosen, saved, partial=len(group) < len(saved))
            check_tree(directory, part)
            restored |= flatten_dict(cast_tree(part, chosen), sep="/")
    read: Params = unflatten_dict({name: restored[name] for name in wanted}, sep="/")
    return read


def _groups(leaves: Mapping[str, jax.ShapeDtypeStruct]) -> list[list[str]]:
    """Divides leaves into groups of at most `_CAST_BYTES`, or of one leaf."""
    groups: list[list[str]] = []
    size = 0
    for name, leaf in sorted(leaves.items()):
        bytes_of = math.prod(leaf.shape) * leaf.dtype.itemsize
        if not groups or size + bytes_of > _CAST_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += bytes_of
    return groups


def cast_tree(tree: Any, target: Any) -> Any:
    """Casts arrays to the dtypes of `target`."""
    return jax.tree.map(lambda x, to: x if x.dtype == to.dtype else x.astype(to.dtype), tree, target)


def restore_leaves(directory: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads some arrays of a saved tree, by paths with slashes, as complete numpy arrays in their stored dtypes.

    Raises:
      CheckpointError: files are missing or damaged. Values that are not finite are read as well.
    """
    saved = saved_leaves(directory)
    target = unflatten_dict({name: saved[name] for name in names}, sep="/")
    restore_args = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), target)
    with signals_held(), reading(directory):
        restored = _handler().restore(
            directory, args=ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        )
    check_tree(directory, restored, finite=())
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


def named_leaves(tree: Any) -> dict[str, Any]:
    """Flattens a tree, or Orbax's metadata of one (plain dicts and lists), to {path with slashes: leaf}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(_key_name(key) for key in path): leaf for path, leaf in leaves}


def _key_name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


_ADVICE = "If the checkpoint was copied, copy it again. Otherwise use an older one"


@contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Turns errors of Orbax and TensorStore over missing or damaged files into a one-line CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # Orbax raises plain ones, around those of TensorStore
        reason = _first_line(error.__cause__ or error)[:300]
        raise CheckpointError(f"{directory}: files are missing or damaged ({reason}). {_ADVICE}") from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _recorded(directory: Path) -> Mapping[str, str] | None:
    """The records of one item's arrays, or None for a checkpoint without checksums."""
    checksums = read_checksums(directory.parent)
    if checksums is None:
        return None
    if directory.name not in checksums.arrays:
        raise CheckpointError(f"{directory}: {CHECKSUMS_FILE} lists no arrays of it. {_ADVICE}")
    return checksums.arrays[directory.name]


def _reject_damaged(directory: Path, names: set[str], what: str) -> None:
    if names:
        raise CheckpointError(
            f"{directory}: damaged: {what} differs from what was saved for {_listed(names)}. {_ADVICE}"
        )


def _listed(names: set[str] | Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(sorted(names)[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _handler() -> ocp.PyTreeCheckpointHandler:
    registry = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, _WaitingArrayHandler()), (np.ndarray, _WaitingNumpyHandler())
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class _Waiting:
    """Waits for all reads of a tree after one of them failed.

    Orbax gives up at the first error and closes its event loop. Reads that go on would each print a traceback.
    """

    async def deserialize(self, infos: Any, args: Any = None) -> Any:
        before = asyncio.all_tasks()
        try:
            return await super().deserialize(infos, args)  # type: ignore[misc]
        except Exception:
            while left := asyncio.all_tasks() - before:
                await asyncio.gather(*left, return_exceptions=True)
            raise


class _WaitingArrayHandler(_Waiting, ocp.type_handlers.ArrayHandler):
    pass


class _WaitingNumpyHandler(_Waiting, ocp.type_handlers.NumpyHandler):
    pass

"""Reads a checkpoint in the public BAGEL layout into our parameter tree, strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from uno_jax.interop.errors import CheckpointError
from uno_jax.interop.names import (
    FixedTable,
    Path,
    Shape,
    TensorName,
    autoencoder_tensors,
    fixed_tables,
    leaf_shape,
    leaves,
    model_tensors,
)
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.interop.tensor_files import STORED_DTYPES, TensorFiles
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import sincos_table_2d

MODEL_FILE = "ema.safetensors"
AUTOENCODER_FILE = "ae.safetensors"

DtypePolicy = Callable[[Path], Any]
"""Gives the dtype of the leaf at a path (("decoder", "layers", "generation", ...)), or None to keep the stored one."""

# Entries are at most 1: the half step of the stored dtype there, with some room. In float32 only the sine differs.
_TABLE_TOLERANCE = {"F32": 1e-5, "F16": 5e-4, "BF16": 4e-3}


class PublicCheckpoint(NamedTuple):
    """What a public-layout directory holds."""

    config: ModelConfig
    """Without metaqueries: the caller adds their number and initialises them."""
    params: dict[str, Any]
    autoencoder_params: dict[str, Any]


def is_public_directory(directory: str | FilePath) -> bool:
    """Whether a directory has the look of a checkpoint in the public layout."""
    directory = FilePath(directory)
    return any((directory / name).is_file() for name in (MODEL_FILE, "llm_config.json", "config.json"))


def load_public(
    directory: str | FilePath,
    dtype_policy: DtypePolicy = lambda path: None,
    place: Callable[[Path, np.ndarray], Any] = lambda path, leaf: leaf,
) -> PublicCheckpoint:
    """Loads the model and the autoencoder of a public-layout directory.

    Tensors are read one at a time, and the tensors of all layers go straight into their place in the stacked leaf, so
    that the host holds one leaf at a time where `place` moves it on.

    Args:
      directory: holds `ema.safetensors` (or shards with an index), `ae.safetensors`, and the JSON files of
        `model_config_from_directory`. Tensors are float32, float16 or bfloat16.
      dtype_policy: dtype of each leaf, such as float32 for trainable ones and None (as stored) for frozen ones. Paths
        of the autoencoder's leaves begin with "autoencoder".
      place: called with the path and the finished array of each leaf; what it returns is the leaf (for instance
        `jax.device_put(leaf, sharding_of(path))`). By default leaves stay numpy arrays on the host.

    Raises:
      CheckpointError: a file that is missing or damaged; tensors that are missing, extra, misshapen or of another
        dtype, all named in one error; a stored position table that is not the fixed one.
    """
    config = model_config_from_directory(directory)
    # Headers of both files are checked before any tensor is read, so that a wrong directory fails at once.
    model_files = TensorFiles.find(directory, MODEL_FILE)
    autoencoder_files = TensorFiles.find(directory, AUTOENCODER_FILE)
    model, autoencoder = model_tensors(config), autoencoder_tensors(config.autoencoder)
    tables = fixed_tables(config)
    stored: list[TensorName | FixedTable] = [*model, *tables]
    problems = [
        *_problems(model_files, {entry.public: entry.public_shape for entry in stored}),
        *_problems(autoencoder_files, {entry.public: entry.public_shape for entry in autoencoder}),
    ]
    if problems:
        raise CheckpointError(
            f"{directory} does not hold the model that its JSON files describe:\n  " + "\n  ".join(problems)
        )
    _check_tables(model_files, tables)
    return PublicCheckpoint(
        config,
        _read_tree(model_files, model, dtype_policy, place),
        _read_tree(autoencoder_files, autoencoder, _under("autoencoder", dtype_policy), _under("autoencoder", place)),
    )


def _under(prefix: str, function: Callable) -> Callable:
    """The function, with the prefix put before the path."""
    return lambda path, *rest: function((prefix, *path), *rest)


def _problems(files: TensorFiles, expected: dict[str, Shape]) -> list[str]:
    """One line for every tensor that is missing, extra, misshapen, or of a dtype that we do not read."""
    where = files.source.name
    problems = []
    for name, shape in expected.items():
        stored = files.tensors.get(name)
        if stored is None:
            problems.append(f"{where}: missing tensor {name}, shape {list(shape)}")
        elif stored.shape != shape:
            problems.append(f"{where}: tensor {name} has shape {list(stored.shape)}, expected {list(shape)}")
        elif stored.dtype not in STORED_DTYPES:
            problems.append(f"{where}: tensor {name} is {stored.dtype}, expected one of {', '.join(STORED_DTYPES)}")
    for name, stored in files.tensors.items():
        if name not in expected:
            problems.append(f"{where}: extra tensor {name}, shape {list(stored.shape)}")
    return problems


def _check_tables(files: TensorFiles, tables: list[FixedTable]) -> None:
    """Compares the stored position tables with the computed ones."""
    problems = []
    for table in tables:
        stored = files.read(table.public).astype(np.float32)
        difference = np.abs(stored - sincos_table_2d(table.side, table.features))
        tolerance = _TABLE_TOLERANCE[files.tensors[table.public].dtype]
        if not difference.max() <= tolerance:  # written so that NaN fails
            row, column = np.unravel_index(np.argmax(difference), difference.shape)
            problems.append(
                f"{table.public}: row {row}, feature {column} holds {stored[row, column]:.6g}, which is "
                f"{difference[row, column]:.3g} from the fixed sin-cos table of side {table.side} "
                f"(tolerance {tolerance:g})"
            )
    if problems:
        raise CheckpointError(
            f"{files.source}: this position table is computed, not learned, and the stored one disagrees; "
            "the model would not be the one that was trained:\n  " + "\n  ".join(problems)
        )


def _read_tree(
    files: TensorFiles,
    tensors: list[TensorName],
    dtype_policy: DtypePolicy,
    place: Callable[[Path, np.ndarray], Any],
) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, entries in leaves(tensors).items():
        parent = tree
        for key in path[:-1]:
            parent = parent.setdefault(key, {})
        parent[path[-1]] = place(path, _read_leaf(files, entries, dtype_policy(path)))
    return tree


def _read_leaf(files: TensorFiles, entries: list[TensorName], dtype: Any) -> np.ndarray:
    """One leaf of our tree; the layers of a stacked leaf are read one after the other into their place."""
    if dtype is None:  # layers that differ (never seen) are promoted to what holds them all
        dtype = jnp.result_type(*{STORED_DTYPES[files.tensors[entry.public].dtype] for entry in entries})
    leaf = np.empty(leaf_shape(entries), jnp.dtype(dtype))
    if entries[0].layer is None:
        leaf[...] = entries[0].to_ours(files.read(entries[0].public))
        return leaf
    for layer, entry in enumerate(entries):
        leaf[layer] = entry.to_ours(files.read(entry.public))
    return leaf

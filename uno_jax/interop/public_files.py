"""Reads a checkpoint in the public BAGEL layout into our parameter tree, strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Sharding, SingleDeviceSharding

from uno_jax.interop.names import (
    FixedTable,
    LeafPath,
    Shape,
    TensorName,
    autoencoder_tensors,
    fixed_tables,
    leaves,
    model_tensors,
    uno_tensors,
)
from uno_jax.interop.place import place_leaf, stored_dtype
from uno_jax.interop.sizes import UNO_JSON, model_config_from_directory
from uno_jax.interop.tensor_files import STORED_DTYPES, TensorFiles
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import sincos_table_2d
from uno_jax.process.errors import CheckpointError, lines_of
from uno_jax.training.state import Params

MODEL_FILE = "ema.safetensors"
AUTOENCODER_FILE = "ae.safetensors"
UNO_FILE = "uno.safetensors"

# The name that the public libraries give to the index of a model's shards.
_OTHER_INDICES = {MODEL_FILE: ("model.safetensors.index.json",)}

DtypePolicy = Callable[[LeafPath], Any]
"""Gives the dtype of the leaf at a path (("decoder", "layers", "generation", ...)), or None to keep the stored one."""

ShardingPolicy = Callable[[LeafPath], Sharding]
"""Gives the place of the leaf at a path."""


def first_device(path: LeafPath) -> Sharding:
    """Every leaf whole on the first device of this host."""
    return SingleDeviceSharding(jax.local_devices()[0])


# Entries are at most 1: the half step of the stored dtype there, with some room. In float32 only the sine differs.
_TABLE_TOLERANCE = {"F32": 1e-5, "F16": 5e-4, "BF16": 4e-3}


class Part(NamedTuple):
    """One safetensors file (or its shards) of a public-layout directory, and what our tree holds of it."""

    files: TensorFiles
    tensors: list[TensorName]
    prefix: LeafPath
    """Put before the paths of its leaves."""


class PublicFiles(NamedTuple):
    """An opened public-layout directory, whose headers and position tables have been checked; no weight is read yet."""

    directory: Path
    config: ModelConfig
    parts: list[Part]
    tables: dict[str, np.ndarray]
    """The stored position tables, which our tree does not hold; `[side * side, features]`."""

    def leaves(self) -> dict[LeafPath, tuple[TensorFiles, list[TensorName]]]:
        """Where every leaf comes from; paths of the autoencoder's begin with "autoencoder"."""
        return {
            (*part.prefix, *path): (part.files, entries)
            for part in self.parts
            for path, entries in leaves(part.tensors).items()
        }


class Parameters(NamedTuple):
    """All arrays of a model, on devices."""

    params: Params
    autoencoder_params: Params
    """Empty for the pixel autoencoder."""


def is_public_directory(directory: str | Path) -> bool:
    """Whether a directory holds one of the files by which the public layout is recognised."""
    indices = (f"{MODEL_FILE}.index.json", *_OTHER_INDICES[MODEL_FILE])
    names = (MODEL_FILE, *indices, "llm_config.json", "config.json")
    return any((Path(directory) / name).is_file() for name in names)


def open_public(directory: str | Path) -> PublicFiles:
    """Opens a public-layout directory and checks all of it that can be checked without reading weights.

    It holds `ema.safetensors` (or shards with an index), `ae.safetensors` (unless its JSON tells of the pixel
    autoencoder), the JSON files of `model_config_from_directory`, and `uno.safetensors` where `uno_config.json` tells
    of metaqueries.

    Raises:
      CheckpointError: a file that is missing or damaged; tensors that are missing, extra, misshapen or of another
        dtype, named in one error (the first 20); a stored position table that is not the fixed one.
    """
    directory = Path(directory)
    config = model_config_from_directory(directory)
    if not config.num_metaqueries and (directory / UNO_FILE).exists():
        raise CheckpointError(f"{directory}: {UNO_FILE} is there without the {UNO_JSON} that gives its sizes")
    parts = [
        Part(TensorFiles.find(directory, file, _OTHER_INDICES.get(file, ())), tensors, prefix)
        for file, tensors, prefix in (
            (MODEL_FILE, model_tensors(config), ()),
            (AUTOENCODER_FILE, autoencoder_tensors(config.autoencoder), ("autoencoder",)),
            (UNO_FILE, uno_tensors(config), ()),
        )
        if tensors
    ]
    tables = fixed_tables(config)
    problems: list[str] = []
    for number, part in enumerate(parts):
        stored: list[TensorName | FixedTable] = [*part.tensors, *(tables if number == 0 else [])]
        problems += _problems(part.files, {entry.public: entry.public_shape for entry in stored})
    if problems:
        raise CheckpointError(f"{directory} does not hold the model that its JSON files describe:{lines_of(problems)}")
    return PublicFiles(directory, config, parts, _checked_tables(parts[0].files, tables))


def place_public(
    public: PublicFiles,
    sharding: ShardingPolicy = first_device,
    dtype: DtypePolicy = lambda path: None,
    *,
    wanted: Callable[[LeafPath], bool] = lambda path: True,
) -> Parameters:
    """Reads the leaves of an opened directory onto devices.

    Every host reads only what its own devices hold, and holds a piece of a leaf at a time (`place.PIECE_BYTES`).

    Args:
      public: tensors are float32, float16 or bfloat16.
      sharding: where each leaf is placed, by default on the first device of this host. Here and below, paths of the
        autoencoder's leaves begin with "autoencoder".
      dtype: dtype of each leaf, such as float32 for trainable ones and None (as stored) for frozen ones.
      wanted: which leaves to read.

    Raises:
      CheckpointError: a weight that is not finite; a file that cannot be read to its end.
    """
    tree: dict[str, Any] = unflatten_dict(
        {
            path: place_leaf(files, entries, np.dtype(dtype(path) or stored_dtype(files, entries)), sharding(path))
            for path, (files, entries) in public.leaves().items()
            if wanted(path)
        }
    )
    autoencoder = tree.pop("autoencoder", {})
    return Parameters(tree, autoencoder)


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


def _checked_tables(files: TensorFiles, tables: list[FixedTable]) -> dict[str, np.ndarray]:
    """The stored position tables, after a comparison with the computed ones."""
    problems, read = [], {}
    for table in tables:
        read[table.public] = files.read(table.public)
        stored = read[table.public].astype(np.float32)
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
    return read

"""Opens and checks a directory in the public BAGEL layout, and places its parameters on devices."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Sharding

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
from uno_jax.process.errors import CheckpointError, lines_of, say
from uno_jax.training.state import Params

MODEL_FILE = "ema.safetensors"
AUTOENCODER_FILE = "ae.safetensors"
UNO_FILE = "uno.safetensors"

# Names that other libraries use for the model, in one file or sharded.
_OTHER_FILES = {MODEL_FILE: ("model.safetensors",)}
_OTHER_INDICES = {MODEL_FILE: ("model.safetensors.index.json",)}

DtypePolicy = Callable[[LeafPath], Any]
"""Path of a leaf (("decoder", "layers", "generation", ...)) -> its dtype, or None to keep the stored one."""

ShardingPolicy = Callable[[LeafPath], Sharding]
"""Path of a leaf -> its sharding."""


# Half a unit in the last place at 1, the maximum of the tables, with a margin. Float32 tables differ by the sine.
_TABLE_TOLERANCE = {"F32": 1e-5, "F16": 5e-4, "BF16": 4e-3}


class Part(NamedTuple):
    """One safetensors file (or its shards) of a public-layout directory, and its tensors that our tree holds."""

    files: TensorFiles
    tensors: list[TensorName]
    prefix: LeafPath
    """Prefix of the paths of its leaves."""


class PublicFiles(NamedTuple):
    """An opened public-layout directory with checked headers and position tables. No weight has been read."""

    directory: Path
    config: ModelConfig
    parts: list[Part]
    tables: dict[str, np.ndarray]
    """Stored position tables `[side * side, features]` by public name. Our tree does not contain them."""

    def leaves(self) -> dict[LeafPath, tuple[TensorFiles, list[TensorName]]]:
        """Returns the files and tensors of every leaf. Paths of the autoencoder begin with "autoencoder"."""
        return {
            (*part.prefix, *path): (part.files, entries)
            for part in self.parts
            for path, entries in leaves(part.tensors).items()
        }


class Parameters(NamedTuple):
    """Parameters of a model on devices."""

    params: Params
    autoencoder_params: Params
    """Empty for the pixel autoencoder."""


def is_public_directory(directory: str | Path) -> bool:
    """Whether a directory holds one of the files that identify the public layout."""
    indices = (f"{MODEL_FILE}.index.json", *_OTHER_INDICES[MODEL_FILE])
    names = (MODEL_FILE, *_OTHER_FILES[MODEL_FILE], *indices, "llm_config.json", "config.json")
    return any((Path(directory) / name).is_file() for name in names)


def open_public(directory: str | Path) -> PublicFiles:
    """Opens a public-layout directory, and checks everything that needs no reading of weights.

    The directory holds `ema.safetensors` (or shards with an index), `ae.safetensors` (except with the pixel
    autoencoder), the JSON files of `model_config_from_directory`, and `uno.safetensors` if there is `uno_config.json`.

    Raises:
      CheckpointError: a file is missing or damaged, tensors are missing, unexpected, or of an invalid shape or dtype
        (the first 20 are named), or a stored position table differs from the computed one.
    """
    directory = Path(directory)
    config = model_config_from_directory(directory)
    if not uno_tensors(config) and (directory / UNO_FILE).exists():
        raise CheckpointError(f"{directory}: {UNO_FILE} exists, but {UNO_JSON} with its sizes is missing")
    parts = [
        Part(_find(directory, file, [entry.public for entry in tensors]), tensors, prefix)
        for file, tensors, prefix in (
            (MODEL_FILE, model_tensors(config), ()),
            (AUTOENCODER_FILE, autoencoder_tensors(config.autoencoder), ("autoencoder",)),
            (UNO_FILE, uno_tensors(config), ()),
        )
        if tensors
    ]
    _check_layers(parts[0].files, config)
    tables = fixed_tables(config)
    problems: list[str] = []
    for number, part in enumerate(parts):
        stored: list[TensorName | FixedTable] = [*part.tensors, *(tables if number == 0 else [])]
        problems += _problems(part.files, {entry.public: entry.public_shape for entry in stored})
    if problems:
        raise CheckpointError(f"{directory}: the tensors do not match the JSON files:{lines_of(problems)}")
    return PublicFiles(directory, config, parts, _checked_tables(parts[0].files, tables))


def place_public(
    public: PublicFiles,
    sharding: ShardingPolicy,
    dtype: DtypePolicy = lambda path: None,
    *,
    wanted: Callable[[LeafPath], bool] = lambda path: True,
) -> Parameters:
    """Reads the leaves of an opened directory onto devices.

    A host reads only the shards of its own devices, and holds one piece of a leaf at a time (`place.PIECE_BYTES`).

    Args:
      public: the opened directory, with float32, float16 or bfloat16 tensors.
      sharding: sharding of each leaf. Paths of the autoencoder's leaves begin with "autoencoder", here and below.
      dtype: dtype of each leaf, such as float32 for trainable ones and None (as stored) for frozen ones.
      wanted: which leaves to read.

    Raises:
      CheckpointError: a weight is not finite, or a file is truncated.
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


def _find(directory: Path, file: str, expected: list[str]) -> TensorFiles:
    """Opens a file, or its shards, without a prefix that all names of its tensors share, such as `module.`."""
    files = TensorFiles.find(directory, file, _OTHER_INDICES.get(file, ()), _OTHER_FILES.get(file, ()))
    ends = [name for name in files.tensors if name.endswith(f".{expected[0]}")]
    prefix = ends[0].removesuffix(expected[0]) if len(ends) == 1 else ""
    if not prefix or not all(name.startswith(prefix) for name in files.tensors):
        return files
    say(f"note: {files.source}: the prefix {prefix!r} of all tensor names is ignored")
    return files.without_prefix(prefix)


def _check_layers(files: TensorFiles, config: ModelConfig) -> None:
    """Requires the numbers of layers in the JSON files to be those in the tensor files."""
    for name, pattern, expected in (
        ("llm_config.json", r"language_model\.model\.layers\.(\d{1,9})\.", config.decoder.num_layers),
        ("vit_config.json", r"vit_model\.vision_model\.encoder\.layers\.(\d{1,9})\.", config.vision.num_layers),
    ):
        numbers = {int(match[1]) for tensor in files.tensors if (match := re.match(pattern, tensor))}
        if numbers and len(numbers) != expected:
            dropped = " (without the last one, which is dropped)" if name.startswith("vit") else ""
            raise CheckpointError(
                f"{files.source}: has {len(numbers)} layers, but num_hidden_layers of {name} gives {expected}{dropped}"
            )


def _problems(files: TensorFiles, expected: dict[str, Shape]) -> list[str]:
    """Returns one line for every tensor that is missing, unexpected, or of an invalid shape or dtype."""
    where = files.source.name
    if not expected.keys() & files.tensors.keys():
        some = ", ".join(list(files.tensors)[:3]) or "nothing"
        return [f"{where}: has {len(files.tensors)} tensors of another model, such as {some}"]
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
            problems.append(f"{where}: unexpected tensor {name}, shape {list(stored.shape)}")
    return problems


def _checked_tables(files: TensorFiles, tables: list[FixedTable]) -> dict[str, np.ndarray]:
    """Reads the stored position tables, and compares them with the computed ones."""
    problems, read = [], {}
    for table in tables:
        read[table.public] = files.read(table.public)
        stored = read[table.public].astype(np.float32)
        difference = np.abs(stored - sincos_table_2d(table.side, table.features))
        tolerance = _TABLE_TOLERANCE[files.tensors[table.public].dtype]
        if not difference.max() <= tolerance:  # written so that NaN fails
            row, column = np.unravel_index(np.argmax(difference), difference.shape)
            problems.append(
                f"{table.public}: row {row}, feature {column} is {stored[row, column]:.6g}, which differs by "
                f"{difference[row, column]:.3g} from the sin-cos table of side {table.side} "
                f"(tolerance {tolerance:g})"
            )
    if problems:
        raise CheckpointError(
            f"{files.source}: a stored position table differs from the computed one, which this model uses:\n  "
            + "\n  ".join(problems)
        )
    return read

"""Orbax to the public layout: writes a checkpoint's model so that the public implementation loads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from uno_jax.config import json_file
from uno_jax.interop.contents import Contents
from uno_jax.interop.names import (
    TensorName,
    autoencoder_tensors,
    fixed_tables,
    leaf_shape,
    leaves,
    model_tensors,
    uno_tensors,
)
from uno_jax.interop.output import new_directory
from uno_jax.interop.place import check_finite, is_finite
from uno_jax.interop.provenance import Provenance, computed_table
from uno_jax.interop.public_files import AUTOENCODER_FILE, MODEL_FILE, UNO_FILE, open_public
from uno_jax.interop.public_json import public_json
from uno_jax.interop.sizes import model_config_from_directory
from uno_jax.interop.tensor_files import STORED_DTYPES
from uno_jax.interop.write_tensor_files import TensorPlan, TensorWriter
from uno_jax.models.config import ModelConfig, model_differences
from uno_jax.process.errors import CheckpointError, lines_of
from uno_jax.training.checkpoints import compare_shapes
from uno_jax.training.state import is_under
from uno_jax.training.versions import versions

_NAMES = {dtype: name for name, dtype in STORED_DTYPES.items()}


class ExportConfig(NamedTuple):
    """How a checkpoint is written."""

    dtype: str | None = None
    """Of the trained tensors (float32, bfloat16 or float16); None: the dtype that they were imported in, or else are
    saved in."""
    shard_bytes: int | None = None
    """The most that a file of the model's tensors holds; None: one file."""


def export_public(
    contents: Contents,
    destination: str | Path,
    model: ModelConfig,
    provenance: Provenance,
    config: ExportConfig,
    *,
    tokenizer: Mapping[str, bytes],
    sampling: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Makes the public-layout directory `destination`: model, autoencoder, tokenizer and JSON files.

    Frozen tensors keep the dtype that they were imported in, and with it their bytes; position tables come back byte
    by byte. UNO's metaqueries and their head go to `uno.safetensors`, at which the public implementation does not
    look. One leaf is held in memory at a time.

    Args:
      contents: the opened checkpoint; with averages in the place of the trained parameters where these are wanted.
      destination: the directory; it appears when it is complete.
      model: its sizes.
      provenance: what it remembers of where it came from.
      config: dtype and shards.
      tokenizer: its files, by name.
      sampling: transforms and time shift, for our own section of `config.json`.
      overwrite: whether what is at `destination` may be replaced.

    Raises:
      CheckpointError: the checkpoint's tensors are not the model's, or the JSON files are of another model; a weight
        is not finite, or not in the dtype that is to be written; and as `new_directory`.
    """
    files = {
        MODEL_FILE: (model_tensors(model), ""),
        AUTOENCODER_FILE: (autoencoder_tensors(model.autoencoder), "autoencoder/"),
        UNO_FILE: (uno_tensors(model), ""),
    }
    named = {
        file: {prefix + "/".join(path): entries for path, entries in leaves(tensors).items()}
        for file, (tensors, prefix) in files.items()
    }
    expected = {name: leaf_shape(entries) for leaves_ in named.values() for name, entries in leaves_.items()}
    differences = compare_shapes(expected, {name: leaf.shape for name, leaf in contents.leaves.items()})
    if differences:
        raise CheckpointError(
            f"{contents.where}: its tensors are not those of the model that it names:{lines_of(differences)}"
        )
    with new_directory(destination, contents.where, overwrite=overwrite) as partial:
        partial.mkdir()
        for name, content in public_json(model, provenance.json, sampling, versions()).items():
            (partial / name).write_bytes(json_file(content))
        _check_model(model_config_from_directory(partial), model, provenance)
        for file, leaves_ in named.items():
            if leaves_:
                shard_bytes = config.shard_bytes if file == MODEL_FILE else None
                _write(partial, file, leaves_, contents, model, provenance, config.dtype, shard_bytes)
        for name, encoded in tokenizer.items():
            (partial / name).write_bytes(encoded)
        open_public(partial)  # what we would not read back must not appear


def _check_model(written: ModelConfig, model: ModelConfig, provenance: Provenance) -> None:
    """Demands that the JSON files that were written are read back as the model."""
    different = model_differences(model, written)
    if different:
        lines = [f"{name} is {ours!r}, by the JSON files {theirs!r}" for name, (ours, theirs) in different.items()]
        origin = f"; {', '.join(provenance.json)} are those that were imported" if provenance.json else ""
        raise CheckpointError(
            f"the JSON files of the export would describe another model than the checkpoint's{origin}:\n  "
            + "\n  ".join(lines)
        )


def _write(
    directory: Path,
    file: str,
    named: Mapping[str, list[TensorName]],
    contents: Contents,
    model: ModelConfig,
    provenance: Provenance,
    dtype: str | None,
    shard_bytes: int | None,
) -> None:
    """Writes one file, or its shards."""
    plans = {
        entry.public: TensorPlan(
            entry.public_shape, written_dtype(entry.public, name, contents.leaves[name].dtype, provenance, dtype)
        )
        for name, entries in named.items()
        for entry in entries
    }
    tables = fixed_tables(model) if file == MODEL_FILE else []
    for table in tables:
        # Where nothing says, the tables are like the token embedding.
        usual = plans[named["decoder/embedding"][0].public].dtype
        plans[table.public] = TensorPlan(table.public_shape, provenance.dtypes.get(table.public, usual))
    with TensorWriter(directory, file.removesuffix(".safetensors"), plans, shard_bytes) as writer:
        for table in tables:
            computed = computed_table(model, table.public).astype(STORED_DTYPES[plans[table.public].dtype])
            writer.write(table.public, provenance.tables.get(table.public, computed))
        for name, leaf in contents.arrays(named):
            check_finite(leaf, f"{contents.where}: {name}")
            for entry in named[name]:
                tensor = leaf if entry.layer is None else leaf[entry.layer]
                writer.write(entry.public, _cast(entry, tensor, STORED_DTYPES[plans[entry.public].dtype]))


def _cast(entry: TensorName, tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The tensor in the public orientation, in the dtype that is to be written."""
    with np.errstate(over="ignore"):
        stored = entry.to_public(tensor).astype(dtype)
    if not is_finite(stored):
        raise CheckpointError(
            f"{entry.public}: its largest weight, {np.abs(tensor).max():.4g}, is more than {dtype} can hold; "
            "export with --dtype=bfloat16 or float32"
        )
    return stored


def written_dtype(public: str, name: str, saved: np.dtype, provenance: Provenance, asked: str | None) -> str:
    """The dtype that a tensor is written in, as safetensors spells it.

    Args:
      public: its public name.
      name: the path of the leaf that it is (a layer of).
      saved: the dtype of that leaf in the checkpoint.
      provenance: dtypes of the import, and what was trained since.
      asked: for trained tensors.
    """
    if asked and _trained(name, provenance):
        return _NAMES[np.dtype(asked)]
    return provenance.dtypes.get(public, _NAMES[np.dtype(saved)])


def rounded(contents: Contents, model: ModelConfig, provenance: Provenance) -> list[str]:
    """Frozen tensors that a run keeps in a narrower dtype than they were imported in: their bytes are lost."""
    named = [("/".join(entry.path), entry) for entry in [*model_tensors(model), *uno_tensors(model)]]
    named += [("autoencoder/" + "/".join(entry.path), entry) for entry in autoencoder_tensors(model.autoencoder)]
    return [
        entry.public
        for name, entry in named
        if entry.public in provenance.dtypes
        and not _trained(name, provenance)
        and jnp.promote_types(contents.leaves[name].dtype, STORED_DTYPES[provenance.dtypes[entry.public]])
        != contents.leaves[name].dtype
    ]


def _trained(name: str, provenance: Provenance) -> bool:
    """Whether a run has trained the leaf; the autoencoder is none of the parameters that a run trains."""
    return not is_under(name, "autoencoder") and any(is_under(name, prefix) for prefix in provenance.trained)

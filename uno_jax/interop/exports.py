"""Exports the model of an Orbax checkpoint to the public layout, which BAGEL's public implementation loads."""

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
from uno_jax.training.state import is_under, is_under_any
from uno_jax.training.stored_trees import compare_shapes
from uno_jax.training.versions import versions

_NAMES = {dtype: name for name, dtype in STORED_DTYPES.items()}


class ExportConfig(NamedTuple):
    """Options of an export."""

    dtype: str | None = None
    """Dtype of the trained tensors (float32, bfloat16 or float16). None keeps the dtype of the import or, without an
    import, the saved one."""
    shard_bytes: int | None = None
    """Maximum size in bytes of a shard of the model; None writes a single file."""


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
    """Writes the public-layout directory `destination`: model, autoencoder, tokenizer and JSON files.

    Frozen tensors keep the dtype of their import, and so their bytes. Position tables are restored byte for byte.
    UNO's metaqueries and their head go to `uno.safetensors`, which the public implementation does not read. At most
    one leaf is in memory at a time.

    Args:
      contents: the opened checkpoint, with EMA weights as the trained parameters if these are to be exported.
      destination: the directory to write. It appears once it is complete.
      model: sizes of the model.
      provenance: origin of the parameters.
      config: dtype and shard size.
      tokenizer: content of the tokenizer files, by name.
      sampling: transforms and time shift, for our own section of `config.json`.
      overwrite: whether an existing `destination` is replaced.

    Raises:
      CheckpointError: the tensors are not those of the model, the imported JSON files describe another model, a
        weight is not finite or exceeds the range of its dtype, or `destination` is invalid (see `new_directory`).
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
            f"{contents.where}: the tensors do not match model.json of this checkpoint:{lines_of(differences)}"
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
        open_public(partial)  # an export that cannot be imported must not appear


def _check_model(written: ModelConfig, model: ModelConfig, provenance: Provenance) -> None:
    """Checks that the written JSON files describe the model."""
    different = model_differences(model, written)
    if different:
        lines = [f"{name} is {ours!r}, but {theirs!r} in the JSON files" for name, (ours, theirs) in different.items()]
        origin = f" ({', '.join(provenance.json)} are kept from the import)" if provenance.json else ""
        raise CheckpointError(
            f"the JSON files of the export do not describe the model of the checkpoint{origin}:\n  "
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
    """Writes one safetensors file or its shards."""
    plans = {
        entry.public: TensorPlan(
            entry.public_shape, written_dtype(entry.public, name, contents.leaves[name].dtype, provenance, dtype)
        )
        for name, entries in named.items()
        for entry in entries
    }
    tables = fixed_tables(model) if file == MODEL_FILE else []
    for table in tables:
        # Without an import, the tables take the dtype of the token embedding.
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
    """Returns the tensor in the public orientation and the dtype to write."""
    with np.errstate(over="ignore"):
        stored = entry.to_public(tensor).astype(dtype)
    if not is_finite(stored):
        raise CheckpointError(
            f"{entry.public}: the largest weight, {np.abs(tensor).max():.4g}, exceeds the range of {dtype}; "
            "export with --dtype=bfloat16 or float32"
        )
    return stored


def written_dtype(public: str, name: str, saved: np.dtype, provenance: Provenance, asked: str | None) -> str:
    """Returns the dtype in which a tensor is written, in the notation of safetensors.

    Args:
      public: public name of the tensor.
      name: path of the leaf that holds it (alone, or as one layer).
      saved: dtype of that leaf in the checkpoint.
      provenance: dtypes of the import, and the parameters trained since.
      asked: requested dtype of trained tensors; None keeps theirs.
    """
    if asked and _trained(name, provenance):
        return _NAMES[np.dtype(asked)]
    return provenance.dtypes.get(public, _NAMES[np.dtype(saved)])


def rounded(contents: Contents, model: ModelConfig, provenance: Provenance) -> list[str]:
    """Returns the frozen tensors that lost precision: the run stored them in a narrower dtype than the import."""
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
    """Whether a run has trained the leaf. No run trains the autoencoder."""
    return not is_under(name, "autoencoder") and is_under_any(name, provenance.trained)

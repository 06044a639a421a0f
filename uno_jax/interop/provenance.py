"""Records the public-layout origin of a checkpoint, so that an export restores the same bytes.

A stacked leaf of our tree has a single dtype, a run casts leaves to the dtypes of its config, and our tree does not
contain the fixed position tables. A checkpoint therefore stores the dtype of each imported tensor, the JSON files, the
tables that differ from the computed ones, and the prefixes of all parameters trained since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from uno_jax.config import json_file
from uno_jax.interop.json_object import read_object, section
from uno_jax.interop.names import fixed_tables
from uno_jax.interop.public_files import PublicFiles
from uno_jax.interop.tensor_files import STORED_DTYPES
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import sincos_table_2d
from uno_jax.process.errors import CheckpointError, lines_of

PROVENANCE_FILE = "provenance.json"
TABLES_FILE = "position_tables.safetensors"

PUBLIC_JSON = ("llm_config.json", "vit_config.json", "config.json")


@dataclass(frozen=True)
class Provenance:
    """Origin of parameters. All fields are empty for untrained parameters of a random initialisation."""

    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Dtype of every imported tensor in the notation of safetensors, by public name."""
    json: Mapping[str, Any] = field(default_factory=dict)
    """The imported JSON files, by name."""
    trained: tuple[str, ...] = ()
    """Path prefixes of all parameters trained since the import, by any run."""
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Imported position tables that differ from the computed ones in any bit."""

    def with_trained(self, prefixes: Iterable[str]) -> Provenance:
        """Returns a copy that also lists these prefixes as trained."""
        return replace(self, trained=tuple(dict.fromkeys([*self.trained, *prefixes])))

    def assets(self) -> dict[str, bytes]:
        """Returns the files to store in the assets of a checkpoint, by name."""
        content = {"dtypes": dict(self.dtypes), "trained": list(self.trained), "json": dict(self.json)}
        files = {PROVENANCE_FILE: json_file(content)}
        return files | ({TABLES_FILE: save(dict(self.tables))} if self.tables else {})


def public_provenance(public: PublicFiles) -> Provenance:
    """Returns the provenance of an opened public-layout directory."""
    return Provenance(
        dtypes={name: stored.dtype for part in public.parts for name, stored in part.files.tensors.items()},
        json={
            name: read_object(public.directory / name) for name in PUBLIC_JSON if (public.directory / name).is_file()
        },
        tables={
            name: stored
            for name, stored in public.tables.items()
            if stored.tobytes() != computed_table(public.config, name).astype(stored.dtype).tobytes()
        },
    )


def saved_provenance(checkpoint: Path) -> Provenance:
    """Reads the provenance of an Orbax checkpoint.

    Raises:
      CheckpointError: a file is damaged.
    """
    assets = checkpoint / "assets"
    file, tables = assets / PROVENANCE_FILE, assets / TABLES_FILE
    if not file.is_file():  # checkpoints of earlier versions have none
        return Provenance(trained=tuple(read_object(assets / "config.json").get("trainable", ())))
    content = read_object(file)
    dtypes, json_files = section(content, "dtypes", str(file)), section(content, "json", str(file))
    trained = content.get("trained")
    if not isinstance(trained, list) or not all(isinstance(prefix, str) for prefix in trained):
        raise CheckpointError(f"{file}: trained is {trained!r}; expected a list of path prefixes")
    unknown = [f"{name} is {dtype!r}" for name, dtype in dtypes.items() if dtype not in STORED_DTYPES]
    if unknown:
        raise CheckpointError(f"{file}: dtypes: expected {', '.join(STORED_DTYPES)}{lines_of(unknown)}")
    for name in json_files:
        section(json_files, name, f"{file}, json")
    try:
        stored = load(tables.read_bytes()) if tables.is_file() else {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{tables}: incomplete or damaged safetensors file ({error})") from error
    return Provenance(dtypes=dtypes, json=json_files, trained=tuple(trained), tables=stored)


def computed_table(config: ModelConfig, name: str) -> np.ndarray:
    """Computes the fixed position table with the given public name, float32 `[side * side, features]`."""
    (table,) = (table for table in fixed_tables(config) if table.public == name)
    return sincos_table_2d(table.side, table.features)

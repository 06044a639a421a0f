"""What a checkpoint remembers of the public-layout directory it came from, so that export gives back the same bytes.

Our tree has one dtype for a stacked leaf, a run casts it to the dtypes of its config, and the fixed position tables
are not in it. So every checkpoint carries the dtype of each imported tensor, the JSON files, the tables where they are
not bit by bit what we compute, and what has been trained since.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from uno_jax.checkpoint_errors import CheckpointError
from uno_jax.interop.load import PublicFiles
from uno_jax.interop.names import fixed_tables
from uno_jax.models.config import ModelConfig
from uno_jax.models.positions import sincos_table_2d

PROVENANCE_FILE = "provenance.json"
TABLES_FILE = "position_tables.safetensors"

PUBLIC_JSON = ("llm_config.json", "vit_config.json", "config.json")


@dataclass(frozen=True)
class Provenance:
    """Where parameters come from. All fields are empty for parameters that were drawn afresh and not trained."""

    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Dtype of every imported tensor by its public name, as safetensors spells it."""
    json: Mapping[str, Any] = field(default_factory=dict)
    """The imported JSON files, by name."""
    trained: tuple[str, ...] = ()
    """Prefixes of the paths of all parameters that some run has trained since."""
    tables: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Imported position tables that are not bit by bit the computed ones."""

    def with_trained(self, prefixes: Iterable[str]) -> Provenance:
        """The same, of parameters that are (also) trained under these prefixes."""
        return replace(self, trained=tuple(dict.fromkeys([*self.trained, *prefixes])))

    def assets(self) -> dict[str, bytes]:
        """Files for a checkpoint's assets."""
        content = {"dtypes": dict(self.dtypes), "trained": list(self.trained), "json": dict(self.json)}
        files = {PROVENANCE_FILE: (json.dumps(content, indent=1) + "\n").encode()}
        return files | ({TABLES_FILE: save(dict(self.tables))} if self.tables else {})


def public_provenance(public: PublicFiles) -> Provenance:
    """Of an opened public-layout directory."""
    return Provenance(
        dtypes={name: stored.dtype for part in public.parts for name, stored in part.files.tensors.items()},
        json={
            name: json.loads((public.directory / name).read_text(encoding="utf-8"))
            for name in PUBLIC_JSON
            if (public.directory / name).is_file()
        },
        tables={
            name: stored
            for name, stored in public.tables.items()
            if stored.tobytes() != computed_table(public.config, name).astype(stored.dtype).tobytes()
        },
    )


def saved_provenance(checkpoint: Path) -> Provenance:
    """Of one checkpoint of a run, or of an import.

    Raises:
      CheckpointError: the files are damaged.
    """
    assets = checkpoint / "assets"
    try:
        if not (assets / PROVENANCE_FILE).is_file():  # written before there was one
            return Provenance(trained=tuple(json.loads((assets / "config.json").read_bytes()).get("trainable", ())))
        content = json.loads((assets / PROVENANCE_FILE).read_bytes())
        tables = load((assets / TABLES_FILE).read_bytes()) if (assets / TABLES_FILE).is_file() else {}
        return Provenance(
            dtypes=dict(content["dtypes"]),
            json=dict(content["json"]),
            trained=tuple(content["trained"]),
            tables=tables,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{assets}: {PROVENANCE_FILE} or {TABLES_FILE} is damaged ({error!r})") from error


def computed_table(config: ModelConfig, name: str) -> np.ndarray:
    """The fixed position table of that public name, float32 `[side * side, features]`."""
    (table,) = (table for table in fixed_tables(config) if table.public == name)
    return sincos_table_2d(table.side, table.features)

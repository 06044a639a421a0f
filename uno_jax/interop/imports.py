"""Public layout to Orbax: reads a public-layout directory onto a mesh, and saves it as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from uno_jax.config import json_file
from uno_jax.interop.output import new_directory
from uno_jax.interop.provenance import public_provenance
from uno_jax.interop.public_files import Parameters, open_public, place_public
from uno_jax.parallel.parameters import tree_shardings
from uno_jax.training.checkpoints import save_model
from uno_jax.training.initialise import abstract_autoencoder, abstract_params


def import_public(
    source: str | Path,
    destination: str | Path,
    mesh: Mesh,
    *,
    tokenizer: Mapping[str, bytes],
    settings: Mapping[str, Any],
    overwrite: bool = False,
) -> Parameters:
    """Makes the checkpoint `destination` of the model in a public-layout directory, every tensor in its stored dtype.
    Args:
      source: the public-layout directory.
      destination: the checkpoint's directory; it appears when it is complete.
      mesh: the parameters are placed on it, as a run would; the autoencoder is placed like them.
      tokenizer: its files, by name.
      settings: of the config that the checkpoint will carry (as `RunConfig`), besides the model's sizes.
      overwrite: whether what is at `destination` may be replaced.

    Raises:
      CheckpointError: as `open_public`, `new_directory` and `save_model`; a weight that is not finite.
    """
    with new_directory(destination, source, overwrite=overwrite) as partial:
        public = open_public(source)
        trees = {**abstract_params(public.config), "autoencoder": abstract_autoencoder(public.config)}
        shardings = flatten_dict(tree_shardings(trees, mesh))
        placed = place_public(public, lambda path: shardings[path])
        assets = {
            "config.json": json_file({**settings, "model": public.config}),
            "model.json": json_file(public.config),
            **tokenizer,
            **public_provenance(public).assets(),
        }
        save_model(partial, *placed, assets)
    return placed

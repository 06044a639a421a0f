"""Imports a public-layout directory: places it on a mesh and saves it as an Orbax checkpoint."""

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
    """Saves the model of a public-layout directory as a checkpoint, every tensor in its stored dtype.

    Args:
      source: the public-layout directory.
      destination: directory of the checkpoint. It appears once it is complete.
      mesh: mesh on which the parameters, including the autoencoder's, are sharded as in a run.
      tokenizer: content of the tokenizer files, by name.
      settings: fields of the saved config (`RunConfig`) other than the sizes of the model.
      overwrite: whether an existing `destination` is replaced.

    Returns:
      The placed parameters.

    Raises:
      CheckpointError: the source is invalid (see `open_public`), a weight is not finite, or `destination` cannot be
        written (see `new_directory` and `save_model`).
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

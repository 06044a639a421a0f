"""Precomputed moments and vision features of a run: what they depend on, and whether a run may use them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding

from uno_jax.config import ConfigError, to_json
from uno_jax.data import encoded, features
from uno_jax.data.annex import COMMANDS, open_annex
from uno_jax.data.config import DataConfig
from uno_jax.data.mixture import field_of, part_configs
from uno_jax.models.config import ModelConfig, autoencoder_fields, vision_fields
from uno_jax.parallel.mesh import replicated
from uno_jax.run.config import RunConfig
from uno_jax.training.state import Params

_AS_IT_WAS = "set it as it was"
_REMEDY = {
    "autoencoder": "start from the checkpoint that it was made with",
    "vae_transform": _AS_IT_WAS,
    "max_picture_pixels": _AS_IT_WAS,
    "understanding": "use another method than pretrain",
    "vision": "start from the checkpoint that it was made with",
    "compute_dtype": _AS_IT_WAS,
    "frozen_dtype": _AS_IT_WAS,
    "vit_transform": _AS_IT_WAS,
    "metaquery_transform": _AS_IT_WAS,
    "metaqueries": "use a method without metaqueries",
    "targets": "use a method that does not show the target as ViT patches",
}
_MORE_IS_FINE = ("understanding", "metaqueries", "targets")
"""Facts that say whether something is there. What a run does not need may be there."""


def moment_facts(model: ModelConfig, data: DataConfig, autoencoder: str) -> dict[str, Any]:
    """Returns what the moments of a dataset's pictures depend on, as JSON values.

    Args:
      model: sizes of the model that reads them.
      data: data config of the dataset.
      autoencoder: hash of the autoencoder's parameters.
    """
    return {
        "autoencoder": autoencoder,
        "autoencoder_fields": to_json(autoencoder_fields(model)),
        "vae_transform": to_json(data.vae_transform),
        "max_picture_pixels": data.max_picture_pixels,
        # The only method that gives pictures of questions as latents.
        "understanding": data.method == "pretrain",
        "moments_per_token": 2 * model.latent_size,
    }


def feature_facts(config: RunConfig, data: DataConfig, vision: str) -> dict[str, Any]:
    """Returns what the vision features of a dataset's pictures depend on, as JSON values.

    Args:
      config: config of the run that reads them.
      data: data config of the dataset.
      vision: hash of the vision encoder's parameters.
    """
    return {
        "compute_dtype": config.model.compute_dtype,
        "frozen_dtype": config.frozen_dtype,
        "vision": vision,
        "vision_fields": to_json(vision_fields(config.model)),
        "vit_transform": to_json(data.vit_transform),
        "metaquery_transform": to_json(data.metaquery_transform),
        "max_picture_pixels": data.max_picture_pixels,
        **features.feature_needs(data),
        "features_per_patch": config.model.vision.hidden_size,
    }


def check_encoded(config: RunConfig, autoencoder: Params | None = None) -> None:
    """Requires the moments of `data.encoded`, if any, to be those that the run would compute.

    Without the parameters of the autoencoder, everything else is compared.

    Raises:
      ConfigError: they were made with another autoencoder, model or transform. The message names the first difference.
    """
    facts = functools.partial(moment_facts, config.model)
    _check(config, "encoded", encoded.KIND, facts, "autoencoder", autoencoder)


def check_features(config: RunConfig, vision: Params | None = None) -> None:
    """Requires the vision features of `data.features`, if any, to be those that the run would compute.

    Without the parameters of the vision encoder, everything else is compared.

    Raises:
      ConfigError: they were made with another encoder, dtype or transform. The message names the first difference.
    """
    _check(config, "features", features.KIND, functools.partial(feature_facts, config), "vision", vision)


def _check(
    config: RunConfig,
    field: str,
    kind: str,
    facts: Callable[[DataConfig, str], dict[str, Any]],
    hashed: str,
    params: Params | None,
) -> None:
    """Compares the facts of the annexes in a field of the data config. Fact `hashed` is the hash of `params`."""
    parts = {name: part for name, part in part_configs(config.data).items() if getattr(part, field)}
    own = parameters_hash(params) if parts and params is not None else ""
    for part_name, part in parts.items():
        annex = open_annex(getattr(part, field), kind)
        for name, value in facts(part, own).items():
            found = annex.about.get(name)
            if found == value or (found and name in _MORE_IS_FINE) or (name == hashed and params is None):
                continue
            remedy = _REMEDY.get(name, "use the model that it was made with")
            raise ConfigError(
                f"config.{field_of(part_name, field)}: {annex.folder} was made with {name} {found}, and this run has "
                f"{value}. Make it again with `prepare_data {COMMANDS[kind]}`, or {remedy}"
            )


def parameters_hash(params: Params) -> str:
    """Returns the SHA-256 of parameters: of paths, dtypes, shapes and values."""
    digest = hashlib.sha256()
    leaves = flatten_dict(params, sep="/") if params else {}
    for name in sorted(leaves):
        leaf = np.asarray(jax.device_get(_whole(leaves[name])))
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _whole(leaf: Any) -> Any:
    """Returns a parameter that is sharded over several hosts as each of them can read it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    mesh = leaf.sharding.mesh if isinstance(leaf.sharding, NamedSharding) else None
    assert isinstance(mesh, Mesh), "parameters of a run lie on its mesh"
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(leaf)

"""Precomputed moments of a run: what they depend on, and whether a run may use them."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from uno_jax.config import ConfigError, to_json
from uno_jax.data.annex import open_annex
from uno_jax.data.config import DataConfig
from uno_jax.data.encoded import KIND
from uno_jax.data.mixture import field_of, part_configs
from uno_jax.models.config import ModelConfig, autoencoder_fields
from uno_jax.run.config import RunConfig
from uno_jax.training.state import Params

_REMEDY = {
    "autoencoder": "start from the checkpoint that it was made with",
    "autoencoder_fields": "use the model that it was made with",
    "vae_transform": "set it as it was",
    "max_picture_pixels": "set it as it was",
    "understanding": "use another method than pretrain",
}


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


def check_encoded(config: RunConfig, autoencoder: Params) -> None:
    """Requires the moments of `data.encoded`, if any, to be those that the run would compute.

    Raises:
      ConfigError: they were made with another autoencoder, model or transform. The message names the first difference.
    """
    parts = {name: part for name, part in part_configs(config.data).items() if part.encoded}
    own = parameters_hash(autoencoder) if parts else ""
    for part_name, part in parts.items():
        annex = open_annex(part.encoded, KIND)
        for name, value in moment_facts(config.model, part, own).items():
            found = annex.about.get(name)
            if name == "understanding" and found:
                continue  # more than is needed
            if found != value:
                remedy = _REMEDY.get(name, "use the model that it was made with")
                raise ConfigError(
                    f"config.{field_of(part_name, 'encoded')}: {annex.folder} was made with {name} {found}, and this "
                    f"run has {value}. Make it again with `prepare_data encode`, or {remedy}"
                )


def parameters_hash(params: Params) -> str:
    """Returns the SHA-256 of parameters: of paths, dtypes, shapes and values."""
    digest = hashlib.sha256()
    leaves = flatten_dict(params, sep="/") if params else {}
    for name in sorted(leaves):
        leaf = np.asarray(jax.device_get(leaves[name]))
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

"""A directory in the public layout as sizes and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.interop.public_files import open_public, place_public
from uno_jax.models.config import ModelConfig
from uno_jax.training.state import Params


class PublicModel(NamedTuple):
    config: ModelConfig
    params: Params
    autoencoder_params: Params


def load_public(directory: Path, **policies: Any) -> PublicModel:
    """All parameters, on the first device unless the policies of `place_public` say otherwise."""
    public = open_public(directory)
    return PublicModel(public.config, *place_public(public, **policies))

"""Loads sizes and parameters of a directory in the public layout."""

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
    """Loads all parameters, by default onto the first device; `policies` are arguments of `place_public`."""
    public = open_public(directory)
    return PublicModel(public.config, *place_public(public, **policies))

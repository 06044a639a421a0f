"""Loads sizes and parameters of a directory in the public layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Sharding, SingleDeviceSharding

from uno_jax.interop.names import LeafPath
from uno_jax.interop.public_files import ShardingPolicy, open_public, place_public
from uno_jax.models.config import ModelConfig
from uno_jax.training.state import Params


class PublicModel(NamedTuple):
    config: ModelConfig
    params: Params
    autoencoder_params: Params


def first_device(path: LeafPath) -> Sharding:
    """Returns a sharding that places any leaf on the first device of this host."""
    return SingleDeviceSharding(jax.local_devices()[0])


def load_public(directory: Path, sharding: ShardingPolicy = first_device, **policies: Any) -> PublicModel:
    """Loads all parameters; `policies` are further arguments of `place_public`."""
    public = open_public(directory)
    return PublicModel(public.config, *place_public(public, sharding, **policies))

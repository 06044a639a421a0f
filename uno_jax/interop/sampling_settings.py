"""Reads the transforms and time shift for sampling from a checkpoint, or derives them from its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uno_jax.config import ConfigError, from_config_dict
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.json_object import number, read_object, section
from uno_jax.interop.sizes import OUR_SECTION
from uno_jax.models.config import ModelConfig
from uno_jax.process.errors import CheckpointError

# Values of BAGEL's public implementation for sampling.
PUBLIC_VAE_TRANSFORM = ImageTransform(1024, 512, 16)
PUBLIC_VIT_TRANSFORM = ImageTransform(980, 224, 14)
PUBLIC_TIME_SHIFT = 3.0


@dataclass(frozen=True)
class SamplingSettings:
    """Transforms and time shift for sampling."""

    vae_transform: ImageTransform
    vit_transform: ImageTransform
    time_shift: float
    """Time shift of the training run; 3.0, the public implementation's, if no file states one."""


def saved_settings(file: Path) -> SamplingSettings:
    """Reads the settings from the `config.json` of a run.

    Raises:
      CheckpointError: the file is missing, or a field is invalid.
    """
    config = read_object(file)
    data, objective = (section(config, name, str(file)) for name in ("data", "objective"))
    return SamplingSettings(
        _transform(data, "vae_transform", file) or PUBLIC_VAE_TRANSFORM,
        _transform(data, "vit_transform", file) or PUBLIC_VIT_TRANSFORM,
        number(objective, "time_shift", PUBLIC_TIME_SHIFT, f"{file}, objective", positive=True),
    )


def public_settings(file: Path, model: ModelConfig) -> SamplingSettings:
    """Reads the settings from our section of a public `config.json`. Missing ones are derived from the sizes.

    Raises:
      CheckpointError: a field is invalid.
    """
    ours = section(read_object(file), OUR_SECTION, str(file)) if file.is_file() else {}
    return SamplingSettings(
        _transform(ours, "vae_transform", file)
        or _fitting(PUBLIC_VAE_TRANSFORM, model.max_latent_size, model.pixels_per_token),
        _transform(ours, "vit_transform", file)
        or _fitting(PUBLIC_VIT_TRANSFORM, model.vision.table_side, model.vision.patch_size),
        number(ours, "time_shift", PUBLIC_TIME_SHIFT, f"{file}, {OUR_SECTION}", positive=True),
    )


def _fitting(transform: ImageTransform, table_side: int, patch: int) -> ImageTransform:
    """Returns the transform, limited to the patches and position table of a model smaller than the published."""
    largest = min(transform.max_side, table_side * patch)
    least = max(patch, transform.min_side * largest // transform.max_side)
    return ImageTransform(largest, least, patch, transform.max_pixels)


def _transform(fields: Mapping[str, Any], name: str, file: Path) -> ImageTransform | None:
    """Returns the transform under a field, or None if the field is missing."""
    if name not in fields:
        return None
    try:
        return from_config_dict(fields[name], ImageTransform, f"{file}: {name}")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error

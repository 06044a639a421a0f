"""Decodes latent tokens to pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from uno_jax.models.autoencoder import unpatchify_latents
from uno_jax.models.config import ModelConfig


def decode_pictures(
    autoencoder: nn.Module,
    params: Any,
    tokens: Sequence[Float[np.ndarray, "_tokens latent_size"]],
    grids: Sequence[tuple[int, int]],
    config: ModelConfig,
) -> list[UInt8[np.ndarray, "_height _width 3"]]:
    """Decodes images one by one, each from the latent tokens of its grid (rows, columns).

    Runs on the devices of `params`, with one jitted program per grid. Pixels are clipped and truncated to integers, as
    in BAGEL's public implementation. Values that are not finite become grey.
    """
    images = []
    for latents, (rows, columns) in zip(tokens, grids, strict=True):
        pixels = np.asarray(_decode(params, latents[None], autoencoder, config, rows, columns))[0]
        images.append((np.clip(np.nan_to_num(pixels) * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8))
    return images


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _decode(
    params: Any, tokens: Array, autoencoder: nn.Module, config: ModelConfig, rows: int, columns: int
) -> Float[Array, "images height width 3"]:
    latents = unpatchify_latents(tokens, rows, columns, config.latent_patch_size)
    decoded: Any = autoencoder.apply({"params": params}, latents, method="decode")
    pixels: Array = decoded
    return pixels

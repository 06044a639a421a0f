"""Encodes pictures with the vision encoder, each at its own size, before a run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from uno_jax.batch import position_ids
from uno_jax.models.autoencoder import patchify_latents
from uno_jax.models.config import ModelConfig
from uno_jax.models.picture_groups import encode_in_groups, mesh_of
from uno_jax.models.positions import pixels_to_float
from uno_jax.models.vision import VisionEncoder
from uno_jax.parallel.axes import constrain, on_mesh

PIXELS_AT_ONCE = 1024 * 1024
"""Maximum number of pixels to encode at once per device: 5,350 patches of 14 x 14."""


def encode_patches(
    params: Any,
    pictures: Sequence[UInt8[np.ndarray, "_height _width 3"]],
    config: ModelConfig,
    *,
    pixels_at_once: int = PIXELS_AT_ONCE,
    most_at_once: int = 64,
) -> list[Float[np.ndarray, "_rows _columns _features"]]:
    """Returns the vision features of each patch of pictures, in the compute dtype.

    They are those of `UnifiedModel.vision_features` before the connector, up to rounding.

    Args:
      params: parameters of the vision encoder. Pictures are sharded over their devices, which must be local.
      pictures: pictures whose sides are multiples of `config.vision.patch_size`.
      config: sizes of the model.
      pixels_at_once: maximum number of pixels of a group per device. It changes memory and speed.
      most_at_once: maximum number of pictures of a group per device.
    """
    mesh = mesh_of(params)
    return encode_in_groups(
        pictures,
        config.vision.patch_size,
        lambda stack: _encode_stack(stack, params, config, mesh),
        mesh,
        pixels_at_once=pixels_at_once,
        most_at_once=most_at_once,
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _encode_stack(
    pictures: UInt8[Array, "pictures height width 3"], params: Any, config: ModelConfig, mesh: Mesh
) -> Float[Array, "pictures patches features"]:
    """Returns the features of pictures of one size, each a row of its own, sharded like rows over `mesh`."""
    count, height, width, _ = pictures.shape
    side = config.vision.patch_size
    grid = position_ids(height // side, width // side, config.vision.table_side)
    with on_mesh(mesh):
        patches = constrain(patchify_latents(pixels_to_float(pictures), side), "batch", "tokens", None)
        shape = patches.shape[:2]
        features: Any = VisionEncoder(config.vision, jnp.dtype(config.compute_dtype)).apply(
            {"params": params}, patches, jnp.broadcast_to(grid, shape), jnp.ones(shape, jnp.int32)
        )
        return constrain(features, "batch", None, None)

"""Random initialisation of parameters, and their shapes without allocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax.batch import Batch, BatchShape, padding_batch
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.training.state import Params, is_under_any, partition


def abstract_params(config: ModelConfig) -> Params:
    """Returns the parameter tree as float32 `jax.ShapeDtypeStruct`."""
    params: Params = jax.eval_shape(lambda: _init(config, jax.random.key(0)))
    return params


def init_params(
    config: ModelConfig, seed: int, parts: Sequence[str] = (), place: Callable[[Params], Any] = lambda params: None
) -> Params:
    """Initialises float32 parameters at random. With `parts` (path prefixes), returns only those, with the same values.

    `place` maps the tree of shapes to shardings. Each device initialises only its own shards.
    """

    def init(key: jax.Array) -> Params:
        params = _init(config, key)
        return partition(params, parts)[0] if parts else params

    # Under jit, unused parts are never computed.
    key = jax.random.key(seed)
    params: Params = jax.jit(init, out_shardings=place(jax.eval_shape(init, key)))(key)
    return params


def init_autoencoder(model: ModelConfig, seed: int) -> Params:
    """Initialises float32 parameters of the model's autoencoder at random. Empty if it has none."""
    image = np.zeros((1, *(2 * model.pixels_per_token,) * 2, 3), np.float32)
    params: Params = jax.jit(make_autoencoder(model.autoencoder).init)(jax.random.key(seed), image).get("params", {})
    return params


def abstract_autoencoder(model: ModelConfig) -> Params:
    """Returns the autoencoder's parameters as float32 `jax.ShapeDtypeStruct`."""
    params: Params = jax.eval_shape(lambda: init_autoencoder(model, 0))
    return params


def cast_params(params: Params, trainable: Sequence[str], trainable_dtype: str, frozen_dtype: str) -> Params:
    """Casts trainable and frozen parameters (arrays or ShapeDtypeStruct); `trainable` as in `state.partition`."""

    def cast(path: tuple[Any, ...], leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
        dtype = leaf_dtype([key.key for key in path], trainable, trainable_dtype, frozen_dtype)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)
        return leaf.astype(dtype)

    kept: Params = jax.tree_util.tree_map_with_path(cast, params)
    return kept


def leaf_dtype(path: Sequence[str], trainable: Sequence[str], trainable_dtype: str, frozen_dtype: str) -> jnp.dtype:
    """Returns the dtype of a parameter."""
    trained = is_under_any("/".join(path), trainable)
    return jnp.dtype(trainable_dtype if trained else frozen_dtype)


def _init(config: ModelConfig, key: jax.Array) -> Params:
    batch = _smallest_batch(config)
    latents = jnp.zeros((1, 1, config.latent_size), jnp.float32)
    model = UnifiedModel(config)
    times = jnp.zeros((1, 1), jnp.float32)
    params: Params = model.init(key, batch, latents, times, answers=True, align=config.align_layer > 0)["params"]
    return params


def _smallest_batch(config: ModelConfig) -> Batch:
    """Returns a batch with one padding token in every region. Parameters do not depend on the number of tokens."""
    shape = BatchShape(
        rows=1,
        text=1,
        vit=1,
        captions=1,
        queries=int(config.num_metaqueries > 0),
        latents=1,
        patch_features=3 * config.vision.patch_size**2,
        latent_features=2 * config.latent_size,
        align=config.align_layer > 0,
    )
    batch: Batch = jax.tree.map(jnp.asarray, padding_batch(shape))
    return batch

"""Fresh parameters, and the shapes of all of them without allocating any."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import Batch, TokenSource
from uno_jax.models.config import ModelConfig
from uno_jax.models.unified import UnifiedModel
from uno_jax.training.state import Params


def abstract_params(config: ModelConfig) -> Params:
    """The parameter tree as `jax.ShapeDtypeStruct`, float32."""
    return jax.eval_shape(lambda: _init(config, jax.random.key(0)))


def init_params(config: ModelConfig, seed: int, parts: Sequence[str] = ()) -> Params:
    """Freshly drawn float32 parameters; with `parts`, only those top-level parts, drawn as for the whole tree."""

    def init(key: jax.Array) -> Params:
        params = _init(config, key)
        return {name: params[name] for name in parts} if parts else params

    # Jitted, so that parts that are not asked for are never computed.
    return jax.jit(init)(jax.random.key(seed))


def cast_params(params: Params, trainable: Sequence[str], trainable_dtype: str, frozen_dtype: str) -> Params:
    """Parameters (arrays or ShapeDtypeStruct) in the dtype of their kind; `trainable` as for `state.partition`."""

    def cast(path: tuple, leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
        dtype = leaf_dtype([key.key for key in path], trainable, trainable_dtype, frozen_dtype)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)
        return leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def leaf_dtype(path: Sequence[str], trainable: Sequence[str], trainable_dtype: str, frozen_dtype: str) -> jnp.dtype:
    """The dtype that a leaf is kept in."""
    name = "/".join(path)
    trained = any(not prefix or name == prefix or name.startswith(prefix + "/") for prefix in trainable)
    return jnp.dtype(trainable_dtype if trained else frozen_dtype)


def _init(config: ModelConfig, key: jax.Array) -> Params:
    batch = _smallest_batch(config)
    latents = np.zeros((1, 1, config.latent_size), np.float32)
    model = UnifiedModel(config)
    return model.init(key, batch, latents, np.zeros((1, 1), np.float32), answers=True)["params"]


def _smallest_batch(config: ModelConfig) -> Batch:
    """One padding token in every region that the model has: parameters do not depend on how many there are."""
    queries = int(config.num_metaqueries > 0)
    patch_values = config.vision.patch_size**2 * 3

    def zeros(tokens: int, dtype: type = np.int32) -> np.ndarray:
        return np.zeros((1, tokens), dtype)

    def metadata(tokens: int) -> TokenMetadata:
        return TokenMetadata(*(zeros(tokens) for _ in TokenMetadata._fields))

    def source(tokens: int) -> TokenSource:
        return TokenSource(*(zeros(tokens) for _ in TokenSource._fields))

    return Batch(
        understanding=metadata(3 + queries),
        generation=metadata(1),
        text_ids=zeros(1),
        text_labels=zeros(1),
        text_loss=zeros(1, bool),
        vit_patches=np.zeros((1, 1, patch_values), np.uint8),
        vit_positions=zeros(1),
        vit_image=zeros(1),
        caption_ids=zeros(1),
        caption_labels=zeros(1),
        caption_loss=zeros(1, bool),
        caption_source=source(1),
        query_index=zeros(queries),
        query_loss=zeros(queries, bool),
        query_source=source(queries),
        target_patches=np.zeros((1, queries, patch_values), np.uint8),
        target_positions=zeros(queries),
        target_image=zeros(queries),
        latent_moments=np.zeros((1, 1, 2 * config.latent_size), np.float32),
        latent_positions=zeros(1),
        latent_index=zeros(1),
        latent_time_scale=zeros(1, np.float32),
        latent_loss=zeros(1, bool),
        latent_source=source(1),
    )

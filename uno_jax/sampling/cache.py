"""Key-value caches of the contexts that a model samples from, built once and then extended."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import TokenBatch
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import KVCache
from uno_jax.models.unified import UnifiedModel

Params = Any


def read_context(
    params: Params,
    batch: TokenBatch,
    latents: Float[Array, "batch latents latent_size"],
    model: ModelConfig,
    cache: KVCache | None = None,
    times: Float[Array, "#batch #latents"] | None = None,
) -> KVCache:
    """Reads a batch of contexts, one sample per row, in one forward pass, and appends it to `cache`.

    A pure function to be jitted. The slots of `cache` come first. Latents are read as given, at time 0 without `times`.
    """
    if not batch.understanding.sample.shape[1] + batch.generation.sample.shape[1]:
        return empty_cache(len(batch.text_ids), model) if cache is None else cache
    unified, times = UnifiedModel(model), jnp.zeros((1, 1)) if times is None else times
    _, sown = unified.apply({"params": params}, batch, latents, times, cache, method="read", mutable=["cache"])
    metadata = TokenMetadata(
        *(jnp.concatenate(pair, axis=1) for pair in zip(batch.understanding, batch.generation, strict=True))
    )
    return extended(cache, sown_keys_values(sown), metadata)


def empty_cache(rows: int, model: ModelConfig) -> KVCache:
    """A cache with no slots."""
    decoder = model.decoder
    nothing = jnp.zeros((decoder.num_layers, rows, 0, decoder.num_kv_heads, decoder.head_dim), model.compute_dtype)
    return KVCache(nothing, nothing, TokenMetadata(*[jnp.zeros((rows, 0), jnp.int32)] * len(TokenMetadata._fields)))


def extended(cache: KVCache | None, keys_values: tuple[Array, Array], metadata: TokenMetadata) -> KVCache:
    """Appends the keys, values and metadata of new tokens to the cache."""
    new = KVCache(*keys_values, metadata)
    if cache is None:
        return new
    return KVCache(
        jnp.concatenate([cache.keys, new.keys], axis=2),
        jnp.concatenate([cache.values, new.values], axis=2),
        TokenMetadata(*(jnp.concatenate(pair, axis=1) for pair in zip(cache.metadata, metadata, strict=True))),
    )


def sown_keys_values(sown: Any) -> tuple[Array, Array]:
    """Keys and values `[layers, batch, tokens, kv_heads, head_dim]` from the collection that the decoder sows."""
    keys, values = sown["cache"]["decoder"]["layers"]["keys_values"][0]
    return keys, values


def first_tokens(cache: KVCache, count: Int[Array, " batch"]) -> KVCache:
    """Hides all but the first `count` tokens of each row's sample, without recomputing anything.

    Context attention is causal, so the remaining keys and values do not depend on the hidden tokens.
    """
    metadata = cache.metadata
    kept = jnp.where(metadata.order < count[:, None], metadata.sample, 0)
    return cache._replace(metadata=metadata._replace(sample=kept))


def fitted(cache: KVCache, slots: int) -> KVCache:
    """Resizes the cache to `slots` slots, by padding or by removing empty slots.

    No row may contain more than `slots` tokens.
    """
    used = cache.metadata.sample > 0
    have = used.shape[1]
    if have == slots:
        return cache
    if have < slots:
        return KVCache(
            _padded(cache.keys, 2, slots - have),
            _padded(cache.values, 2, slots - have),
            TokenMetadata(*(_padded(x, 1, slots - have) for x in cache.metadata)),
        )
    order = jnp.argsort(~used, axis=1, stable=True)[:, :slots]
    return KVCache(
        jnp.take_along_axis(cache.keys, order[None, :, :, None, None], axis=2),
        jnp.take_along_axis(cache.values, order[None, :, :, None, None], axis=2),
        TokenMetadata(*(jnp.take_along_axis(x, order, axis=1) for x in cache.metadata)),
    )


def _padded(x: Array, axis: int, by: int) -> Array:
    return jnp.pad(x, [(0, by if i == axis else 0) for i in range(x.ndim)])

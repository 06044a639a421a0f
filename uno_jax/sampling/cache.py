"""What a model has read before it writes or draws: key-value caches, made once and gone on from."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.attention.metadata import TokenMetadata
from uno_jax.batch import TokenBatch
from uno_jax.models.config import ModelConfig
from uno_jax.models.decoder import Past
from uno_jax.models.unified import UnifiedModel

Params = Any


def read_context(
    params: Params,
    batch: TokenBatch,
    latents: Float[Array, "batch latents latent_size"],
    model: ModelConfig,
    past: Past | None = None,
) -> Past:
    """What every layer must know of a batch, one sample a row, after `past`, if there is any; one forward pass.

    Pure, to be jitted. The slots of `past` come first. Latents are read as they are, at time 0.
    """
    if not batch.understanding.sample.shape[1] + batch.generation.sample.shape[1]:
        return empty_past(len(batch.text_ids), model) if past is None else past
    unified, clean = UnifiedModel(model), jnp.zeros((1, 1))
    _, sown = unified.apply({"params": params}, batch, latents, clean, past, method="read", mutable=["past"])
    metadata = TokenMetadata(
        *(jnp.concatenate(pair, axis=1) for pair in zip(batch.understanding, batch.generation, strict=True))
    )
    return extended(past, sown_keys_values(sown), metadata)


def empty_past(rows: int, model: ModelConfig) -> Past:
    """No tokens at all, in no slots."""
    decoder = model.decoder
    nothing = jnp.zeros((decoder.num_layers, rows, 0, decoder.num_kv_heads, decoder.head_dim), model.compute_dtype)
    return Past(nothing, nothing, TokenMetadata(*[jnp.zeros((rows, 0), jnp.int32)] * len(TokenMetadata._fields)))


def extended(past: Past | None, keys_values: tuple[Array, Array], metadata: TokenMetadata) -> Past:
    """The past with newer tokens after it."""
    new = Past(*keys_values, metadata)
    if past is None:
        return new
    return Past(
        jnp.concatenate([past.keys, new.keys], axis=2),
        jnp.concatenate([past.values, new.values], axis=2),
        TokenMetadata(*(jnp.concatenate(pair, axis=1) for pair in zip(past.metadata, metadata, strict=True))),
    )


def sown_keys_values(sown: Any) -> tuple[Array, Array]:
    """Keys and values `[layers, batch, tokens, kv_heads, head_dim]` out of the collection that the decoder sows."""
    keys, values = sown["past"]["decoder"]["layers"]["keys_values"][0]
    return keys, values


def first_tokens(past: Past, count: Int[Array, " batch"]) -> Past:
    """The past less all but the first `count` tokens of each row's sample; nothing is computed anew.

    What they read is as if the others had never come, because context never looks ahead.
    """
    metadata = past.metadata
    kept = jnp.where(metadata.order < count[:, None], metadata.sample, 0)
    return past._replace(metadata=metadata._replace(sample=kept))


def fitted(past: Past, slots: int) -> Past:
    """The past in that many slots: padded, or with its empty slots closed up.

    No row may hold more than `slots` tokens.
    """
    used = past.metadata.sample > 0
    have = used.shape[1]
    if have == slots:
        return past
    if have < slots:
        return Past(
            _padded(past.keys, 2, slots - have),
            _padded(past.values, 2, slots - have),
            TokenMetadata(*(_padded(x, 1, slots - have) for x in past.metadata)),
        )
    order = jnp.argsort(~used, axis=1, stable=True)[:, :slots]
    return Past(
        jnp.take_along_axis(past.keys, order[None, :, :, None, None], axis=2),
        jnp.take_along_axis(past.values, order[None, :, :, None, None], axis=2),
        TokenMetadata(*(jnp.take_along_axis(x, order, axis=1) for x in past.metadata)),
    )


def _padded(x: Array, axis: int, by: int) -> Array:
    return jnp.pad(x, [(0, by if i == axis else 0) for i in range(x.ndim)])

"""Attention for GPUs that never holds the scores of all pairs: cuDNN's fused attention, or dense attention in parts."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from uno_jax.attention.dense import dense_attention
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible

Implementation = Literal["cudnn", "xla"]
"""Implementations of `jax.nn.dot_product_attention`: cuDNN's kernels, or the same call for every other device."""

FUSED_DTYPES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
"""The dtypes of cuDNN's fused attention."""

LARGEST_HEAD = 128
"""Largest head that cuDNN takes on every GPU that has fused attention. GPUs of compute capability 9.0 take 256."""

HEAD_MULTIPLE = 8
"""Heads of cuDNN are multiples of this size."""

FEWEST_QUERIES = 128
"""With fewer queries, as in the generation of text, scores are few, and cuDNN's blocks of queries would not be full."""

SCORES_AT_ONCE = 2**26
"""Scores of the dense attention of a part of the queries, over all rows and heads: 256 MiB in float32."""

SAVED_PRIMITIVE = "dot_product_attention_fwd_wrapper"
"""JAX's primitive of cuDNN's forward pass. A rematerialisation policy that saves its results runs it once."""


class ValidFirst(NamedTuple):
    """Where the valid keys of each row are."""

    order: Int[Array, "rows keys"]
    """Indices of the keys, valid ones first."""
    length: Int[Array, " rows"]
    """Number of valid keys."""


def valid_first(key: TokenMetadata) -> ValidFirst:
    """Orders the keys of metadata `[rows, keys]` so that padding comes last."""
    valid = key.sample > 0
    order = jnp.argsort(~valid, axis=1, stable=True).astype(jnp.int32)
    return ValidFirst(order, jnp.sum(valid, axis=1, dtype=jnp.int32))


def flash_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys kv_heads head_dim"],
    value: Float[Array, "batch keys kv_heads head_dim"],
    query_metadata: TokenMetadata,
    key_metadata: TokenMetadata,
    keys_seen: ValidFirst | None = None,
    *,
    implementation: Implementation,
) -> Float[Array, "batch queries heads head_dim"]:
    """Equals `dense_attention` with the mask `pairwise_visible(query_metadata, key_metadata)`.

    Metadata is int32 `[batch or 1, tokens or 1]`: one row or token may stand for all. With `keys_seen`, every valid
    query must see every valid key of its row; then no mask is made. `fused_attention` where cuDNN has it, otherwise
    `attention_in_parts`.
    """
    fused = fits(query.dtype, query.shape[3], query.shape[1]) and (implementation == "xla" or on_fused_gpu())
    if fused:
        return fused_attention(query, key, value, query_metadata, key_metadata, keys_seen, implementation)
    return attention_in_parts(query, key, value, query_metadata, key_metadata)


def fits(dtype: jnp.dtype, head_dim: int, queries: int) -> bool:
    """Whether cuDNN's fused attention is for inputs of this dtype, head size and number of queries."""
    return dtype in FUSED_DTYPES and head_dim <= LARGEST_HEAD and queries >= FEWEST_QUERIES


def on_fused_gpu() -> bool:
    """Whether this machine's devices have fused attention. A machine without GPUs compiles for others, which have."""
    return has_fused_attention(getattr(jax.devices()[0], "compute_capability", None))


def has_fused_attention(compute_capability: str | None) -> bool:
    """Whether GPUs of a compute capability, such as `9.0`, have fused attention: from 8.0 on. None: not known, yes.

    GPUs of AMD have names such as `gfx942` in its place, and no cuDNN.
    """
    if compute_capability is None:
        return True
    major = compute_capability.split(".")[0]
    return major.isdigit() and int(major) >= 8


def fused_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys kv_heads head_dim"],
    value: Float[Array, "batch keys kv_heads head_dim"],
    query_metadata: TokenMetadata,
    key_metadata: TokenMetadata,
    keys_seen: ValidFirst | None,
    implementation: Implementation,
) -> Float[Array, "batch queries heads head_dim"]:
    """`flash_attention` by one call of `jax.nn.dot_product_attention`.

    The call gets the numbers of valid keys with `keys_seen`, nothing if one token of metadata stands for all keys,
    otherwise a mask `[batch or 1, 1, queries, keys]`.
    """
    batch, queries, _, head_dim = query.shape
    mask = lengths = None
    seeing: Bool[Array, "#batch #queries"]
    if keys_seen is not None:
        seeing = (query_metadata.sample > 0) & (keys_seen.length > 0)[:, None]
        key, value = (jnp.take_along_axis(x, keys_seen.order[:, :, None, None], axis=1) for x in (key, value))
        lengths = jnp.broadcast_to(jnp.maximum(keys_seen.length, 1), (batch,))
    else:
        seen = pairwise_visible(query_metadata, key_metadata)
        seeing = jnp.any(seen, axis=-1)
        if seen.shape[2] == key.shape[1]:
            # JAX has gradients of masked cuDNN attention for even lengths only.
            more_queries, more_keys = queries % 2, key.shape[1] % 2
            mask = jnp.broadcast_to(seen, (len(seen), queries, seen.shape[2]))[:, None]
            mask = _padded(_padded(mask, 2, more_queries), 3, more_keys)
            query = _padded(query, 1, more_queries)
            key, value = (_padded(x, 1, more_keys) for x in (key, value))
    query, key, value = (_padded(x, 3, -head_dim % HEAD_MULTIPLE) for x in (query, key, value))
    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        key_value_seq_lengths=lengths,
        scale=head_dim**-0.5,
        implementation=implementation,
    )
    # The softmax of a query that sees nothing is a mean over hidden keys.
    return jnp.where(seeing[..., None, None], out[:, :queries, :, :head_dim], 0)


def _padded(x: Array, axis: int, by: int) -> Array:
    return jnp.pad(x, [(0, by if i == axis else 0) for i in range(x.ndim)])


def attention_in_parts(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys kv_heads head_dim"],
    value: Float[Array, "batch keys kv_heads head_dim"],
    query_metadata: TokenMetadata,
    key_metadata: TokenMetadata,
    scores_at_once: int = SCORES_AT_ONCE,
) -> Float[Array, "batch queries heads head_dim"]:
    """`dense_attention` of some queries after others, with at most about `scores_at_once` scores in memory.

    The backward pass computes the scores of each part again.
    """
    batch, queries, heads, head_dim = query.shape
    size = max(scores_at_once // (batch * heads * key.shape[1]), 1)
    if size >= queries:
        return dense_attention(query, key, value, pairwise_visible(query_metadata, key_metadata))
    parts = -(-queries // size)

    def split(x: Array) -> Array:
        """Splits `[rows, queries, ...]` into `[parts, rows, size, ...]`, padded with 0."""
        x = _padded(x, 1, parts * size - queries)
        return jnp.moveaxis(x.reshape(x.shape[0], parts, size, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def attend_part(part: tuple[Array, TokenMetadata]) -> Array:
        return dense_attention(part[0], key, value, pairwise_visible(part[1], key_metadata))

    metadata = TokenMetadata(*(split(jnp.broadcast_to(x, (x.shape[0], queries))) for x in query_metadata))
    out: Array = jnp.moveaxis(jax.lax.map(attend_part, (split(query), metadata)), 0, 1)
    return out.reshape(batch, parts * size, heads, head_dim)[:, :queries]

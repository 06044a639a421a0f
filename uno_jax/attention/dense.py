"""The dense reference attention: every score in memory, masked by `visible`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_HIDDEN_SCORE = -1e30  # finite, so that a token that sees nothing gets a finite (and unused) output


def dense_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys kv_heads head_dim"],
    value: Float[Array, "batch keys kv_heads head_dim"],
    mask: Bool[Array, "batch queries keys"],
) -> Float[Array, "batch queries heads head_dim"]:
    """Grouped-query attention of every query over the keys that its row of the mask lets it see.

    Query head h reads key-value head h // (heads / kv_heads). Scores and softmax are float32; the two products run
    in the dtype of the inputs.
    """
    batch, queries, heads, head_dim = query.shape
    kv_heads, keys = key.shape[2], key.shape[1]
    group = heads // kv_heads
    # One matrix product per (batch, kv head), with the group's heads stacked as rows: [group * queries, keys].
    q = query.reshape(batch, queries, kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)
    q = (q * head_dim**-0.5).reshape(batch, kv_heads, group * queries, head_dim)
    k = key.transpose(0, 2, 1, 3)
    v = value.transpose(0, 2, 1, 3)
    scores = jnp.einsum("bnqd,bnkd->bnqk", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, kv_heads, group, queries, keys)
    scores = jnp.where(mask[:, None, None], scores, _HIDDEN_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    weights = weights.reshape(batch, kv_heads, group * queries, keys)
    out = jnp.einsum("bnqk,bnkd->bnqd", weights, v)
    out = out.reshape(batch, kv_heads, group, queries, head_dim).transpose(0, 3, 1, 2, 4)
    return out.reshape(batch, queries, heads, head_dim)

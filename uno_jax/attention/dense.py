"""The dense reference attention: all scores in memory, masked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_HIDDEN_SCORE = -1e30  # finite, so that the softmax of a query that sees nothing is finite


def dense_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys kv_heads head_dim"],
    value: Float[Array, "batch keys kv_heads head_dim"],
    mask: Bool[Array, "#batch #queries #keys"],
) -> Float[Array, "batch queries heads head_dim"]:
    """Grouped-query attention under a mask that broadcasts over batch, queries and keys.

    Query head h reads key-value head h // (heads / kv_heads). Scores and softmax are float32; the two
    matrix products run in the dtype of the inputs. A query that sees no key gets zeros, and its gradient is zero.
    """
    batch, queries, heads, head_dim = query.shape
    keys, kv_heads = key.shape[1:3]
    group = heads // kv_heads
    mask = jnp.broadcast_to(mask, (batch, queries, keys))
    # One matrix product per (batch, kv head), with the group's heads stacked as rows: [group * queries, keys].
    q = (query * head_dim**-0.5).reshape(batch, queries, kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, kv_heads, group * queries, head_dim)
    out = _attend(q, key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3), mask)
    out = out.reshape(batch, kv_heads, group, queries, head_dim).transpose(0, 3, 1, 2, 4)
    seeing = jnp.any(mask, axis=-1)[..., None, None]
    return jnp.where(seeing, out.reshape(batch, queries, heads, head_dim), 0)


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Attends from scaled `q` `[batch, kv_heads, group * queries, head_dim]` to `k` and `v`.

    Both are `[batch, kv_heads, keys, head_dim]`.
    """
    return _attend_forward(q, k, v, mask)[0]


def _weights(q: Array, k: Array, mask: Array) -> Array:
    """Softmax weights, float32 `[batch, kv_heads, group * queries, keys]`."""
    scores = jnp.einsum("bnqd,bnkd->bnqk", q, k, preferred_element_type=jnp.float32)
    grouped = scores.reshape(*scores.shape[:2], -1, *mask.shape[1:])
    grouped = jnp.where(mask[:, None, None], grouped, _HIDDEN_SCORE)
    return jax.nn.softmax(grouped, axis=-1).reshape(scores.shape)


def _attend_forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, tuple[Array, ...]]:
    weights = _weights(q, k, mask)
    out = jnp.einsum("bnqk,bnkd->bnqd", weights.astype(v.dtype), v)
    return out, (q, k, v, weights, out)


def _attend_backward(saved: tuple[Array, ...], d_out: Array) -> tuple[Array | None, ...]:
    # Written by hand for two reasons: a hidden key has a weight of exactly 0, so its score needs no second mask to get
    # a zero gradient; and sum(weights * d_weights) = sum(out * d_out) saves a pass over the scores.
    q, k, v, weights, out = saved
    low = weights.astype(v.dtype)
    d_v = jnp.einsum("bnqk,bnqd->bnkd", low, d_out)
    d_weights = jnp.einsum("bnqd,bnkd->bnqk", d_out, v, preferred_element_type=jnp.float32)
    mean = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1, keepdims=True)
    d_scores = (weights * (d_weights - mean)).astype(q.dtype)
    d_q = jnp.einsum("bnqk,bnkd->bnqd", d_scores, k)
    d_k = jnp.einsum("bnqk,bnqd->bnkd", d_scores, q)
    return d_q, d_k, d_v, None


_attend.defvjp(_attend_forward, _attend_backward)

"""Attention that never holds a score for every pair of tokens: Pallas kernels for TPU that evaluate `visible` in each
block, and skip blocks in which nothing may be seen.

FlashAttention (Dao, arXiv 2307.08691), with the block map of `block_map.py` and grouped-query heads together in a
block.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from uno_jax.attention.block_map import Blocks, block_states, pad_tokens, visits
from uno_jax.attention.kernel_backward import backward
from uno_jax.attention.kernel_forward import forward
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.process.errors import UserError

# What a rematerialisation policy can keep, so that the backward pass does not run the forward kernel again.
SAVED_NAMES = ("attention_output", "attention_logsumexp")

SCORES_IN_A_BLOCK = 2**19
"""Fewer are too little work for a step of the grid; more, and blocks straddle roles (docs/attention.md)."""

KEY_GRADIENT_BYTES = 24 * 2**20
"""Of float32 gradients of keys and values that stay in VMEM, where they are held twice; the backward pass of more keys
runs in several sweeps."""

MOST_VISITS = (2**20 - 2**14) // 8
"""Visits of all rows, two int32 each, that fit into the scalar memory of a TPU core (1 MiB)."""


class TooManyBlocks(UserError):
    """One device has more rows and tokens than a TPU core can list the blocks of."""


def kernel_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys kv_heads head_dim"],
    value: Float[Array, "batch keys kv_heads head_dim"],
    query_metadata: TokenMetadata,
    key_metadata: TokenMetadata,
    *,
    blocks: Blocks | None = None,
    interpret: bool = False,
) -> Float[Array, "batch queries heads head_dim"]:
    """What `dense_attention` gives with the mask of `pairwise_visible(query_metadata, key_metadata)`.

    Metadata is int32 `[batch or 1, tokens or 1]`: one row or token stands for all. Scores, softmax and sums are
    float32; matrix products run in the dtype of the inputs. `blocks` defaults to `default_blocks`; `interpret`
    runs the kernels without a TPU, slowly.

    Raises:
      TooManyBlocks: the list of visits of so many rows and tokens is more than a TPU core's scalar memory holds.
    """
    batch, queries, heads, head_dim = query.shape
    keys, kv_heads = key.shape[1:3]
    blocks = blocks or default_blocks(queries, keys, heads // kv_heads, head_dim)
    count = batch * -(-queries // blocks.queries) * -(-keys // blocks.keys)
    if count > MOST_VISITS and not interpret:
        raise TooManyBlocks(
            f"attention of {batch} x {queries} queries and {keys} keys on one device: {count:,} blocks of "
            f"{blocks.queries} x {blocks.keys}, expected at most {MOST_VISITS:,} (scalar memory of a TPU core); cut "
            "rows over more devices (mesh.fsdp), queries over mesh.sequence, or make rows shorter (config.data)"
        )
    query_metadata = pad_tokens(_of_all(query_metadata, batch, queries), blocks.queries)
    key_metadata = pad_tokens(_of_all(key_metadata, batch, keys), blocks.keys)
    q = _by_head(query * head_dim**-0.5, query_metadata.sample.shape[1])
    k, v = (_by_head(x, key_metadata.sample.shape[1]) for x in (key, value))
    q = q.reshape(batch, kv_heads, heads // kv_heads, *q.shape[2:])
    states = block_states(query_metadata, key_metadata, blocks)
    out = _attend(
        q, k, v, jnp.stack(query_metadata, axis=1), jnp.stack(key_metadata, axis=2), states, blocks, interpret
    )
    return out.reshape(batch, heads, -1, head_dim).swapaxes(1, 2)[:, :queries]


def default_blocks(queries: int, keys: int, group: int, head_dim: int) -> Blocks:
    """Blocks of at most 512 queries and 512 keys; of half a million scores where a group of heads makes them larger."""
    most_queries = min(2048 // (group * max(head_dim // 128, 1)), 512)
    size = _block(queries, most_queries)
    return Blocks(size, _block(keys, min(SCORES_IN_A_BLOCK // (group * size), 512)))


def _block(tokens: int, most: int) -> int:
    """The multiple of 128 that cuts the tokens into as few blocks as `most` tokens a block do, with least padding."""
    count = -(-tokens // max(most // 128 * 128, 128))
    return -(-tokens // (count * 128)) * 128


def backward_sweeps(key_blocks: int, blocks: Blocks, head_dim: int) -> list[tuple[int, int]]:
    """The sweeps of the backward pass over the blocks of keys: the first block of each, and the one after its last."""
    count = blocks.sweep or max(KEY_GRADIENT_BYTES // (8 * max(head_dim, 128) * blocks.keys), 1)
    return [(first, min(first + count, key_blocks)) for first in range(0, key_blocks, count)]


def _of_all(metadata: TokenMetadata, batch: int, tokens: int) -> TokenMetadata:
    return TokenMetadata(*(jnp.broadcast_to(x, (batch, tokens)) for x in metadata))


def _by_head(x: Array, tokens: int) -> Array:
    """`[batch, tokens, heads, head_dim]` to `[batch, heads, tokens, head_dim]`, padded to that many tokens."""
    return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, tokens - x.shape[1]), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _attend(
    query: Array,
    key: Array,
    value: Array,
    query_metadata: Array,
    key_metadata: Array,
    states: Array,
    blocks: Blocks,
    interpret: bool,
) -> Array:
    return forward(query, key, value, query_metadata, key_metadata, visits(states), blocks, interpret)[0]


def _attend_forward(
    query: Array,
    key: Array,
    value: Array,
    query_metadata: Array,
    key_metadata: Array,
    states: Array,
    blocks: Blocks,
    interpret: bool,
) -> tuple[Array, tuple[Array, ...]]:
    out, logsumexp = forward(query, key, value, query_metadata, key_metadata, visits(states), blocks, interpret)
    out, logsumexp = (checkpoint_name(x, name) for x, name in zip((out, logsumexp), SAVED_NAMES, strict=True))
    return out, (query, key, value, query_metadata, key_metadata, states, out, logsumexp)


def _attend_backward(
    blocks: Blocks, interpret: bool, saved: tuple[Array, ...], d_out: Array
) -> tuple[Array | None, ...]:
    query, key, value, query_metadata, key_metadata, states, out, logsumexp = saved
    mean = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)
    parts = []
    for first, stop in backward_sweeps(states.shape[2], blocks, key.shape[3]):
        here = slice(first * blocks.keys, stop * blocks.keys)
        k, v, of_keys = key[:, :, here], value[:, :, here], key_metadata[:, here]
        seen = visits(states[:, :, first:stop])
        parts.append(backward(query, k, v, d_out, logsumexp, mean, query_metadata, of_keys, seen, blocks, interpret))
    d_queries, d_keys, d_values = zip(*parts, strict=True)
    d_query = d_queries[0] if len(parts) == 1 else sum(x.astype(jnp.float32) for x in d_queries).astype(query.dtype)
    d_key, d_value = (jnp.concatenate(x, axis=2).astype(key.dtype) for x in (d_keys, d_values))
    return d_query, d_key, d_value, None, None, None


_attend.defvjp(_attend_forward, _attend_backward)

"""Pallas attention kernels for TPU that never hold the scores of all pairs of tokens.

They follow FlashAttention-2 (Dao, arXiv 2307.08691), evaluate `visible` in each block, skip the blocks in which nothing
is visible (`block_map.py`), and process the query heads of a key-value head together.
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

# A rematerialisation policy that saves these names keeps the backward pass from running the forward kernel again.
SAVED_NAMES = ("attention_output", "attention_logsumexp")

SCORES_IN_A_BLOCK = 2**19
"""Scores per block. With fewer, a grid step has too little work; with more, blocks mix roles (docs/attention.md)."""

KEY_GRADIENT_BYTES = 24 * 2**20
"""Size limit, in bytes, of the float32 gradients of keys and values in VMEM, which holds them twice.

The backward pass over more keys runs in several sweeps.
"""

MAX_VISITS = (2**20 - 2**14) // 8
"""Maximum number of visits, two int32 each over all rows, in the scalar memory of a TPU core (1 MiB)."""


class TooManyBlocks(UserError):
    """The block map of one device exceeds the scalar memory of a TPU core."""


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
    """Equals `dense_attention` with the mask `pairwise_visible(query_metadata, key_metadata)`.

    Metadata is int32 `[batch or 1, tokens or 1]`: one row or token may stand for all. Scores, softmax and sums are
    float32; matrix products run in the dtype of the inputs. `blocks` defaults to `default_blocks`; `interpret`
    runs the kernels without a TPU, slowly.

    Raises:
      TooManyBlocks: the list of visits exceeds the scalar memory of a TPU core.
    """
    batch, queries, heads, head_dim = query.shape
    keys, kv_heads = key.shape[1:3]
    blocks = blocks or default_blocks(queries, keys, heads // kv_heads, head_dim)
    count = batch * -(-queries // blocks.queries) * -(-keys // blocks.keys)
    if count > MAX_VISITS and not interpret:
        raise TooManyBlocks(
            f"attention of {batch} x {queries} queries and {keys} keys on one device has {count:,} blocks of "
            f"{blocks.queries} x {blocks.keys}: expected at most {MAX_VISITS:,} (scalar memory of a TPU core). Shard "
            "rows over more devices (mesh.fsdp), shard queries over mesh.sequence, or shorten the rows (config.data)"
        )
    query_metadata = pad_tokens(_broadcast(query_metadata, batch, queries), blocks.queries)
    key_metadata = pad_tokens(_broadcast(key_metadata, batch, keys), blocks.keys)
    q = _by_head(query * head_dim**-0.5, query_metadata.sample.shape[1])
    k, v = (_by_head(x, key_metadata.sample.shape[1]) for x in (key, value))
    q = q.reshape(batch, kv_heads, heads // kv_heads, *q.shape[2:])
    states = block_states(query_metadata, key_metadata, blocks)
    out = _attend(
        q, k, v, jnp.stack(query_metadata, axis=1), jnp.stack(key_metadata, axis=2), states, blocks, interpret
    )
    return out.reshape(batch, heads, -1, head_dim).swapaxes(1, 2)[:, :queries]


def default_blocks(queries: int, keys: int, group: int, head_dim: int) -> Blocks:
    """Chooses blocks of at most 512 queries and 512 keys, and at most `SCORES_IN_A_BLOCK` scores per group of heads."""
    max_queries = min(2048 // (group * max(head_dim // 128, 1)), 512)
    size = _block(queries, max_queries)
    return Blocks(size, _block(keys, min(SCORES_IN_A_BLOCK // (group * size), 512)))


def _block(tokens: int, maximum: int) -> int:
    """The multiple of 128 with the least padding that needs no more blocks than `maximum` tokens per block."""
    count = -(-tokens // max(maximum // 128 * 128, 128))
    return -(-tokens // (count * 128)) * 128


def backward_sweeps(key_blocks: int, blocks: Blocks, head_dim: int) -> list[tuple[int, int]]:
    """Sweeps of the backward pass over the key blocks, as (first, stop) pairs."""
    count = blocks.sweep or max(KEY_GRADIENT_BYTES // (8 * max(head_dim, 128) * blocks.keys), 1)
    return [(first, min(first + count, key_blocks)) for first in range(0, key_blocks, count)]


def _broadcast(metadata: TokenMetadata, batch: int, tokens: int) -> TokenMetadata:
    return TokenMetadata(*(jnp.broadcast_to(x, (batch, tokens)) for x in metadata))


def _by_head(x: Array, tokens: int) -> Array:
    """Transposes `[batch, tokens, heads, head_dim]` to `[batch, heads, tokens, head_dim]` and pads to `tokens`."""
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

"""The block map: which pairs of query and key blocks the kernel visits, and which of them need a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from uno_jax.attention.metadata import TokenMetadata, pairwise_visible

# How many of the pairs in a query block and a key block are visible.
NOTHING, SOMETHING, EVERYTHING = 0, 1, 2


@dataclass(frozen=True)
class Blocks:
    """Sizes of the kernel's blocks, in tokens."""

    queries: int
    keys: int
    sweep: int = 0
    """Key blocks in one sweep of the backward pass. 0: as many as have gradients that fit into VMEM."""


class Visits(NamedTuple):
    """For each query block, its key blocks in the order in which the kernel visits them; int32.

    Blocks with nothing visible come last. They repeat the index of the last visited block, so that they are neither
    computed nor fetched.
    """

    key_block: Int[Array, "rows query_blocks key_blocks"]
    state: Int[Array, "rows query_blocks key_blocks"]
    """NOTHING, SOMETHING or EVERYTHING."""


def block_states(
    query: TokenMetadata, key: TokenMetadata, blocks: Blocks
) -> Int[Array, "rows query_blocks key_blocks"]:
    """Classifies every block exactly, by `visible`, as NOTHING, SOMETHING or EVERYTHING.

    Metadata is `[rows, tokens]`, padded to a multiple of the block sizes. Works on one query block at a time, so that
    no array is tokens x tokens.
    """
    rows, queries = query.sample.shape
    keys = key.sample.shape[1]

    def of_query_block(start: Array) -> Array:
        block = TokenMetadata(*(jax.lax.dynamic_slice_in_dim(x, start, blocks.queries, axis=1) for x in query))
        seen = pairwise_visible(block, key).reshape(rows, blocks.queries, keys // blocks.keys, blocks.keys)
        return jnp.any(seen, axis=(1, 3)).astype(jnp.int32) + jnp.all(seen, axis=(1, 3)).astype(jnp.int32)

    states: Array = jax.lax.map(of_query_block, jnp.arange(0, queries, blocks.queries))
    return states.swapaxes(0, 1)


def visits(states: Int[Array, "rows query_blocks key_blocks"]) -> Visits:
    """Orders the visits so that blocks with nothing visible are skipped."""
    key_block = jnp.argsort(states == NOTHING, axis=-1, stable=True).astype(jnp.int32)
    state = jnp.take_along_axis(states, key_block, axis=-1)
    count = jnp.sum(states != NOTHING, axis=-1, keepdims=True)
    last = jnp.take_along_axis(key_block, jnp.maximum(count - 1, 0), axis=-1)
    return Visits(jnp.where(state == NOTHING, last, key_block), state)


def visited_share(query: TokenMetadata, key: TokenMetadata, blocks: Blocks) -> Float[Array, ""]:
    """Fraction of all blocks (including padding to the block size) that the kernel computes."""
    states = block_states(pad_tokens(query, blocks.queries), pad_tokens(key, blocks.keys), blocks)
    return jnp.mean(states != NOTHING)


def pad_tokens(metadata: TokenMetadata, multiple: int) -> TokenMetadata:
    """Pads metadata `[rows, tokens]` to a multiple of `multiple` tokens."""
    missing = -metadata.sample.shape[1] % multiple
    return TokenMetadata(*(jnp.pad(jnp.asarray(x), ((0, 0), (0, missing))) for x in metadata))

"""Shared by the forward and backward kernels: block specs, the mask of a block, and the cost estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool

from uno_jax.attention.block_map import Blocks, Visits
from uno_jax.attention.metadata import TokenMetadata, visible

HIDDEN_SCORE = -1e30  # finite, so that differences of hidden scores are not NaN

VMEM_LIMIT = 60 * 2**20  # v5p has 64 MiB, v5e and v6e 128


@dataclass(frozen=True)
class BlockSpecs:
    """Block specs of each kind of array on the grid (batch, kv_heads, query blocks, visits)."""

    visits: Visits
    group: int
    head_dim: int
    blocks: Blocks

    def _key_block(self, row: Any, block: Any, visit: Any, key_blocks: Any) -> Any:
        _, query_blocks, visits = self.visits.state.shape
        return key_blocks[(row * query_blocks + block) * visits + visit]

    @property
    def query(self) -> pl.BlockSpec:
        """Block of `[batch, kv_heads, group, queries, head_dim]`."""
        return pl.BlockSpec(
            (None, None, self.group, self.blocks.queries, self.head_dim), lambda b, n, i, j, *_: (b, n, 0, i, 0)
        )

    @property
    def statistics(self) -> pl.BlockSpec:
        """Block of `[batch, kv_heads, group, queries]`."""
        return pl.BlockSpec((None, None, self.group, self.blocks.queries), lambda b, n, i, j, *_: (b, n, 0, i))

    @property
    def key(self) -> pl.BlockSpec:
        """The visited block of `[batch, kv_heads, keys, head_dim]`."""
        return pl.BlockSpec(
            (None, None, self.blocks.keys, self.head_dim),
            lambda b, n, i, j, key_blocks, _: (b, n, self._key_block(b, i, j, key_blocks), 0),
        )

    @property
    def query_metadata(self) -> pl.BlockSpec:
        """Block of `[batch, fields, queries]`."""
        return pl.BlockSpec((None, len(FIELDS), self.blocks.queries), lambda b, n, i, j, *_: (b, 0, i))

    @property
    def key_metadata(self) -> pl.BlockSpec:
        """The visited block of `[batch, keys, fields]`."""
        return pl.BlockSpec(
            (None, self.blocks.keys, len(FIELDS)),
            lambda b, n, i, j, key_blocks, _: (b, self._key_block(b, i, j, key_blocks), 0),
        )


FIELDS = TokenMetadata._fields


def mask_of(query_metadata: Any, key_metadata: Any) -> Bool[Array, "keys queries"]:
    """Evaluates `visible` on a block, with keys along sublanes and queries along lanes."""
    shape = (key_metadata.shape[0], query_metadata.shape[1])
    query = (jnp.broadcast_to(query_metadata[i : i + 1, :], shape) for i in range(len(FIELDS)))
    key = (jnp.broadcast_to(key_metadata[:, i : i + 1], shape) for i in range(len(FIELDS)))
    mask: Array = visible(TokenMetadata(*query), TokenMetadata(*key))
    return mask


def contract(first: Array, second: Array, first_axis: int, second_axis: int) -> Array:
    """Matrix product over one axis of each operand, accumulated in float32."""
    dimensions = (((first_axis,), (second_axis,)), ((), ()))
    return jax.lax.dot_general(first, second, dimensions, preferred_element_type=jnp.float32)


def cost(products: int, read: Sequence[Any], written: Sequence[Any], keys: int) -> pl.CostEstimate:
    """Cost of a kernel that visits every block, with `products` matrix products per pair; `read[0]` is the query."""
    pairs = prod(read[0].shape[:-1]) * keys
    return pl.CostEstimate(
        flops=2 * products * pairs * read[0].shape[-1],
        transcendentals=pairs,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in (*read, *written)),
    )

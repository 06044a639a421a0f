"""The forward pass of the attention kernel: an online softmax over the key blocks of a query block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from uno_jax.attention.block_map import EVERYTHING, SOMETHING, Blocks, Visits
from uno_jax.attention.kernel_block import HIDDEN_SCORE, VMEM_LIMIT, BlockSpecs, contract, cost, mask_of


def forward(
    query: Float[Array, "batch kv_heads group queries head_dim"],
    key: Float[Array, "batch kv_heads keys head_dim"],
    value: Float[Array, "batch kv_heads keys head_dim"],
    query_metadata: Int[Array, "batch fields queries"],
    key_metadata: Int[Array, "batch keys fields"],
    visits: Visits,
    blocks: Blocks,
    interpret: bool,
) -> tuple[
    Float[Array, "batch kv_heads group queries head_dim"],
    Float[Array, "batch kv_heads group queries"],
]:
    """Attention in the dtype of `query` (already scaled), and the float32 log-sum-exp of each query's scores.

    Tokens are padded to whole blocks. A query that sees nothing gets zeros and log-sum-exp 0.
    """
    batch, kv_heads, group, queries, head_dim = query.shape
    specs = BlockSpecs(visits, group, head_dim, blocks)
    statistics = jax.ShapeDtypeStruct(query.shape[:-1], jnp.float32)
    call: Callable[..., tuple[Array, Array]] = pl.pallas_call(
        _kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, kv_heads, *visits.state.shape[1:]),
            in_specs=[specs.query_metadata, specs.key_metadata, specs.query, specs.key, specs.key],
            out_specs=[specs.query, specs.statistics],
            scratch_shapes=[
                pltpu.VMEM((group, blocks.queries), jnp.float32),
                pltpu.VMEM((group, blocks.queries), jnp.float32),
                pltpu.VMEM((group, head_dim, blocks.queries), jnp.float32),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(query.shape, query.dtype), statistics],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM_LIMIT
        ),
        cost_estimate=cost(2, (query, key, value), (query, statistics), keys=key.shape[2]),
        interpret=interpret,
        name="attention_forward",
    )
    return call(visits.key_block.reshape(-1), visits.state.reshape(-1), query_metadata, key_metadata, query, key, value)


def _kernel(
    key_blocks: Any,
    states: Any,
    query_metadata: Any,
    key_metadata: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    logsumexp: Any,
    highest: Any,
    total: Any,
    summed: Any,
) -> None:
    """One visit. Scores are laid out keys x queries, so that statistics of queries lie along lanes.

    Float32 scratch over the visits of a query block: the running maximum `highest` and weight sum `total`
    `[group, queries]`, and the weighted values `summed` `[group, head_dim, queries]`.
    """
    del key_blocks
    row, block, visit = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    blocks, visits = pl.num_programs(2), pl.num_programs(3)
    state = states[(row * blocks + block) * visits + visit]

    @pl.when(visit == 0)
    def _start() -> None:
        highest[...] = jnp.full_like(highest, HIDDEN_SCORE)
        total[...] = jnp.zeros_like(total)
        summed[...] = jnp.zeros_like(summed)

    def add(mask: Array | None) -> None:
        for head in range(query.shape[0]):
            scores = contract(key[...], query[head], 1, 1)
            if mask is not None:
                scores = jnp.where(mask, scores, HIDDEN_SCORE)
            before = highest[head : head + 1]
            now = jnp.maximum(before, jnp.max(scores, axis=0, keepdims=True))
            # Until a query sees a key, its hidden keys have weight 1 each. The first visible key has a score so much
            # higher that `shrink` is 0 and removes them.
            weights, shrink = jnp.exp(scores - now), jnp.exp(before - now)
            highest[head : head + 1] = now
            total[head : head + 1] = shrink * total[head : head + 1] + jnp.sum(weights, axis=0, keepdims=True)
            summed[head] = shrink * summed[head] + contract(value[...], weights.astype(value.dtype), 0, 0)

    @pl.when(state == SOMETHING)
    def _add_some() -> None:
        add(mask_of(query_metadata, key_metadata))

    @pl.when(state == EVERYTHING)
    def _add_all() -> None:
        add(None)

    @pl.when(visit == visits - 1)
    def _finish() -> None:
        seen = highest[...] > HIDDEN_SCORE / 2
        divisor = jnp.where(seen, total[...], 1.0)
        scale = jnp.where(seen, 1.0 / divisor, 0.0)
        logsumexp[...] = jnp.where(seen, highest[...] + jnp.log(divisor), 0.0)
        for head in range(query.shape[0]):
            out[head] = (summed[head] * scale[head : head + 1]).T.astype(out.dtype)

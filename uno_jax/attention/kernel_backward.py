"""The backward pass of the attention kernel: one sweep computes the gradients of queries, keys and values."""

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


def backward(
    query: Float[Array, "batch kv_heads group queries head_dim"],
    key: Float[Array, "batch kv_heads keys head_dim"],
    value: Float[Array, "batch kv_heads keys head_dim"],
    d_out: Float[Array, "batch kv_heads group queries head_dim"],
    logsumexp: Float[Array, "batch kv_heads group queries"],
    mean: Float[Array, "batch kv_heads group queries"],
    query_metadata: Int[Array, "batch fields queries"],
    key_metadata: Int[Array, "batch keys fields"],
    visits: Visits,
    blocks: Blocks,
    interpret: bool,
) -> tuple[
    Float[Array, "batch kv_heads group queries head_dim"],
    Float[Array, "batch kv_heads keys head_dim"],
    Float[Array, "batch kv_heads keys head_dim"],
]:
    """Gradients with respect to query (in its dtype), key and value (float32).

    `logsumexp` comes from `forward`. `mean` is sum(out * d_out) per query, the mean gradient under its attention
    weights.
    """
    batch, kv_heads, group, queries, head_dim = query.shape
    specs = BlockSpecs(visits, group, head_dim, blocks)
    # All keys of a head stay in VMEM while its query blocks stream through: there are `group` times fewer of them.
    all_keys = pl.BlockSpec((None, None, key.shape[2], head_dim), lambda b, n, i, j, *_: (b, n, 0, 0))
    gradients = [jax.ShapeDtypeStruct(query.shape, query.dtype)]
    gradients += [jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (key, value)]
    call: Callable[..., tuple[Array, Array, Array]] = pl.pallas_call(
        _kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, kv_heads, *visits.state.shape[1:]),
            in_specs=[
                specs.query_metadata,
                specs.key_metadata,
                specs.query,
                specs.key,
                specs.key,
                specs.query,
                specs.statistics,
                specs.statistics,
            ],
            out_specs=[specs.query, all_keys, all_keys],
            scratch_shapes=[pltpu.VMEM((group, blocks.queries, head_dim), jnp.float32)],
        ),
        out_shape=gradients,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=VMEM_LIMIT
        ),
        cost_estimate=cost(5, (query, key, value, d_out, logsumexp, mean), gradients, keys=key.shape[2]),
        interpret=interpret,
        name="attention_backward",
    )
    return call(
        visits.key_block.reshape(-1),
        visits.state.reshape(-1),
        query_metadata,
        key_metadata,
        query,
        key,
        value,
        d_out,
        logsumexp,
        mean,
    )


def _kernel(
    key_blocks: Any,
    states: Any,
    query_metadata: Any,
    key_metadata: Any,
    query: Any,
    key: Any,
    value: Any,
    d_out: Any,
    logsumexp: Any,
    mean: Any,
    d_query: Any,
    d_key: Any,
    d_value: Any,
    d_query_sum: Any,
) -> None:
    """One visit. Scores are laid out keys x queries, as in the forward pass. Scratch sums up `d_query` in float32."""
    row, block, visit = pl.program_id(0), pl.program_id(2), pl.program_id(3)
    blocks, visits = pl.num_programs(2), pl.num_programs(3)
    place = (row * blocks + block) * visits + visit
    state = states[place]
    keys = key.shape[0]
    here = pl.ds(key_blocks[place] * keys, keys)

    @pl.when((block == 0) & (visit == 0))
    def _start() -> None:
        d_key[...] = jnp.zeros_like(d_key)
        d_value[...] = jnp.zeros_like(d_value)

    @pl.when(visit == 0)
    def _start_queries() -> None:
        d_query_sum[...] = jnp.zeros_like(d_query_sum)

    def add(mask: Array | None) -> None:
        d_k = jnp.zeros(key.shape, jnp.float32)
        d_v = jnp.zeros(key.shape, jnp.float32)
        for head in range(query.shape[0]):
            scores = contract(key[...], query[head], 1, 1)
            if mask is not None:
                scores = jnp.where(mask, scores, HIDDEN_SCORE)
            weights = jnp.exp(scores - logsumexp[head : head + 1])
            d_weights = contract(value[...], d_out[head], 1, 1)
            d_scores = (weights * (d_weights - mean[head : head + 1])).astype(query.dtype)
            d_v += contract(weights.astype(d_out.dtype), d_out[head], 1, 0)
            d_k += contract(d_scores, query[head], 1, 0)
            d_query_sum[head] += contract(d_scores, key[...], 0, 0)
        d_key[here, :] += d_k
        d_value[here, :] += d_v

    @pl.when(state == SOMETHING)
    def _add_some() -> None:
        add(mask_of(query_metadata, key_metadata))

    @pl.when(state == EVERYTHING)
    def _add_all() -> None:
        add(None)

    @pl.when(visit == visits - 1)
    def _finish_queries() -> None:
        d_query[...] = d_query_sum[...].astype(d_query.dtype)

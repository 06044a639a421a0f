"""Inputs of attention over the tokens of made-up plans, and its results by the dense reference."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers.made_up_plans import batch_of
from tests.helpers.small_model import quick_jit
from uno_jax.attention.dense import dense_attention
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 8
CAPACITIES = {"text": 45, "vit": 15, "caption": 20, "query": 20, "latent": 25}
TOKENS = sum(CAPACITIES.values())
"""Tokens of a row."""


def metadata_of(*rows, capacities=CAPACITIES) -> TokenMetadata:
    """Metadata of rows of plans, both buffers concatenated."""
    batch = batch_of(*rows, capacities=capacities)
    return TokenMetadata(
        *(jnp.concatenate(pair, axis=1) for pair in zip(batch.understanding, batch.generation, strict=True))
    )


def inputs(rows: int, queries: int, keys: int, heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM) -> list:
    """Random query, key, value, and gradient of the output."""
    draws = jax.random.split(jax.random.key(0), 4)
    sizes = ((queries, heads), (keys, kv_heads), (keys, kv_heads), (queries, heads))
    return [jax.random.normal(k, (rows, *size, head_dim)) for k, size in zip(draws, sizes, strict=True)]


@quick_jit
def by_reference(arrays, query: TokenMetadata, key: TokenMetadata):
    """Output and gradients with respect to query, key and value."""
    *arrays, d_out = arrays
    out, pull_back = jax.vjp(lambda *a: dense_attention(*a, pairwise_visible(query, key)), *arrays)
    return out, *pull_back(d_out)


def assert_same(actual, expected, **tolerance) -> None:
    """Checks an output and three gradients."""
    for name, a, e in zip(("output", "d_query", "d_key", "d_value"), actual, expected, strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_allclose(a, e, **{"rtol": 1e-4, "atol": 2e-6, **tolerance}, err_msg=name)

"""The attention kernel in interpret mode against dense attention: outputs and gradients, on any mask of plans."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from tests.helpers.attention_inputs import TOKENS, assert_same, by_reference, inputs, metadata_of
from tests.helpers.made_up_plans import NAMED, ROOMY, SECOND_ROUND, TEXT_TO_IMAGE, plans
from tests.helpers.small_model import quick_jit
from uno_jax.attention.block_map import EVERYTHING, NOTHING, Blocks, block_states, pad_tokens, visits
from uno_jax.attention.kernel import (
    KEY_GRADIENT_BYTES,
    TooManyBlocks,
    backward_sweeps,
    default_blocks,
    kernel_attention,
)
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible, whole_images
from uno_jax.models.decoder import REMAT_POLICIES
from uno_jax.planning.executed import executed_flops

BLOCKS = Blocks(queries=16, keys=24)  # rows of 125 tokens are a multiple of neither
rows = st.lists(plans(most_items=2), max_size=1)


@functools.partial(quick_jit, static_argnames="blocks")
def by_kernel(arrays, query: TokenMetadata, key: TokenMetadata, blocks=BLOCKS):
    """Output and gradients with respect to query, key and value."""
    *arrays, d_out = arrays
    out, pull_back = jax.vjp(lambda *a: kernel_attention(*a, query, key, blocks=blocks, interpret=True), *arrays)
    return out, *pull_back(d_out)


def check(query: TokenMetadata, key: TokenMetadata, **sizes) -> None:
    arrays = inputs(*query.sample.shape, key.sample.shape[1], **sizes)
    assert_same(by_kernel(arrays, query, key), by_reference(arrays, query, key))


@settings(max_examples=25)
@given(first=rows, second=rows)
def test_outputs_and_gradients_equal_the_reference_on_any_mix_of_plans(first, second):
    metadata = metadata_of(first, second)
    check(metadata, metadata)


@pytest.mark.slow
@settings(max_examples=60)
@given(rows=st.lists(st.lists(plans(most_items=3), max_size=3), min_size=3, max_size=3))
def test_outputs_and_gradients_equal_the_reference_on_many_packed_rows(rows):
    metadata = metadata_of(*rows, capacities=dict.fromkeys(ROOMY, 110))
    check(metadata, metadata)


def test_outputs_and_gradients_equal_the_reference_on_the_named_plans():
    metadata = metadata_of(NAMED[:2], NAMED[2:])
    check(metadata, metadata)


def test_queries_and_keys_may_be_different_tokens():
    """In sampling, a noised block attends over a KV cache that does not contain it."""
    metadata = metadata_of((TEXT_TO_IMAGE, SECOND_ROUND), (SECOND_ROUND,))
    check(TokenMetadata(*(x[:, 90:] for x in metadata)), metadata)


def test_a_query_that_sees_nothing_gives_zeros_and_gets_no_gradient():
    metadata = metadata_of((), (TEXT_TO_IMAGE,))
    out, d_query, d_key, d_value = by_kernel(inputs(2, TOKENS, TOKENS), metadata, metadata)
    padding = np.asarray(metadata.sample) == 0
    assert padding[0].all()
    assert padding[1].any()
    for array in (out, d_query, d_key, d_value):
        assert not np.asarray(array)[padding].any()
        assert np.isfinite(array).all()


@pytest.mark.parametrize("head_dim", [72, 128])
def test_packed_images_equal_the_reference_at_the_vision_encoder_head_size(head_dim):
    image = whole_images(jnp.array([[1] * 20 + [2] * 21 + [0] * 4, [0] * 45]))
    check(image, image, heads=2, kv_heads=2, head_dim=head_dim)


def test_one_metadata_token_stands_for_all_tokens_of_the_autoencoder():
    everything = whole_images(jnp.ones((1, 1), int))
    arrays = inputs(2, 50, 50, heads=1, kv_heads=1, head_dim=64)
    assert_same(by_kernel(arrays, everything, everything), by_reference(arrays, everything, everything))


def test_bfloat16_differs_from_float32_by_rounding():
    metadata = metadata_of((SECOND_ROUND, TEXT_TO_IMAGE))
    rounded = [x.astype(jnp.bfloat16) for x in inputs(1, TOKENS, TOKENS)]
    low = by_kernel(rounded, metadata, metadata)
    exact = by_reference([x.astype(jnp.float32) for x in rounded], metadata, metadata)
    assert {x.dtype for x in low} == {jnp.dtype(jnp.bfloat16)}
    for a, e in zip(low, exact, strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - e) < 2**-6 * np.linalg.norm(e)


def test_several_sweeps_over_the_keys_equal_the_reference():
    metadata = metadata_of((SECOND_ROUND,))
    arrays = inputs(*metadata.sample.shape, metadata.sample.shape[1])
    blocks = dataclasses.replace(BLOCKS, sweep=2)
    assert_same(by_kernel(arrays, metadata, metadata, blocks=blocks), by_reference(arrays, metadata, metadata))


def test_a_sweep_holds_the_keys_whose_gradients_fit_into_vmem():
    keys = 2 * KEY_GRADIENT_BYTES // (8 * 128 * 512) + 1
    sizes = [stop - first for first, stop in backward_sweeps(keys, Blocks(512, 512), head_dim=128)]
    assert sizes == [keys // 2, keys // 2, 1]


# The block map


def slow_states(query: TokenMetadata, key: TokenMetadata, blocks: Blocks) -> np.ndarray:
    seen = np.asarray(pairwise_visible(query, key))
    return np.array(
        [
            [
                [int(part.any()) + int(part.all()) for part in np.split(line, line.shape[1] // blocks.keys, axis=1)]
                for line in np.split(row, row.shape[0] // blocks.queries)
            ]
            for row in seen
        ]
    )


def test_a_block_is_visited_if_and_only_if_something_in_it_is_visible():
    metadata = metadata_of((SECOND_ROUND, TEXT_TO_IMAGE), ())
    query, key = pad_tokens(metadata, BLOCKS.queries), pad_tokens(metadata, BLOCKS.keys)
    states = block_states(query, key, BLOCKS)
    np.testing.assert_array_equal(states, slow_states(query, key, BLOCKS))
    assert len(np.unique(states)) > 1


def test_blocks_with_nothing_visible_come_last_and_are_not_fetched():
    states = jnp.array([[[0, 1, 0, 2], [0, 0, 0, 0]]])
    key_block, state = visits(states)
    np.testing.assert_array_equal(state, [[[1, 2, 0, 0], [0, 0, 0, 0]]])
    np.testing.assert_array_equal(key_block, [[[1, 3, 3, 3], [0, 0, 0, 0]]])


def test_a_hidden_block_is_not_computed():
    """NaN in the keys of another sample would spread if their block were computed."""
    image = whole_images(jnp.array([[1] * 48 + [2] * (TOKENS - 48)] * 2))
    query, key, value, d_out = inputs(2, TOKENS, TOKENS)
    poisoned = [query, key.at[:, 48:].set(jnp.nan), value.at[:, 48:].set(jnp.nan), d_out]
    out, d_query, *_ = by_kernel(poisoned, image, image)
    assert np.isfinite(out[:, :48]).all()
    assert np.isfinite(d_query[:, :48]).all()


def test_fully_visible_blocks_need_no_mask():
    image = whole_images(jnp.ones((1, 48), int))
    assert (block_states(image, image, BLOCKS) == EVERYTHING).all()
    nobody = whole_images(jnp.zeros((1, 48), int))
    assert (block_states(nobody, nobody, BLOCKS) == NOTHING).all()


@pytest.mark.parametrize("tokens", [1, 128, 700, 4868, 19472])
def test_default_blocks_are_multiples_of_the_lanes_with_little_padding(tokens):
    blocks = default_blocks(tokens, tokens, group=7, head_dim=128)
    for size in (blocks.queries, blocks.keys):
        assert size % 128 == 0
        assert -tokens % size < max(128 * -(-tokens // size), 128)


def test_more_visits_than_fit_into_scalar_memory_raise_an_error():
    tokens = jax.ShapeDtypeStruct((2, 65536, 1, 128), jnp.bfloat16)
    metadata = TokenMetadata(*[jax.ShapeDtypeStruct((2, 65536), jnp.int32)] * len(TokenMetadata._fields))
    blocks = Blocks(256, 256)
    with pytest.raises(TooManyBlocks, match=r"2 x 65536 queries and 65536 keys.* 131,072 blocks.* at most 129,024"):
        jax.eval_shape(functools.partial(kernel_attention, blocks=blocks), tokens, tokens, tokens, metadata, metadata)


def test_no_array_holds_a_score_for_every_pair_of_tokens():
    """Checks every array outside the kernels in the traced forward and backward program."""
    tokens = 2048
    image = jnp.ones((1, tokens), jnp.int32)
    arrays = [jnp.zeros((1, tokens, 2, 8))] * 3

    def loss(*arrays):
        return jnp.sum(kernel_attention(*arrays, whole_images(image), whole_images(image), interpret=True))

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name != "pallas_call":
                yield from (variable.aval.size for variable in equation.outvars)
                for inner in jaxprs_in_params(equation.params):
                    yield from sizes(inner)

    assert max(sizes(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*arrays).jaxpr)) < tokens * tokens / 2


@pytest.mark.parametrize(("policy", "times"), [("full", 2), ("save_attention", 1), ("dots", 1)])
def test_a_remat_policy_can_save_the_kernel_output_for_the_backward_pass(policy, times):
    image = whole_images(jnp.ones((1, 128), jnp.int32))

    def attention(x):
        x = jnp.sin(x)
        return kernel_attention(x, x, x, image, image, interpret=True)

    def forward_flops(function):
        jaxpr = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(function(x) ** 2)))(jnp.zeros((1, 128, 2, 8)))
        return executed_flops(jaxpr).by_source["attention_forward"]

    again = jax.checkpoint(attention, policy=REMAT_POLICIES[policy])
    assert forward_flops(again) == times * forward_flops(attention)

"""Attention for GPUs against dense attention: outputs and gradients, on any mask of plans.

The same call runs on a CPU by its XLA implementation. What a GPU would get is seen in the program lowered for CUDA
(`flash_lowering_test.py`).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.attention_inputs import TOKENS, assert_same, by_reference, inputs, metadata_of
from tests.helpers.made_up_plans import NAMED, SECOND_ROUND, TEXT_TO_IMAGE, plans
from tests.helpers.small_model import quick_jit
from uno_jax.attention.attend import attend, chosen, visibility
from uno_jax.attention.dense import dense_attention
from uno_jax.attention.flash import (
    FEWEST_QUERIES,
    LARGEST_HEAD,
    attention_in_parts,
    fits,
    fused_attention,
    has_fused_attention,
    valid_first,
)
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible, whole_images

rows = st.lists(plans(most_items=2), max_size=1)


def results(attention, arrays):
    """Output and gradients with respect to query, key and value."""
    *arrays, d_out = arrays
    out, pull_back = jax.vjp(attention, *arrays)
    return out, *pull_back(d_out)


@functools.partial(quick_jit, static_argnames="all_valid")
def fused(arrays, query: TokenMetadata, key: TokenMetadata, all_valid: bool = False):
    keys_seen = valid_first(key) if all_valid else None
    return results(lambda *a: fused_attention(*a, query, key, keys_seen, "xla"), arrays)


@functools.partial(quick_jit, static_argnames="scores_at_once")
def in_parts(arrays, query: TokenMetadata, key: TokenMetadata, scores_at_once: int = 4 * TOKENS * 16):
    return results(lambda *a: attention_in_parts(*a, query, key, scores_at_once), arrays)


def check(query: TokenMetadata, key: TokenMetadata, **sizes) -> None:
    arrays = inputs(*query.sample.shape, key.sample.shape[1], **sizes)
    expected = by_reference(arrays, query, key)
    assert_same(fused(arrays, query, key), expected)
    assert_same(in_parts(arrays, query, key), expected)


@settings(max_examples=25)
@given(first=rows, second=rows)
def test_outputs_and_gradients_equal_the_reference_on_any_mix_of_plans(first, second):
    metadata = metadata_of(first, second)
    check(metadata, metadata)


def test_outputs_and_gradients_equal_the_reference_on_the_named_plans():
    metadata = metadata_of(NAMED[:2], NAMED[2:])
    check(metadata, metadata)


def test_queries_and_keys_may_be_different_tokens():
    metadata = metadata_of((TEXT_TO_IMAGE, SECOND_ROUND), (SECOND_ROUND,))
    check(TokenMetadata(*(x[:, 90:] for x in metadata)), metadata)


@pytest.mark.parametrize("attention", [fused, in_parts])
def test_a_query_that_sees_nothing_gives_zeros_and_gets_no_gradient(attention):
    metadata = metadata_of((), (TEXT_TO_IMAGE,))
    padding = np.asarray(metadata.sample) == 0
    assert padding[0].all()
    assert padding[1].any()
    for array in attention(inputs(2, TOKENS, TOKENS), metadata, metadata):
        assert not np.asarray(array)[padding].any()
        assert np.isfinite(array).all()


@pytest.mark.parametrize("head_dim", [12, 72, 128])
def test_packed_images_equal_the_reference_at_the_vision_encoder_head_size(head_dim):
    image = whole_images(jnp.array([[1] * 20 + [2] * 21 + [0] * 4, [0] * 45]))
    check(image, image, heads=2, kv_heads=2, head_dim=head_dim)


def test_one_metadata_token_stands_for_all_tokens_of_the_autoencoder():
    everything = whole_images(jnp.ones((1, 1), int))
    arrays = inputs(2, 50, 50, heads=1, kv_heads=1, head_dim=64)
    expected = by_reference(arrays, everything, everything)
    assert_same(fused(arrays, everything, everything), expected)
    assert_same(in_parts(arrays, everything, everything, scores_at_once=1000), expected)


def test_lengths_of_valid_keys_are_enough_if_every_valid_query_sees_every_valid_key():
    """Valid keys may lie anywhere. The second row is padding, the third has no padding at all."""
    image = whole_images(jnp.array([[0] * 3 + [1] * 20 + [0] * 9 + [1] * 13, [0] * 45, [1] * 45]))
    arrays = inputs(3, 45, 45)
    assert_same(fused(arrays, image, image, all_valid=True), by_reference(arrays, image, image))


def test_bfloat16_differs_from_float32_by_rounding():
    metadata = metadata_of((SECOND_ROUND, TEXT_TO_IMAGE))
    rounded = [x.astype(jnp.bfloat16) for x in inputs(1, TOKENS, TOKENS)]
    low = fused(rounded, metadata, metadata)
    exact = by_reference([x.astype(jnp.float32) for x in rounded], metadata, metadata)
    assert {x.dtype for x in low} == {jnp.dtype(jnp.bfloat16)}
    for a, e in zip(low, exact, strict=True):
        assert np.linalg.norm(a.astype(jnp.float32) - e) < 2**-6 * np.linalg.norm(e)


def test_attention_in_parts_holds_the_scores_of_a_part_only():
    """In the traced forward and backward program."""
    tokens, image = 512, whole_images(jnp.ones((1, 512), int))
    arrays = [jnp.zeros((1, tokens, 2, 8))] * 3

    def loss(*arrays):
        return jnp.sum(attention_in_parts(*arrays, image, image, scores_at_once=2 * tokens * 64))

    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays).as_text()
    assert f"tensor<1x2x64x{tokens}xf32>" in program
    assert f"{tokens}x{tokens}xf32" not in program


# The choice of an implementation


def test_auto_is_dense_on_a_cpu():
    assert chosen("auto", jnp.bfloat16) == "dense"
    assert chosen("flash", jnp.float32) == "flash"


def test_cudnn_is_for_low_precision_heads_of_at_most_128_and_many_queries():
    assert fits(jnp.dtype(jnp.bfloat16), 72, FEWEST_QUERIES)
    assert not fits(jnp.dtype(jnp.float32), 72, FEWEST_QUERIES)
    assert not fits(jnp.dtype(jnp.bfloat16), LARGEST_HEAD + 8, FEWEST_QUERIES)
    assert not fits(jnp.dtype(jnp.bfloat16), 72, FEWEST_QUERIES - 1)


@pytest.mark.parametrize(
    ("compute_capability", "expected"), [("9.0", True), ("8.0", True), ("7.5", False), ("gfx942", False), (None, True)]
)
def test_fused_attention_needs_compute_capability_8(compute_capability, expected):
    assert has_fused_attention(compute_capability) is expected


@pytest.mark.parametrize("all_valid", [False, True])
def test_attend_by_flash_equals_attend_by_dense_attention(all_valid):
    image = whole_images(jnp.array([[1] * 150 + [0] * 10, [1] * 160]))
    first, second = (TokenMetadata(*(x[:, part] for x in image)) for part in (slice(0, 100), slice(100, None)))
    query, key, value, _ = inputs(2, 160, 160)
    buffers = [[x[:, :100], x[:, 100:]] for x in (query, key, value)]
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.05)):
        arrays = [[x.astype(dtype) for x in buffer] for buffer in buffers]
        seen = visibility((first, second), (first, second), "flash", dtype, all_valid=all_valid)
        out = jnp.concatenate(attend(*arrays, seen), axis=1)
        expected = dense_attention(query, key, value, pairwise_visible(image, image))
        np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=tolerance)

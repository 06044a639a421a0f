"""Reading contexts into KV caches: in pieces or at once, with and without empty slots."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.made_up_pictures import INSTRUCTION, MODEL, PARAMS, PROMPT, latents_in, read
from tests.helpers.made_up_plans import TOKENIZER, patches_of
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import quick_jit
from uno_jax.batch import PixelBatch
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import Plan, Text, VitImage
from uno_jax.data.sampling_rows import context_batch, part, token_count
from uno_jax.models.decoder import KVCache
from uno_jax.models.unified import UnifiedModel
from uno_jax.sampling.cache import first_tokens, fitted

CONVERSATION: Plan = (*PROMPT, *INSTRUCTION, VitImage(pixels=patches_of(2, 2)), Text(ids=(9,)))
OTHER: Plan = (Text(ids=(1, 2, 3, 4, 5, 6, 7, 8, 9)), *INSTRUCTION)


def batch_of(*plans: Plan, start: int = 0, stop: int | None = None) -> PixelBatch:
    return context_batch([part(lay_out(plan, LAYOUT, TOKENIZER), start, stop) for plan in plans], LAYOUT)


def in_order(cache: KVCache, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values `[layers, tokens, ...]` of a row in the order of its sample."""
    used = np.flatnonzero(cache.metadata.sample[row] > 0)
    places = used[np.argsort(cache.metadata.order[row, used])]
    return np.asarray(cache.keys)[:, row, places], np.asarray(cache.values)[:, row, places]


def assert_same(first: KVCache, second: KVCache, row: int = 0, other_row: int = 0):
    for a, b in zip(in_order(first, row), in_order(second, other_row), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("items", [1, 2, 4, 5])
def test_a_context_read_in_two_pieces_equals_the_context_read_at_once(items):
    cut = token_count(CONVERSATION[:items], LAYOUT)
    piecewise = read(batch_of(CONVERSATION, start=cut), read(batch_of(CONVERSATION, stop=cut)))
    assert len(in_order(piecewise)[0][0]) == token_count(CONVERSATION, LAYOUT)
    assert_same(piecewise, read(batch_of(CONVERSATION)))


def test_rows_do_not_depend_on_each_other():
    together = read(batch_of(CONVERSATION, OTHER))
    assert_same(together, read(batch_of(CONVERSATION)), 0)
    assert_same(together, read(batch_of(OTHER)), 1)


@pytest.mark.parametrize("items", [0, 2, 3])
def test_the_first_tokens_of_a_context_equal_the_shorter_context(items):
    """Context attention is causal, so the remaining tokens do not depend on the hidden ones."""
    count = token_count(CONVERSATION[:items], LAYOUT)
    kept = first_tokens(read(batch_of(CONVERSATION, OTHER)), jnp.array([count, 1000]))
    assert_same(kept, read(batch_of(CONVERSATION[:items])))
    assert_same(kept, read(batch_of(OTHER)), 1)


def test_slots_are_added_and_removed():
    cache = read(batch_of(CONVERSATION, PROMPT))
    have, need = cache.metadata.sample.shape[1], token_count(CONVERSATION, LAYOUT)
    assert need < have
    for slots in (need, have, have + 7):
        other = fitted(cache, slots)
        assert other.keys.shape[2] == other.values.shape[2] == other.metadata.sample.shape[1] == slots
        assert_same(other, cache)
        assert_same(other, cache, 1, 1)


def test_empty_slots_do_not_affect_what_is_read_next():
    cut = token_count(CONVERSATION[:4], LAYOUT)
    rest, cache = batch_of(CONVERSATION, start=cut), read(batch_of(CONVERSATION, stop=cut))
    assert_same(read(rest, cache), read(rest, fitted(cache, 40)))


@functools.cache
def uncached():
    """Hidden states of a batch after every layer, without a cache."""
    model = UnifiedModel(MODEL)
    clean = jnp.zeros((1, 1))
    return quick_jit(lambda params, *batch: model.apply({"params": params}, *batch, clean, method="read"))


def test_tokens_that_follow_a_cache_have_the_hidden_states_of_a_run_without_one():
    cut = token_count(CONVERSATION[:4], LAYOUT)
    rest, cache = batch_of(CONVERSATION, start=cut), read(batch_of(CONVERSATION, stop=cut))
    whole = batch_of(CONVERSATION)
    expected = uncached()(PARAMS, whole, latents_in(whole)).understanding
    actual = quick_jit(
        lambda params, rest, latents, cache: UnifiedModel(MODEL).apply(
            {"params": params}, rest, latents, jnp.zeros((1, 1)), cache, method="read"
        )
    )(PARAMS, rest, latents_in(rest), cache).understanding
    here, there = ((x.understanding.sample[0] > 0) & (x.understanding.order[0] >= cut) for x in (rest, whole))
    assert here.sum() == there.sum() == 9
    np.testing.assert_allclose(actual[0, here], expected[0, there], atol=2e-5)

"""Text generation: captions and answers, drawn or greedy, at once or in pieces."""

from __future__ import annotations

import functools
import math
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers.made_up_pictures import INSTRUCTION, MODEL, PARAMS, PROMPT, latents_in, read
from tests.helpers.made_up_plans import TOKENIZER, latents_of
from tests.helpers.made_up_records import LAYOUT
from tests.helpers.small_model import quick_jit
from uno_jax.attention.metadata import TokenMetadata
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import NoisedTarget, Plan, Text
from uno_jax.data.sampling_rows import context_batch, part, token_count
from uno_jax.models.decoder import KVCache
from uno_jax.models.unified import UnifiedModel
from uno_jax.sampling.text import TextConfig, begin_text, continue_text, draw_token, write_text, written_ids

START = TOKENIZER.start
LONG: Plan = (Text(ids=(1, 2, 3, 4, 5, 6, 7)),)
LENGTH = 9


def asked(*contexts: Plan, rows: int = 3) -> tuple[KVCache, TokenMetadata]:
    """KV caches of the contexts and metadata of the start token of each answer; the remaining rows are padding."""
    parts = []
    for context in contexts:
        regions, count = lay_out((*context, Text(ids=())), LAYOUT, TOKENIZER), token_count(context, LAYOUT)
        parts.append((part(regions, 0, count), part(regions, count)))
    first, second = zip(*parts, strict=True)
    answer = context_batch(second, LAYOUT, rows).understanding
    return read(context_batch(first, LAYOUT, rows)), TokenMetadata(*(x[:, :1] for x in answer))


@functools.cache
def _writer(stop: tuple[int, ...], config: TextConfig) -> Any:
    return quick_jit(
        lambda params, cache, first, seeds: write_text(params, cache, first, START, stop, MODEL, config, seeds)
    )


def written(
    cache: KVCache, first: TokenMetadata, stop: tuple[int, ...] = (), seeds: Any = None, **settings: Any
) -> list[list[int]]:
    config = TextConfig(**{"max_length": LENGTH} | settings)
    seeds = np.zeros(len(first.sample), np.int32) if seeds is None else np.array(seeds, np.int32)
    return _writer(stop, config)(PARAMS, cache, first, seeds).tolist()


@functools.cache
def _predictor() -> Any:
    apply = functools.partial(UnifiedModel(MODEL).apply, answers=True)
    return quick_jit(lambda params, batch, latents: apply({"params": params}, batch, latents, jnp.zeros((1, 1))))


def uncached_logits(plan: Plan) -> np.ndarray:
    """Next-token logits in the text at the end of a plan, except after its closing token; without a cache."""
    batch = context_batch([lay_out(plan, LAYOUT, TOKENIZER)] * 3, LAYOUT)
    logits = _predictor()(PARAMS, batch, latents_in(batch)).text_logits[0]
    first, count = token_count(plan[:-1], LAYOUT), token_count(plan, LAYOUT)
    order, used = batch.understanding.order[0], batch.understanding.sample[0] > 0
    places = [int(np.flatnonzero(used & (order == i))[0]) for i in range(first, count - 1)]
    return np.asarray(logits)[places]


def test_every_greedy_token_is_the_most_likely_next_token():
    [ids, *_] = written(*asked(INSTRUCTION))
    assert ids[0] == START
    logits = uncached_logits((*INSTRUCTION, Text(ids=tuple(ids[1:]))))
    assert np.argmax(logits, axis=-1).tolist()[: LENGTH - 1] == ids[1:]
    assert len(set(ids)) > 3


def test_a_text_does_not_depend_on_the_other_rows():
    together = written(*asked(PROMPT, LONG, (*PROMPT, *LONG)))
    assert together[0] == written(*asked(PROMPT))[0]
    assert together[1] == written(*asked(LONG, PROMPT))[0]
    assert len({tuple(ids) for ids in together}) == 3


@pytest.fixture(scope="module")
def free() -> list[list[int]]:
    """Three texts without a stop token."""
    return written(*asked(PROMPT, LONG, (*PROMPT, *LONG)))


def test_a_text_stops_at_any_of_the_stop_tokens_and_waits_for_the_others(free):
    stops = (free[0][3], free[2][4])
    stopped = written(*asked(PROMPT, LONG, (*PROMPT, *LONG)), stop=stops)
    for ids, whole in zip(stopped, free, strict=True):
        end = min([i for i in range(1, LENGTH) if whole[i] in stops], default=LENGTH - 1)
        assert ids == whole[: end + 1] + [whole[end]] * (LENGTH - 1 - end)


def test_generation_ends_when_every_row_has_ended():
    cache, first = asked(PROMPT)
    ids = written(cache, first)[0]
    writing = begin_text(cache, first, START, LENGTH)
    assert writing.ended.tolist() == [False, True, True]
    done = continue_text(PARAMS, writing, LENGTH, (ids[2],), MODEL, TextConfig(LENGTH))
    assert int(done.written) == ids.index(ids[2], 1) + 1


def test_the_length_includes_the_start_token(free):
    assert [len(ids) for ids in written(*asked(PROMPT, LONG), max_length=4)] == [4, 4, 4]
    assert written(*asked(PROMPT, LONG), max_length=4)[0] == free[0][:4]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}], ids=["greedy", "drawn"])
def test_text_generated_in_pieces_equals_text_generated_at_once(settings):
    cache, first = asked(PROMPT, LONG, INSTRUCTION)
    config = TextConfig(LENGTH, **settings)
    writing = begin_text(cache, first, START, LENGTH, np.arange(3))
    for until in (2, 3, 7, 100):
        writing = continue_text(PARAMS, writing, until, (), MODEL, config)
        assert int(writing.written) == min(until, LENGTH)
    assert writing.ids.tolist() == written(cache, first, seeds=range(3), **settings)


@pytest.mark.parametrize(("ids", "expected"), [([0, 2, 3, 1, 1], [2, 3]), ([0, 1, 1], []), ([0, 4, 5], [4, 5])])
def test_written_ids_are_those_between_the_start_and_the_first_stop_token(ids, expected):
    assert written_ids(ids, stop=(1, 9)) == expected


# Drawing tokens


def test_a_drawn_text_depends_on_its_own_seed_only():
    together = written(*asked(PROMPT, LONG, PROMPT), seeds=(3, 4, 5), temperature=1.0)
    assert written(*asked(LONG, PROMPT), seeds=(4, 5, 0), temperature=1.0)[:2] == [together[1], together[2]]
    assert together[0] != together[2]


def test_a_low_temperature_or_a_small_nucleus_is_greedy(free):
    contexts = asked(PROMPT, LONG, (*PROMPT, *LONG))
    assert written(*contexts, seeds=(1, 2, 3), temperature=1e-4) == free
    assert written(*contexts, seeds=(1, 2, 3), temperature=1.0, top_p=1e-4) == free


LOGITS = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))


def frequencies(temperature: float = 1.0, top_p: float = 1.0, draws: int = 20_000) -> np.ndarray:
    keys, numbers = jax.random.split(jax.random.key(0), draws), (jnp.float32(temperature), jnp.float32(top_p))
    drawn = jax.jit(jax.vmap(lambda key: draw_token(key, LOGITS, *numbers)))(keys)
    return np.bincount(drawn, minlength=4) / draws


def test_tokens_are_drawn_with_their_probability():
    np.testing.assert_allclose(frequencies(), [0.1, 0.4, 0.2, 0.3], atol=0.015)


def test_temperature_divides_the_logits():
    squared = np.array([0.01, 0.16, 0.04, 0.09]) / 0.3
    np.testing.assert_allclose(frequencies(temperature=0.5), squared, atol=0.015)


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.3, [0, 1, 0, 0]), (0.5, [0, 4 / 7, 0, 3 / 7]), (0.75, [0, 4 / 9, 2 / 9, 3 / 9])]
)
def test_a_nucleus_is_the_smallest_set_of_most_likely_tokens_with_its_probability(top_p, expected):
    np.testing.assert_allclose(frequencies(top_p=top_p), expected, atol=0.015)


_draw_token = jax.jit(draw_token)


@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    logits=st.lists(st.floats(-8, 8, width=32, allow_subnormal=False), min_size=7, max_size=7),
    temperature=st.floats(0.1, 3.0),
    top_p=st.floats(0.01, 1.0),
)
def test_no_token_outside_the_nucleus_is_drawn(seed, logits, temperature, top_p):
    """The tokens more likely than a drawn one have a total probability below `top_p`."""
    token = int(_draw_token(jax.random.key(seed), jnp.array(logits), np.float32(temperature), np.float32(top_p)))
    scaled = np.array(logits) / temperature
    probability = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
    assert probability[scaled > scaled[token]].sum() < top_p + 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 1},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
    ],
)
def test_invalid_settings_raise_an_error_with_their_name(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        TextConfig(**settings)


# Captions of noised targets


def captioned(context: Plan, caption: tuple[int, ...] = ()) -> tuple[KVCache, TokenMetadata]:
    """KV cache of a context and a noised block, and metadata of the start token of its caption."""
    target = NoisedTarget(pixels=latents_of(2, 2), caption=caption)
    regions = lay_out((*context, target), LAYOUT, TOKENIZER)
    count = token_count((*context, NoisedTarget(pixels=target.pixels)), LAYOUT)
    first = context_batch([part(regions, count)], LAYOUT).understanding
    return read(context_batch([part(regions, 0, count)], LAYOUT)), TokenMetadata(*(x[:, :1] for x in first))


@pytest.mark.parametrize("context", [(), PROMPT], ids=["alone", "after a prompt"])
def test_a_generated_caption_is_greedy_under_the_logits_of_training(context):
    """In the training forward pass, a caption sees its noised block and itself, but not the prompt."""
    [ids] = written(*captioned(context))
    plan = (*context, NoisedTarget(pixels=latents_of(2, 2), caption=tuple(ids[1:])))
    batch = context_batch([lay_out(plan, LAYOUT, TOKENIZER)], LAYOUT)
    logits = np.asarray(_predictor()(PARAMS, batch, latents_in(batch)).caption_logits[0])
    assert np.argmax(logits, axis=-1)[: LENGTH - 1].tolist() == ids[1:]


def test_a_caption_does_not_see_the_prompt_in_the_cache():
    """The noised block is read alone, and the keys and values of a prompt are then added to the cache."""
    cache, first = captioned(())
    [alone] = written(cache, first)
    prompt = read(context_batch([lay_out(PROMPT, LAYOUT, TOKENIZER)], LAYOUT))
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), cache.metadata, prompt.metadata)
    keys, values = (jnp.concatenate(pair, axis=2) for pair in zip(cache[:2], prompt[:2], strict=True))
    assert written(KVCache(keys, values, both), first) == [alone]

"""The largest samples of a method and their token counts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_records import LAYOUT, make_record, picture, small_config, small_inputs
from uno_jax.data.largest import largest_samples, needed_tokens
from uno_jax.data.layout import sample_lengths
from uno_jax.data.methods import METHODS, make_sample
from uno_jax.data.plans import CleanLatents, Text, VitImage

TASKS = ("text_to_image", "editing", "understanding")
# A picture has 4 latent tokens, 4 ViT patches and 4 metaqueries. A one-token text has 3 tokens, image delimiters 2.
PROMPT, ANSWER, WORD, DELIMITERS, PICTURE = 3, 3, 3, 2, 4


def needed(method: str, task: str, **changes) -> tuple[int, ...]:
    """Returns the required tokens of text, ViT, caption, query and latent."""
    return tuple(needed_tokens(small_config(method=method, **changes), LAYOUT, task).values())


@pytest.mark.parametrize(
    ("method", "caption", "query"),
    [("uno", WORD, PICTURE), ("uno_caption", WORD, 0), ("uno_visual", 0, PICTURE), ("sft", 0, 0)],
)
def test_a_picture_needs_its_prompt_its_latents_and_what_supervises_it(method, caption, query):
    assert needed(method, "text_to_image") == (PROMPT + DELIMITERS, 0, caption, query, PICTURE)


def test_hidden_supervision_needs_the_latents_twice():
    expected = (PROMPT + 2 * DELIMITERS, 0, WORD, PICTURE, 2 * PICTURE)
    assert needed("uno", "text_to_image", supervise="hidden") == expected


def test_an_edit_needs_its_source_twice():
    assert needed("sft", "editing") == (PROMPT + 3 * DELIMITERS, PICTURE, 0, 0, 2 * PICTURE)


def test_a_prompt_of_captions_needs_no_caption_tokens():
    assert needed("sft_recaption", "text_to_image") == (WORD + DELIMITERS, 0, 0, 0, PICTURE)


def test_a_reconstruction_needs_no_text():
    assert needed("reca", "editing") == (2 * DELIMITERS, PICTURE, 0, 0, PICTURE)


@pytest.mark.parametrize("method", METHODS)
def test_a_question_needs_a_picture_and_an_answer_under_every_method(method):
    latents = PICTURE if method == "pretrain" else 0  # which shows some pictures as latents
    assert needed(method, "understanding") == (DELIMITERS + PROMPT + ANSWER, PICTURE, 0, 0, latents)


@pytest.mark.parametrize(
    ("shares", "vit"),
    [
        ({}, PICTURE),
        ({"understanding_share": 0.001, "latent_share": 0.999}, PICTURE),
        ({"understanding_share": 0.0}, 0),
        ({"latent_share": 1.0}, 0),
    ],
)
def test_pretrain_needs_the_tokens_of_every_possible_draw(shares, vit):
    assert needed("pretrain", "text_to_image", **shares) == (PROMPT + DELIMITERS, vit, 0, 0, PICTURE)


def test_every_outcome_of_the_draws_occurs_once():
    """A target, or the prompt or the caption as the answer to noised latents, clean latents or patches."""
    plans = [sample.plan for sample in largest_samples(small_config(method="pretrain"), "text_to_image")]
    assert Counter(type(plan[0]) for plan in plans) == {Text: 1, CleanLatents: 4, VitImage: 2}
    assert Counter(plan[0].time_scale for plan in plans if isinstance(plan[0], CleanLatents)) == {0.3: 2, 0.0: 2}


def test_prompt_and_caption_have_the_requested_lengths():
    (sample,) = largest_samples(small_config(), "text_to_image", prompt_tokens=70, caption_tokens=50)
    prompt, target = sample.plan
    assert (len(prompt.ids), len(target.caption)) == (70, 50)


@settings(max_examples=40)
@given(
    method=st.sampled_from(sorted(METHODS)),
    task=st.sampled_from(TASKS),
    sides=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 1000),
)
def test_no_picture_takes_more_tokens_than_are_needed(method, task, sides, seed):
    config = small_config(method=method)
    record = make_record(task=task, image=picture(0, *sides), sources=(picture(1, *sides),) * (task == "editing"))
    sample = make_sample(record, config, small_inputs(), np.random.default_rng(seed))
    lengths, most = sample_lengths(sample.plan, LAYOUT), needed_tokens(config, LAYOUT, task)
    assert all(lengths[region] <= most[region] for region in ("vit", "query", "latent"))

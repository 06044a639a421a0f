"""Contexts for sampling: lengths, parts, and the contexts that guidance compares with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_up_pictures import INSTRUCTION, PROMPT
from tests.helpers.made_up_plans import NAMED, TOKENIZER, plans
from tests.helpers.made_up_records import LAYOUT
from uno_jax.attention.metadata import CONTEXT, NOISED
from uno_jax.data.layout import lay_out
from uno_jax.data.plans import Plan, Text
from uno_jax.data.sampling_rows import (
    context_batch,
    context_bucket,
    latent_bucket,
    part,
    texts_alone,
    token_count,
    without_last_text,
)
from uno_jax.inference.picture_inputs import guided_plan, picture_inputs


@given(tokens=st.integers(0, 100_000))
def test_a_bucket_is_large_enough_and_little_larger(tokens):
    assert tokens <= context_bucket(tokens) <= max(tokens * 5 / 4, tokens + 7)
    assert tokens <= latent_bucket(tokens) <= max(tokens * 9 / 8, tokens + 7)


def test_buckets_are_few():
    assert len({context_bucket(tokens) for tokens in range(1, 4097)}) == 32
    assert len({latent_bucket(tokens) for tokens in range(1, 4097)}) == 56


@pytest.mark.parametrize("tokens", [0, 64, 256, 1024, 4096])
def test_square_pictures_of_usual_sides_are_not_padded(tokens):
    assert latent_bucket(tokens) == tokens


@given(first=plans() | st.sampled_from(NAMED), second=plans())
def test_what_follows_a_plan_is_ordered_from_its_token_count_on(first: Plan, second: Plan):
    regions = lay_out((*first, *second), LAYOUT, TOKENIZER)
    alone = lay_out(first, LAYOUT, TOKENIZER)
    cut = token_count(first, LAYOUT)
    for region, tokens in part(regions, 0, cut).items():
        assert len(tokens) == len(alone[region])
        assert len(tokens) + len(part(regions, cut)[region]) == len(regions[region])


def test_remaining_rows_are_padding():
    batch = context_batch([lay_out(PROMPT, LAYOUT, TOKENIZER)], LAYOUT, rows=3)
    assert (batch.understanding.sample > 0).sum(axis=1).tolist() == [5, 0, 0]


def test_text_guidance_compares_with_the_context_without_its_final_text():
    assert without_last_text(INSTRUCTION) == INSTRUCTION[:-1]
    assert without_last_text((*PROMPT, *PROMPT)) == PROMPT


def test_text_guidance_of_a_context_that_ends_in_an_image_removes_nothing():
    assert without_last_text(INSTRUCTION[:-1]) == INSTRUCTION[:-1]


def test_image_guidance_compares_with_only_the_texts():
    assert texts_alone((*PROMPT, *INSTRUCTION)) == (*PROMPT, INSTRUCTION[-1])
    assert texts_alone(PROMPT) is None


def test_a_block_takes_the_next_position_of_each_context():
    """A text token (delimiters included) takes one position, and so does an image."""
    inputs = picture_inputs([guided_plan(INSTRUCTION, 16, 16), guided_plan(PROMPT, 16, 16)], LAYOUT, TOKENIZER)

    def positions(batch) -> list[int]:
        assert set(batch.understanding.role.flat) == {NOISED}
        return batch.understanding.position[:, 0].tolist()

    assert positions(inputs.target) == [6, 5]
    assert positions(inputs.without_text.target) == [2, 0]
    assert positions(inputs.without_image.target) == [4, 5]


def test_a_target_holds_its_delimiters_and_latents_and_its_context_holds_the_rest():
    inputs = picture_inputs([guided_plan(INSTRUCTION, 16, 16)], LAYOUT, TOKENIZER)
    assert inputs.target.text_ids.tolist() == [[TOKENIZER.image_start, TOKENIZER.image_end]]
    assert (inputs.target.generation.sample > 0).sum() == 4
    assert inputs.target.vit_image.shape == inputs.target.caption_ids.shape == (1, 0)
    roles = np.concatenate([inputs.context.understanding.role, inputs.context.generation.role], axis=1)
    assert np.count_nonzero(roles == CONTEXT) == np.count_nonzero(roles) == token_count(INSTRUCTION, LAYOUT)


def test_the_text_free_context_is_a_prefix_of_the_context():
    inputs = picture_inputs([guided_plan(INSTRUCTION, 16, 16), guided_plan(PROMPT, 16, 16)], LAYOUT, TOKENIZER)
    assert inputs.without_text.shared.tolist() == [token_count(INSTRUCTION[:-1], LAYOUT), 0]
    assert inputs.without_text.rest.text_ids.shape == (2, 0)


def test_a_negative_prompt_takes_the_place_of_the_prompt():
    plan = guided_plan(INSTRUCTION, 16, 16, negative=(9, 9, 9))
    inputs = picture_inputs([plan], LAYOUT, TOKENIZER)
    assert plan.without_text == (*INSTRUCTION[:-1], Text(ids=(9, 9, 9)))
    assert inputs.without_text.rest.text_ids[0, :5].tolist() == [TOKENIZER.start, 9, 9, 9, TOKENIZER.end]
    assert inputs.without_text.rest.understanding.position[0, :5].tolist() == [2, 3, 4, 5, 6]
    assert inputs.without_text.target.understanding.position[0].tolist() == [7, 7]


def test_contexts_without_images_need_no_image_free_context():
    inputs = picture_inputs([guided_plan(PROMPT, 16, 16)], LAYOUT, TOKENIZER)
    assert inputs.without_image is None


def test_texts_before_the_first_picture_are_a_prefix_of_the_context_of_only_texts():
    context = (*PROMPT, *INSTRUCTION)
    inputs = picture_inputs([guided_plan(context, 16, 16)], LAYOUT, TOKENIZER)
    assert inputs.without_image.shared.tolist() == [token_count(PROMPT, LAYOUT)]
    assert inputs.without_image.rest.text_ids[0, :4].tolist() == [TOKENIZER.start, 7, 8, TOKENIZER.end]
    assert inputs.without_image.target.understanding.position[0].tolist() == [9, 9]


def test_a_picture_that_is_not_made_of_whole_tokens_is_rejected():
    with pytest.raises(ValueError, match="20x16 pixels is not divisible into 8x8"):
        picture_inputs([guided_plan(PROMPT, 16, 20)], LAYOUT, TOKENIZER)

"""Layout and packing of random plans, against a slow reference implementation, token by token."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_plans import (
    HIDDEN,
    ROOMY,
    TOKENIZER,
    batch_of,
    latents_of,
    patches_of,
    plans,
    sequence_of,
    slow_sequence,
)
from tests.helpers.made_up_records import LAYOUT
from uno_jax.batch import REGIONS
from uno_jax.data import layout, rows
from uno_jax.data.layout import lay_out, sample_lengths
from uno_jax.data.plans import CleanLatents, NoisedTarget, Text, VitImage
from uno_jax.data.rows import make_batch, pack_row, padding_share


@settings(max_examples=60)
@given(plan=plans())
def test_every_token_of_a_sample_lies_in_the_batch_once(plan):
    sequence = sequence_of(batch_of((plan,)), 0, 1)
    np.testing.assert_array_equal(sequence.order, np.arange(len(slow_sequence(plan))))


@settings(max_examples=60)
@given(plan=plans())
def test_positions_equal_the_slow_reference(plan):
    sequence = sequence_of(batch_of((plan,)), 0, 1)
    np.testing.assert_array_equal(sequence.position, [token.position for token in slow_sequence(plan)])


@settings(max_examples=60)
@given(plan=plans())
def test_lengths_are_known_before_laying_out(plan):
    regions = lay_out(plan, LAYOUT, TOKENIZER)
    assert sample_lengths(plan, LAYOUT) == {region: len(tokens) for region, tokens in regions.items()}


@settings(max_examples=40)
@given(row=st.lists(plans(), min_size=1, max_size=4))
def test_a_packed_sample_is_the_sample_alone(row):
    packed = batch_of(row)
    for number, plan in enumerate(row, start=1):
        alone, among = sequence_of(batch_of((plan,)), 0, 1), sequence_of(packed, 0, number)
        for name in ("role", "order", "last_visible", "block", "position"):
            np.testing.assert_array_equal(getattr(among, name), getattr(alone, name))


@settings(max_examples=30)
@given(row=st.lists(plans(), min_size=1, max_size=3))
def test_images_of_a_row_have_distinct_numbers(row):
    batch = batch_of(row)
    lengths = [len(i.pixels) * i.pixels.shape[1] // LAYOUT.vit_patch_size**2 for p in row for i in p if is_vit(i)]
    np.testing.assert_array_equal(np.bincount(batch.vit_image[0], minlength=len(lengths) + 1)[1:], lengths)


def is_vit(item) -> bool:
    return isinstance(item, VitImage)


def text_tokens(batch, array):
    """Returns `[sample tokens]` of the text region of the first row, in logical order."""
    width = batch.text_ids.shape[1]
    sample, order = batch.understanding.sample[0, :width], batch.understanding.order[0, :width]
    keep = np.flatnonzero(sample > 0)
    return array[0][keep[np.argsort(order[keep])]].tolist()


def test_an_answer_trains_every_token_but_the_first():
    batch = batch_of(((Text(ids=(5, 6), answer=True),),))
    assert text_tokens(batch, batch.text_ids) == [TOKENIZER.start, 5, 6, TOKENIZER.end]
    assert text_tokens(batch, batch.text_labels)[:3] == [5, 6, TOKENIZER.end]
    assert text_tokens(batch, batch.text_loss) == [True, True, True, False]


def test_context_text_trains_nothing():
    assert not batch_of(((Text(ids=(5, 6)),),)).text_loss.any()


def test_a_caption_trains_every_token_but_the_closing_one():
    batch = batch_of(((NoisedTarget(pixels=latents_of(1, 1), caption=(5, 6)),),))
    assert batch.caption_ids[0, :4].tolist() == [TOKENIZER.start, 5, 6, TOKENIZER.end]
    assert batch.caption_labels[0, :3].tolist() == [5, 6, TOKENIZER.end]
    assert batch.caption_loss[0, :5].tolist() == [True, True, True, False, False]


def test_metaqueries_are_numbered_row_by_row_over_the_patches_they_predict():
    query_pixels = patches_of(2, 2)
    target = NoisedTarget(pixels=latents_of(1, 1), query_pixels=query_pixels)
    batch = batch_of(((target,),))
    assert batch.query_index[0, :4].tolist() == [0, 1, 2, 3]
    assert batch.target_positions[0, :4].tolist() == [0, 1, LAYOUT.vit_table_side, LAYOUT.vit_table_side + 1]
    np.testing.assert_array_equal(batch.target_patches[0, 1], query_pixels[:4, 4:].reshape(-1))
    assert batch.query_loss[0, :5].tolist() == [True] * 4 + [False]


def test_only_noised_targets_train_flow_and_only_they_have_a_time_scale_of_one():
    plan = (
        CleanLatents(pixels=latents_of(1, 1)),
        CleanLatents(pixels=latents_of(1, 1), time_scale=0.5),
        NoisedTarget(pixels=latents_of(1, 1)),
    )
    batch = batch_of((plan,))
    assert batch.latent_time_scale[0, :3].tolist() == [0.0, 0.5, 1.0]
    assert batch.latent_loss[0, :4].tolist() == [False, False, True, False]


def test_supervision_uses_the_time_of_its_own_noised_image():
    plan = (
        CleanLatents(pixels=latents_of(1, 1)),
        NoisedTarget(pixels=latents_of(1, 2), caption=(1,), query_pixels=patches_of(1, 1)),
    )
    batch = make_batch([pack_row([lay_out(plan, LAYOUT, TOKENIZER, occurrence=7, task="editing")], ROOMY, LAYOUT)])
    assert batch.latent_source.image[0, :3].tolist() == [0, 1, 1]
    for source, tokens in ((batch.latent_source, 3), (batch.caption_source, 3), (batch.query_source, 1)):
        assert set(source.occurrence[0, :tokens].tolist()) == {7}
        assert set(source.task[0, :tokens].tolist()) == {1}
    assert set(batch.caption_source.image[0, :3].tolist()) == {1}
    assert batch.query_source.image[0, 0] == 1


def test_padding_share_is_per_region():
    batch = batch_of(((Text(ids=(1, 2)),),), capacities=dict.fromkeys(REGIONS, 0) | {"text": 16, "vit": 4})
    assert padding_share(batch) == {"text": 0.75, "vit": 1.0}


def test_an_empty_row_is_all_padding():
    batch = batch_of((), capacities=dict.fromkeys(REGIONS, 4))
    assert set(padding_share(batch).values()) == {1.0}


def test_arrays_have_the_dtypes_of_a_batch():
    batch = batch_of(((Text(ids=(1, 2)),),))
    assert batch.understanding.sample.dtype == batch.vit_image.dtype == batch.text_ids.dtype == np.int32
    assert batch.text_loss.dtype == np.bool_
    assert batch.vit_patches.dtype == batch.latent_pixels.dtype == np.uint8
    assert batch.latent_time_scale.dtype == np.float32


def test_samples_that_do_not_fit_are_rejected_by_region():
    sample = lay_out((Text(ids=(1, 2)),), LAYOUT, TOKENIZER)
    with pytest.raises(ValueError, match="text_tokens"):
        pack_row([sample, sample], dict.fromkeys(REGIONS, 7), LAYOUT)


def test_a_grid_larger_than_the_latent_table_is_rejected():
    side = (LAYOUT.max_latent_size + 1) * LAYOUT.pixels_per_token
    plan = (NoisedTarget(pixels=np.zeros((LAYOUT.pixels_per_token, side, 3), np.uint8)),)
    with pytest.raises(ValueError, match="position table of 4x4"):
        lay_out(plan, LAYOUT, TOKENIZER)


def test_more_patches_than_metaqueries_are_rejected():
    target = NoisedTarget(pixels=latents_of(1, 1), query_pixels=np.zeros((12, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="6 patches of 4, more than the 4 rows"):
        lay_out((target,), LAYOUT, TOKENIZER)


@pytest.mark.parametrize("module", [layout, rows])
def test_the_example_of_the_docstring_is_exact(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# Patches of the align loss


ALIGNED = replace(LAYOUT, vit_patch_size=LAYOUT.pixels_per_token, align=True)
"""A layout whose ViT patches have the size of latent tokens."""


def test_every_latent_token_of_a_noised_target_has_the_patch_at_its_place():
    plan = (CleanLatents(pixels=latents_of(1, 2)), Text(ids=(1,)), NoisedTarget(pixels=latents_of(2, 2)))
    batch = batch_of((plan, plan), layout=ALIGNED)
    assert batch.align_image[0, :13].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 0]
    targets = batch.align_image[0] > 0
    np.testing.assert_array_equal(batch.align_patches[0, targets], batch.latent_pixels[0, targets])
    assert not batch.align_patches[0, ~targets].any()


def test_the_patches_of_latent_tokens_are_resized_to_the_size_of_a_patch():
    batch = batch_of(((NoisedTarget(pixels=np.full((16, 24, 3), 90, np.uint8)),),), layout=replace(LAYOUT, align=True))
    assert batch.align_patches.shape[-1] == 3 * LAYOUT.vit_patch_size**2
    assert set(batch.align_patches[0, :6].reshape(-1).tolist()) == {90}
    assert batch.align_image[0, :7].tolist() == [1] * 6 + [0]


def test_without_the_align_loss_a_batch_has_no_such_arrays():
    assert batch_of((HIDDEN,)).align_patches is None


# Supervision without the prompt


def test_a_target_without_flow_loss_is_the_image_of_the_target_that_follows():
    plan = (CleanLatents(pixels=latents_of(1, 1)), *HIDDEN)
    batch = batch_of((plan,), layout=replace(LAYOUT, align=True))
    assert batch.latent_source.image[0, :9].tolist() == [0] + [1] * 8
    assert batch.latent_index[0, 1:9].tolist() == [0, 1, 2, 3] * 2
    assert batch.latent_loss[0, :9].tolist() == [False] * 5 + [True] * 4
    assert batch.align_image[0, :9].tolist() == [0] * 5 + [1] * 4
    for source, tokens in ((batch.caption_source, 5), (batch.query_source, 2)):
        assert set(source.image[0, :tokens].tolist()) == {1}

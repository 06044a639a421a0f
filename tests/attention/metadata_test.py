"""`visible` against the drawing in its docstring, and against a slow definition of the same table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_plans import (
    ROOMY,
    SECOND_ROUND,
    batch_of,
    latents_of,
    patches_of,
    plans,
    row_metadata,
    sequence_of,
    slow_mask,
)
from uno_jax.attention.metadata import CAPTION, CONTEXT, METAQUERY, NOISED, TokenMetadata, pairwise_visible, visible
from uno_jax.data.plans import NoisedTarget, Text, VitImage

# Rows of 550 tokens: any three plans of three items fit.
CAPACITIES = dict.fromkeys(ROOMY, 110)
rows = st.lists(plans(most_items=3), min_size=1, max_size=3)

# The sample of the drawing: three text tokens; an image of one patch, of which the drawing shows only the two
# delimiters; a noised block of one latent token and its delimiters; a caption of three tokens; two metaqueries.
DRAWN = (
    Text(ids=(1,)),
    VitImage(pixels=patches_of(1, 1)),
    NoisedTarget(pixels=latents_of(1, 1), caption=(2,), query_pixels=patches_of(1, 2)),
)
NOT_DRAWN = 4


def test_the_drawing_in_the_docstring_equals_the_computed_mask():
    drawn = [line.split() for line in visible.__doc__.splitlines() if re.search(r"^ +[tincq] +[1.] [1.] [1.] ", line)]
    sequence = sequence_of(batch_of((DRAWN,)), 0, 1)
    computed = np.delete(np.delete(pairwise_visible(sequence, sequence), NOT_DRAWN, 0), NOT_DRAWN, 1)
    assert [row[1 : len(drawn) + 1] for row in drawn] == [["1" if see else "." for see in row] for row in computed]


@settings(max_examples=80)
@given(row=rows)
def test_a_packed_row_has_the_slow_mask_of_each_sample_and_nothing_else(row):
    batch = batch_of(row, capacities=CAPACITIES)
    metadata = row_metadata(batch, 0)
    expected = np.zeros((len(metadata.sample),) * 2, bool)
    for number, plan in enumerate(row, start=1):
        places = np.flatnonzero(metadata.sample == number)
        places = places[np.argsort(metadata.order[places], kind="stable")]
        expected[np.ix_(places, places)] = slow_mask(plan)
    np.testing.assert_array_equal(pairwise_visible(metadata, metadata), expected)


@settings(max_examples=20)
@given(row=rows)
def test_numpy_and_jax_agree(row):
    metadata = row_metadata(batch_of(row, capacities=CAPACITIES), 0)
    on_device = TokenMetadata(*map(jnp.asarray, metadata))
    np.testing.assert_array_equal(jax.jit(pairwise_visible)(on_device, on_device), pairwise_visible(metadata, metadata))


def test_padding_neither_sees_nor_is_seen():
    metadata = row_metadata(batch_of((SECOND_ROUND, DRAWN)), 0)
    seen = pairwise_visible(metadata, metadata)
    padding = metadata.sample == 0
    assert padding.any()
    assert not seen[padding].any()
    assert not seen[:, padding].any()


def test_every_token_except_padding_sees_itself():
    metadata = row_metadata(batch_of((SECOND_ROUND, DRAWN)), 0)
    np.testing.assert_array_equal(np.diagonal(pairwise_visible(metadata, metadata)), metadata.sample > 0)


def of_role(sequence: TokenMetadata, role: int, block: int = 0) -> np.ndarray:
    return (sequence.role == role) & (sequence.block == block)


def test_a_second_round_does_not_see_the_first_noised_block():
    sequence = sequence_of(batch_of((SECOND_ROUND,)), 0, 1)
    seen = pairwise_visible(sequence, sequence)
    first, second = of_role(sequence, NOISED, 1), of_role(sequence, NOISED, 2)
    context = of_role(sequence, CONTEXT)
    prompt = context & (sequence.order < sequence.order[first].min())
    assert not seen[np.ix_(context, first)].any()
    assert not seen[np.ix_(second, first)].any()
    assert seen[np.ix_(second, context)].all()
    assert not seen[np.ix_(first, context & ~prompt)].any()


@pytest.mark.parametrize("role", [CAPTION, METAQUERY])
def test_supervision_sees_only_itself_and_its_own_noised_block(role):
    sequence = sequence_of(batch_of((SECOND_ROUND,)), 0, 1)
    seen = pairwise_visible(sequence, sequence)
    for block in (1, 2):
        others = ~of_role(sequence, NOISED, block) & ~of_role(sequence, role, block)
        assert seen[np.ix_(of_role(sequence, role, block), of_role(sequence, NOISED, block))].all()
        assert not seen[np.ix_(of_role(sequence, role, block), others)].any()


@pytest.mark.parametrize("role", [CAPTION, METAQUERY])
def test_supervision_is_invisible_to_all_other_tokens(role):
    sequence = sequence_of(batch_of((SECOND_ROUND,)), 0, 1)
    seen = pairwise_visible(sequence, sequence)
    supervision = sequence.role == role
    assert not seen[np.ix_(~supervision, supervision)].any()


def test_the_mask_depends_on_metadata_and_not_on_the_order_in_memory():
    metadata = row_metadata(batch_of((SECOND_ROUND, DRAWN), capacities=dict.fromkeys(ROOMY, 40)), 0)
    shuffle = np.random.default_rng(0).permutation(len(metadata.sample))
    shuffled = TokenMetadata(*(field[shuffle] for field in metadata))
    expected = pairwise_visible(metadata, metadata)[np.ix_(shuffle, shuffle)]
    np.testing.assert_array_equal(pairwise_visible(shuffled, shuffled), expected)

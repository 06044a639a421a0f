"""Held-out records: which are chosen, their random numbers, and their rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_records import LAYOUT, make_record, make_records, mixture_of, small_config, small_tokenizer
from uno_jax.batch import REGIONS
from uno_jax.data.held_out import fill_rows, held_out_samples, spread
from uno_jax.data.samples import Skipped

RECORDS = make_records(6)


def samples(records=RECORDS, numbers=None, **changes):
    config = small_config(**changes)
    chosen = range(len(records)) if numbers is None else numbers
    return list(held_out_samples(mixture_of(records, config), chosen, LAYOUT, small_tokenizer()))


def test_records_are_evenly_spaced_and_balanced_over_the_groups():
    assert spread([np.arange(20), np.arange(20, 25)], 6) == [0, 10, 19, 20, 22, 24]


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=4), count=st.integers(1, 50))
def test_a_record_is_chosen_once_and_from_a_group(sizes, count):
    groups = np.split(np.arange(100, 100 + sum(sizes)), np.cumsum(sizes)[:-1])
    chosen = spread(groups, count)
    assert len(set(chosen)) == len(chosen) <= count
    assert set(chosen) <= set(range(100, 100 + sum(sizes)))
    assert bool(chosen) == bool(sum(sizes))


def test_the_draws_of_a_record_are_keyed_by_its_number():
    (sample,) = samples(numbers=[4])
    assert set(sample["latent"]["occurrence"].tolist()) == {4}


@pytest.mark.parametrize("method", ["uno", "pretrain"])
def test_a_sample_does_not_depend_on_the_other_records(method):
    alone, together = samples(numbers=[5], method=method)[0], samples(method=method)[5]
    for region in REGIONS:
        np.testing.assert_array_equal(alone[region], together[region])


def test_methods_draw_the_same_latents_of_the_same_records():
    first, second = (
        [sample["latent"] for sample in samples(method=method, text_dropout=0.0)] for method in ("uno", "sft")
    )
    for a, b in zip(first, second, strict=True):
        for name in ("pixels", "occurrence", "image", "index"):
            np.testing.assert_array_equal(a[name], b[name])


def test_a_record_that_fits_no_row_is_named():
    long = make_record(99, prompt="long " * 60)
    assert [type(sample) for sample in samples(records=[*RECORDS, long])] == [dict] * 6 + [Skipped]


@settings(max_examples=20)
@given(limit=st.integers(0, 3), room=st.integers(1, 4))
def test_rows_hold_all_samples_in_order_and_no_more_than_fit(limit, room):
    config = small_config(max_samples_per_row=limit, latent_tokens=8 * room)
    made = samples(latent_tokens=8 * room)
    rows = list(fill_rows(made, config))
    assert [id(sample) for row in rows for sample in row] == [id(sample) for sample in made]
    for row in rows:
        assert 0 < len(row) <= (limit or len(made))
        for region in REGIONS:
            assert sum(len(sample[region]) for sample in row) <= config.capacities[region]

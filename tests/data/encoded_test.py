"""Entries of precomputed moments, and records that have them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.made_up_records import LAYOUT, make_record, picture, small_config, small_inputs
from uno_jax.data.config import DataConfig
from uno_jax.data.encoded import from_entry, to_entry
from uno_jax.data.methods import make_sample
from uno_jax.data.mixture import one_dataset
from uno_jax.data.plans import Moments
from uno_jax.data.record import EncodedRecord, Record, RecordError
from uno_jax.data.samples import Skipped, read_sample

PROBLEM = RecordError("record 'record0', field image: damaged. Replace the file", "picture_damaged")


def moments(rows: int, columns: int) -> Moments:
    return np.arange(rows * columns * 6, dtype=np.float32).reshape(rows, columns, 6)


def encoded(record: Record, *pictures: Moments | RecordError) -> EncodedRecord:
    return EncodedRecord(**vars(record), pictures=pictures)


def test_an_entry_keeps_moments_and_why_a_picture_has_none():
    first, problem, last = from_entry(to_entry([moments(2, 1), PROBLEM, moments(1, 3)]), width=6)
    np.testing.assert_array_equal(first, moments(2, 1))
    np.testing.assert_array_equal(last, moments(1, 3))
    assert (str(problem), problem.cause) == (str(PROBLEM), PROBLEM.cause)


def test_moments_stand_in_for_the_pixels_of_a_target_and_of_sources():
    record = encoded(make_record(0, "editing"), moments(2, 2), moments(1, 2))
    source, _, _, target = make_sample(record, small_config(), small_inputs(), np.random.default_rng(0)).plan
    np.testing.assert_array_equal(source.pixels, moments(1, 2))
    np.testing.assert_array_equal(target.pixels, moments(2, 2))


def test_a_picture_that_is_given_as_latents_alone_is_not_decoded():
    record = encoded(make_record(0, image=b"not a picture"), moments(2, 2))
    assert make_sample(record, small_config(method="sft"), small_inputs(), np.random.default_rng(0))
    with pytest.raises(RecordError, match="field image"):
        make_sample(record, small_config(method="uno"), small_inputs(), np.random.default_rng(0))


def test_a_picture_that_could_not_be_encoded_skips_its_record_as_without_moments():
    def sample(record: Record, config: DataConfig) -> Skipped:
        [part] = one_dataset([record], np.zeros(1, np.int32), config).parts
        return read_sample(part, 0, LAYOUT, small_inputs(), occurrence=0)

    record = make_record(0, image=picture()[:400])
    skipped = sample(record, small_config())
    assert skipped.cause == "picture_damaged"
    assert sample(encoded(record, RecordError(skipped.message, skipped.cause)), small_config()) == skipped

"""Entries of precomputed vision features, and records that have them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.made_up_records import LAYOUT, make_record, small_config, small_inputs
from uno_jax.data.encoded import from_entry, to_entry
from uno_jax.data.features import feature_needs, feature_uses
from uno_jax.data.layout import sample_lengths
from uno_jax.data.methods import METHODS, make_sample
from uno_jax.data.plans import Features
from uno_jax.data.record import Record, RecordError, as_stored, with_encoded


def features(rows: int, columns: int, dtype=np.float32) -> Features:
    return np.arange(rows * columns * 6, dtype=np.float32).reshape(rows, columns, 6).astype(dtype)


def sample_of(record: Record, method: str = "uno"):
    return make_sample(record, small_config(method=method), small_inputs(), np.random.default_rng(0))


def test_an_entry_keeps_features_in_their_dtype():
    [found] = from_entry(to_entry([features(2, 3, jnp.bfloat16)], "bfloat16"), width=6, dtype="bfloat16")
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, features(2, 3, jnp.bfloat16))


@pytest.mark.parametrize(
    ("method", "metaqueries", "targets"),
    [
        ("uno", True, False),
        ("uno_caption", False, False),
        ("uno_visual", True, False),
        ("sft", False, False),
        ("sft_recaption", False, False),
        ("reca", False, True),
        ("pretrain", False, True),
    ],
)
def test_methods_take_features_of_targets_as_metaqueries_or_context_or_not_at_all(method, metaqueries, targets):
    assert method in METHODS
    needs = {"metaqueries": metaqueries, "targets": targets}
    assert feature_needs(small_config(method=method)) == needs
    uses = feature_uses(make_record(task="editing"), needs)
    assert uses == [("metaqueries", 0)] * metaqueries + [("vit", 0)] * targets + [("vit", 1)]


def test_pictures_of_questions_are_context_under_every_method():
    question = make_record(task="understanding")
    assert feature_uses(question, {"metaqueries": True, "targets": False}) == [("vit", 0)]


def test_features_stand_in_for_patches_of_the_same_number_and_nothing_else():
    record = make_record(task="editing")
    own = with_encoded(record, features={("metaqueries", 0): features(2, 2), ("vit", 1): features(2, 2)})
    _, context, _, target = sample_of(own).plan
    np.testing.assert_array_equal(context.pixels, features(2, 2))
    np.testing.assert_array_equal(target.query_pixels, features(2, 2))
    np.testing.assert_array_equal(target.pixels, sample_of(record).plan[-1].pixels)
    assert sample_lengths(sample_of(own).plan, LAYOUT) == sample_lengths(sample_of(record).plan, LAYOUT)


def test_with_moments_and_features_no_picture_is_decoded():
    record = make_record(image=b"not a picture")
    moments, targets = np.zeros((2, 2, 8), np.float32), {("metaqueries", 0): features(2, 2)}
    both = with_encoded(with_encoded(record, pictures=(moments,)), features=targets)
    assert sample_of(both)
    assert as_stored(both) == record
    with pytest.raises(RecordError, match="field image"):
        sample_of(with_encoded(record, features=targets))


def test_a_picture_that_could_not_be_encoded_skips_its_record():
    problem = RecordError("record 'record0', field image: damaged. Replace the file", "picture_damaged")
    with pytest.raises(RecordError) as raised:
        sample_of(with_encoded(make_record(), features={("metaqueries", 0): problem}))
    assert raised.value.cause == "picture_damaged"

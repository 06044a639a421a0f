"""A survey of records: what a run would read of them."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.made_up_records import (
    LAYOUT,
    make_record,
    make_records,
    mixture_of,
    picture,
    small_config,
    small_tokenizer,
    task_numbers,
)
from uno_jax.data.mixture import Mixture, Part
from uno_jax.data.record import with_encoded
from uno_jax.data.survey import Survey, survey
from uno_jax.data.transforms import encode_png


def survey_of(records, **changes) -> Survey:
    config = small_config(**changes)
    return survey(mixture_of(records, config), config, LAYOUT, small_tokenizer())


def findings_of(*records) -> dict[str, list[str]]:
    """Returns the examples of each finding that has any, and checks its count."""
    found = survey_of([*make_records(4, ("text_to_image",)), *records]).findings
    assert all(finding.count == len(finding.examples) for finding in found)
    return {finding.name: finding.examples for finding in found if finding.count}


def test_ordinary_records_have_no_findings():
    assert findings_of() == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("records with a picture that the autoencoder's transform enlarges", {"image": picture(77, 16, 7)}),
        ("records with an empty text", {"prompt": " "}),
        ("records with an empty text", {"task": "understanding", "prompt": "", "captions": (), "answer": ""}),
        ("records with a caption equal to the prompt", {"prompt": "a dog", "captions": ("A  dog", "two dogs")}),
        ("records with a caption too long for a row", {"captions": ("no " * 40,) * 2}),
        ("records without the caption that the method trains", {"captions": ()}),
        ("records with a special token in a text", {"captions": ("thing <|im_end|>",)}),
        ("records with the prompt of an earlier one", {"prompt": " Thing 2"}),
        ("records with the picture of an earlier one", {"image": picture(1)}),
    ],
)
def test_a_trait_of_a_record_is_counted_and_the_record_is_named(name, changes):
    assert findings_of(make_record(77, **changes)) == {name: ["record77"]}


def test_a_picture_that_hardly_differs_is_named_with_the_earlier_one():
    pixels = np.asarray(Image.open(io.BytesIO(picture(2)))).astype(int) + 1
    brighter = encode_png(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    found = findings_of(make_record(77, image=brighter))
    assert found == {"records with nearly the picture of an earlier one": ["record77 = record2"]}


def test_records_that_cannot_be_read_are_left_out_by_id():
    records = [*make_records(5), make_record(77, image=picture(0)[:200])]
    found = survey_of(records)
    assert [(skip.id, skip.cause) for skip in found.unread] == [("record77", "picture_damaged")]
    assert found.buffers.share_left_out == pytest.approx(1 / 6)


def test_samples_that_are_too_long_are_named():
    found = survey_of([*make_records(5), make_record(77, prompt="thing " * 60)])
    assert [skip.id for skip in found.buffers.long] == ["record77"]


def test_pictures_that_the_method_does_not_read_do_not_count():
    records = make_records(4, ("editing",))
    assert len(survey_of(records).widths) == 2 * len(survey_of(records, method="reca").widths) == 8


def test_pictures_are_looked_at_although_moments_and_features_need_none():
    records, computed = make_records(4, ("editing",)), np.zeros((2, 2, 6), np.float32)
    features = {("metaqueries", 0): computed, ("vit", 1): computed}
    encoded = [with_encoded(record, pictures=(computed, computed), features=features) for record in records]
    np.testing.assert_array_equal(survey_of(encoded).widths, survey_of(records).widths)


def test_only_tasks_that_are_sampled_are_read():
    records = make_records(9)
    found = survey_of(records, task_weights={"editing": 1.0})
    assert found.records == {"editing": 3}
    assert found.buffers.samples == 3


def test_with_weights_samples_are_those_that_a_run_draws():
    records = make_records(20, ("text_to_image", "editing"))
    found = survey_of(records, task_weights={"text_to_image": 3.0, "editing": 1.0})
    edits = found.buffers.lengths[:, 4] > 4  # the latents of source and target
    assert found.buffers.samples == 40
    assert edits.mean() == 0.25


def test_every_record_is_a_tick_of_the_progress():
    ticks = []
    records = make_records(7)
    survey(mixture_of(records, small_config()), small_config(), LAYOUT, small_tokenizer(), lambda: ticks.append(1))
    assert len(ticks) == 7


def test_datasets_of_a_mixture_are_read_with_their_own_methods():
    config = small_config()
    parts = [
        Part(name, replace(config, method=method), weight, records, task_numbers(records))
        for name, method, weight, records in (
            ("many", "uno", 3.0, make_records(24, ("text_to_image",))),
            ("few", "sft", 1.0, make_records(8, ("text_to_image",))),
        )
    ]
    found = survey(Mixture(tuple(parts)), config, LAYOUT, small_tokenizer())
    assert found.records == {"text_to_image of many": 24, "text_to_image of few": 8}
    with_metaqueries = found.buffers.lengths[:, 3] > 0
    assert (len(with_metaqueries), with_metaqueries.mean()) == (32, 0.75)

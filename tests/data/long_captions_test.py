"""Samples whose caption is too long: skipped, or trained on with another caption or without supervision."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from tests.helpers.made_up_records import LAYOUT, make_record, make_records, mixture_of, small_config, small_tokenizer
from uno_jax.batch import REGIONS
from uno_jax.data.buffers import first_buffers
from uno_jax.data.long_captions import shortest_caption
from uno_jax.data.pipeline import PackedBatch, batches_of_mixture
from uno_jax.data.survey import survey

LONG = "no " * 40
TWO_CAPTIONS = make_record(90, captions=(LONG, "no 1", "number 12"))
ONLY_LONG = make_record(91, captions=(LONG, LONG + LONG))
RECORDS = [*make_records(6, ("text_to_image",)), TWO_CAPTIONS, ONLY_LONG]


def take(records, count: int = 1000, host: tuple[int, int] = (0, 1), **changes) -> list[PackedBatch]:
    """Returns batches, by default of an epoch without dropout."""
    defaults = {"long_captions": "replace", "epochs": 1, "text_dropout": 0.0, "max_skipped_share": 1.0}
    config = small_config(**(defaults | changes))
    hosts = {"host_index": host[0], "host_count": host[1]}
    made = batches_of_mixture(mixture_of(records, config), config, LAYOUT, small_tokenizer(), **hosts)
    return list(itertools.islice(made, count))


def texts(packed: list[PackedBatch]) -> list[str]:
    """Returns the captions in the batches."""
    found = []
    for batch in packed:
        ids = batch.batch.caption_ids[batch.batch.caption_loss]
        found += small_tokenizer().decode(ids.tolist()).split("<|im_start|>")[1:]
    return found


def totals(packed: list[PackedBatch]) -> Counter[str]:
    return sum((Counter(batch.stats) for batch in packed), Counter())


def test_the_shortest_caption_takes_the_place_of_one_that_is_too_long():
    packed = take([TWO_CAPTIONS] * 2, epochs=12, shuffle=False)
    assert {text.strip() for text in texts(packed)} == {"no 1", "number 12"}
    count = totals(packed)["other_caption"]
    assert 0 < count < totals(packed)["samples"] == 24
    assert count == totals(packed)["other_caption/caption_tokens"] == sum(len(batch.kept) for batch in packed)


def test_without_a_caption_that_fits_a_sample_trains_the_flow_loss_alone():
    [packed] = take([ONLY_LONG, ONLY_LONG])
    assert packed.stats["samples"] == packed.stats["unsupervised"] == packed.stats["unsupervised/caption_tokens"] == 2
    assert packed.stats["filtered"] == 0
    assert not packed.batch.caption_loss.any()
    assert not packed.batch.query_loss.any()
    assert packed.batch.latent_loss.sum() == 2 * 4
    [kept, _] = packed.kept
    assert (kept.id, kept.cause, kept.outcome) == ("record91", "caption_tokens", "unsupervised")
    assert "caption tokens, but a row has 24: increase data.caption_tokens" in kept.message
    assert dict(kept.needs)["caption"] > 24


def test_by_default_such_samples_are_skipped():
    packed = take([*RECORDS, ONLY_LONG], long_captions="skip")
    assert totals(packed)["filtered/caption_tokens"] >= 2
    assert not any(batch.kept for batch in packed)


def test_other_samples_stay_as_they_are():
    fitting = make_records(8, ("text_to_image",))
    skip, replace = (take(fitting, long_captions=choice) for choice in ("skip", "replace"))
    leaves = (jax.tree.leaves([batch.batch for batch in packed]) for packed in (skip, replace))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sample_that_is_too_long_for_another_region_too_is_skipped():
    [packed] = take([make_record(92, prompt="thing " * 60, captions=(LONG,)), *make_records(2, ("text_to_image",))])
    assert [(skip.cause, dict(skip.needs).keys()) for skip in packed.skipped] == [("text_tokens", {"text"})]
    assert not packed.kept


def test_batches_do_not_depend_on_the_number_of_hosts():
    apart = [take(RECORDS, 4, host=(number, 2), epochs=0) for number in range(2)]
    together = take(RECORDS, 4, epochs=0)
    for one, two, both in zip(*apart, together, strict=True):
        assert one.sample_ids + two.sample_ids == both.sample_ids
        assert Counter(one.kept + two.kept) == Counter(both.kept)
        np.testing.assert_array_equal(
            np.concatenate([one.batch.caption_ids, two.batch.caption_ids]), both.batch.caption_ids
        )
    assert any(batch.kept for batch in together)


@pytest.mark.parametrize("predict", ["validate", "the start of a run"])
@pytest.mark.parametrize("choice", ["skip", "replace"])
def test_the_counts_of_an_epoch_are_predicted(predict, choice):
    records = [*RECORDS, *(make_record(100 + i, captions=TWO_CAPTIONS.captions) for i in range(8))]
    packed = take(records, long_captions=choice)
    config = small_config(long_captions=choice, epochs=1)
    mixture = mixture_of(records, config)
    if predict == "validate":
        buffers = survey(mixture, config, LAYOUT, small_tokenizer()).buffers
    else:
        buffers = first_buffers(mixture, config, LAYOUT, small_tokenizer(), 1000)
    assert sorted(buffers.kept) == sorted(kept for batch in packed for kept in batch.kept)
    assert sorted(buffers.long) == sorted(skip for batch in packed for skip in batch.skipped)
    if choice == "replace":
        assert buffers.outcomes["other_caption"] > 1
        assert buffers.packing is not None
        used = buffers.packing.used.sum(axis=0)[REGIONS.index("caption")] / buffers.packing.samples.sum()
        tokens = sum(np.count_nonzero(batch.batch.caption_ids) for batch in packed) / totals(packed)["samples"]
        assert used == pytest.approx(tokens, rel=0.3)


def test_with_more_room_no_caption_gives_way():
    config = small_config(long_captions="replace")
    buffers = first_buffers(mixture_of(RECORDS, config), config, LAYOUT, small_tokenizer(), 1000)
    assert buffers.kept
    roomy = small_config(long_captions="replace", caption_tokens=buffers.needed("caption"))
    assert not buffers.refilled(roomy).kept
    tight = small_config(long_captions="replace", caption_tokens=shortest_caption(TWO_CAPTIONS, small_tokenizer()))
    assert buffers.refilled(tight).outcomes["other_caption"] >= 1

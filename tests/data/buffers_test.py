"""How the first samples of a run fit its buffers."""

import numpy as np
import pytest

from tests.helpers.made_up_records import (
    LAYOUT,
    make_record,
    make_records,
    mixture_of,
    picture,
    small_config,
    small_inputs,
    small_tokenizer,
)
from uno_jax.batch import REGIONS
from uno_jax.data.buffers import Buffers, check_share, first_buffers, steps_per_epoch
from uno_jax.data.mixture import Group
from uno_jax.data.pipeline import TooManySkipped, first_draws, sampled_groups
from uno_jax.data.samples import SkippedCount, read_sample

LONG = "long " * 60


def buffers_of(records, count: int = 1000, **changes) -> Buffers:
    config = small_config(**changes)
    return first_buffers(mixture_of(records, config), config, LAYOUT, small_tokenizer(), count)


def groups_of(records, config) -> list[Group]:
    return sampled_groups(mixture_of(records, config), config, LAYOUT)


@pytest.mark.parametrize("method", ["uno", "pretrain", "reca"])
def test_lengths_are_those_of_the_samples_that_the_run_draws_first(method):
    records = [make_record(i, image=picture(i, 8 + 3 * i, 20)) for i in range(8)]
    config = small_config(method=method, text_dropout=0.0, vae_dropout=0.0, vit_dropout=0.0)
    (part,) = mixture_of(records, config).parts
    draws = first_draws(groups_of(records, config), config, 8)
    samples = [read_sample(part, number, LAYOUT, small_inputs(), occurrence) for number, occurrence in draws]
    expected = [[len(sample[region]) for region in REGIONS] for sample in samples]
    np.testing.assert_array_equal(buffers_of(records, method=method).lengths, expected)


def test_one_epoch_of_draws_is_each_record_once():
    config = small_config(epochs=1)
    draws = list(first_draws(groups_of(make_records(15), config), config, 100))
    assert sorted(number for number, _ in draws) == list(range(15))
    assert sorted(occurrence for _, occurrence in draws) == [*range(14), 14]


def test_a_sample_that_exceeds_two_regions_counts_in_both():
    records = [*make_records(5), make_record(90, prompt=LONG, captions=("no " * 60,)), make_record(91, image=b"x")]
    buffers = buffers_of(records)
    count = SkippedCount(buffers.skipped)
    assert count.causes == {"text_tokens": 1, "picture_format": 1}
    assert count.over == {"text": 1, "caption": 1}
    assert buffers.share_left_out == pytest.approx(2 / 7)
    needed = {region: buffers.needed(region) for region in ("text", "caption")}
    for region, tokens in needed.items():
        assert f"data.{region}_tokens to {tokens} (1)" in count.advice
    assert buffers_of(records, **{f"{region}_tokens": tokens for region, tokens in needed.items()}).long == []


@pytest.mark.parametrize(("share", "refused"), [(0.2, True), (0.25, False)])
def test_more_than_the_configured_share_is_refused_with_the_field_to_enlarge(share, refused):
    buffers = buffers_of([*make_records(3), make_record(90, prompt=LONG)])
    if not refused:
        check_share(buffers, small_config(max_skipped_share=share), "4 samples")
        return
    with pytest.raises(TooManySkipped) as error:
        check_share(buffers, small_config(max_skipped_share=share), "4 samples")
    assert str(error.value).startswith(
        "1 of 4 samples would be skipped (25.0%), and data.max_skipped_share is 0.2. To keep the longest ones, "
        f"increase data.text_tokens to {buffers.needed('text')} (1). The last one: record 'record90'"
    )


def test_an_epoch_takes_as_many_steps_as_the_packed_rows_say():
    records = make_records(12, ("text_to_image",))
    buffers, config = buffers_of(records), small_config()
    steps = steps_per_epoch(buffers, groups_of(records, config), config)
    assert buffers.packing is not None
    assert steps == {"all": 12 / (config.rows * buffers.packing.samples_per_row)}


def test_with_weights_each_task_has_an_epoch_of_its_own():
    records, weights = make_records(12, ("text_to_image", "editing")), {"text_to_image": 3.0, "editing": 1.0}
    buffers, config = buffers_of(records, task_weights=weights), small_config(task_weights=weights)
    steps = steps_per_epoch(buffers, groups_of(records, config), config)
    assert steps["editing"] == pytest.approx(3 * steps["text_to_image"])

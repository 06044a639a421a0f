"""The data pipeline: determinism, resuming, hosts, shards, skipped samples, and errors at start-up."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.made_up_records import (
    LAYOUT,
    make_record,
    make_records,
    mixture_of,
    picture,
    small_config,
    small_tokenizer,
)
from tests.helpers.paths import ROOT
from uno_jax.batch import REGIONS, TASKS
from uno_jax.data.methods import METHODS
from uno_jax.data.pipeline import PackedBatch, batches_of_mixture
from uno_jax.data.transforms import ImageTransform
from uno_jax.process.errors import UserError

RECORDS = make_records(30)


def batches(config=None, records=RECORDS, layout=LAYOUT, **hosts):
    config = config or small_config()
    return batches_of_mixture(mixture_of(records, config), config, layout, small_tokenizer(), **hosts)


def take(iterator, count: int) -> list[PackedBatch]:
    return list(itertools.islice(iterator, count))


def assert_same(actual: list[PackedBatch], expected: list[PackedBatch]) -> None:
    assert [b.sample_ids for b in actual] == [b.sample_ids for b in expected]
    leaves = (jax.tree.leaves([b.batch for b in packed]) for packed in (actual, expected))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)


def drawn_ids(packed: list[PackedBatch]) -> list[str]:
    return [id_ for batch in packed for row in batch.sample_ids for id_ in row]


def occurrences(packed: list[PackedBatch]) -> list[int]:
    """Returns the occurrence of every sample with a latent image."""
    found = []
    for batch, *_ in packed:
        for samples, numbers in zip(batch.generation.sample, batch.latent_source.occurrence, strict=True):
            pairs = set(zip(samples.tolist(), numbers.tolist(), strict=True))
            found += [occurrence for sample, occurrence in pairs if sample > 0]
    return found


def test_the_same_seed_gives_the_same_batches():
    assert_same(take(batches(), 3), take(batches(), 3))


def test_another_seed_gives_other_batches():
    assert take(batches(), 1)[0].sample_ids != take(batches(small_config(seed=1)), 1)[0].sample_ids


@pytest.mark.parametrize("change", [{"prefetch": 0}, {"prefetch": 5}, {"read_threads": 3}])
def test_prefetching_and_threads_change_nothing(change):
    assert_same(take(batches(small_config(**change)), 3), take(batches(), 3))


@settings(max_examples=12)
@given(done=st.integers(0, 9), ahead=st.integers(0, 3), bins=st.integers(1, 5))
def test_a_restored_iterator_continues_bit_for_bit(done, ahead, bins):
    config = small_config(prefetch=ahead, packing_bins=bins)
    unbroken = batches(config)
    take(unbroken, done)
    state = json.loads(json.dumps(unbroken.get_state()))
    restored = batches(config)
    restored.set_state(state)
    assert_same(take(restored, 3), take(unbroken, 3))
    assert restored.get_state() == unbroken.get_state()


def test_restoring_discards_what_was_prefetched():
    iterator = batches()
    state = iterator.get_state()
    first = take(iterator, 3)
    iterator.set_state(state)
    assert_same(take(iterator, 3), first)


def test_the_state_is_that_of_the_last_batch_returned():
    states = []
    for prefetch in (0, 4):
        iterator = batches(small_config(prefetch=prefetch))
        take(iterator, 3)
        states.append(iterator.get_state())
    assert states[0] == states[1]


def test_the_state_is_small_and_named_by_shard():
    iterator = batches()
    take(iterator, 2)
    assert sorted(iterator.get_state()) == ["shard_0000_of_0002", "shard_0001_of_0002"]
    assert len(json.dumps(iterator.get_state())) < 300


def stack_hosts(parts: list[PackedBatch]) -> PackedBatch:
    batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *(part.batch for part in parts))
    return PackedBatch(batch, sum((part.sample_ids for part in parts), []), {}, [], [])


@pytest.mark.parametrize("changes", [{}, {"epochs": 1, "shuffle": False}])
def test_hosts_together_make_the_rows_of_one_host(changes):
    config = small_config(**changes)
    alone = take(batches(config), 4)
    hosts = [take(batches(config, host_index=i, host_count=2), 4) for i in range(2)]
    assert_same([stack_hosts(parts) for parts in zip(*hosts, strict=True)], alone)


def test_a_run_resumes_with_another_number_of_hosts():
    alone = batches()
    take(alone, 3)
    hosts = [batches(host_index=i, host_count=2) for i in range(2)]
    for host in hosts:
        host.set_state(alone.get_state())
    parts = zip(*(take(host, 2) for host in hosts), strict=True)
    assert_same([stack_hosts(p) for p in parts], take(alone, 2))

    back = batches()
    back.set_state(hosts[0].get_state() | hosts[1].get_state())
    assert_same(take(back, 2), take(alone, 2))


def test_a_state_of_other_shards_is_rejected():
    with pytest.raises(ValueError, match=r"lacks shard_0000_of_0004.*virtual_shards"):
        batches(small_config(virtual_shards=4)).set_state(batches().get_state())


def test_occurrences_never_repeat():
    found = occurrences(take(batches(small_config(method="sft")), 30))
    assert len(found) == len(set(found)) > len(RECORDS)
    assert max(found) < 2**31


def test_a_sample_is_random_only_by_its_occurrence():
    """The first row of a shard does not depend on how many rows follow it."""
    narrow, wide = (take(batches(small_config(rows=rows)), 1)[0] for rows in (2, 4))
    np.testing.assert_array_equal(narrow.batch.text_ids[0], wide.batch.text_ids[0])
    np.testing.assert_array_equal(narrow.batch.caption_ids[0], wide.batch.caption_ids[0])


def test_endless_data_are_reshuffled_every_epoch():
    config = small_config(rows=1, virtual_shards=1)
    ids = drawn_ids(take(batches(config), 40))
    first, second = ids[: len(RECORDS)], ids[len(RECORDS) : 2 * len(RECORDS)]
    # First-fit packing reorders a few samples, also across epochs.
    assert len(set(first)) > 0.8 * len(RECORDS)
    assert first != second


@pytest.mark.parametrize("virtual_shards", [1, 4])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_finite_pass_uses_every_sample_once(virtual_shards, shuffle):
    packed = list(batches(small_config(epochs=1, shuffle=shuffle, virtual_shards=virtual_shards)))
    assert sorted(drawn_ids(packed)) == sorted(record.id for record in RECORDS)
    assert {batch.batch.text_ids.shape[0] for batch in packed} == {4}


def test_a_finite_pass_in_order_keeps_the_order():
    config = small_config(epochs=1, shuffle=False, rows=1, virtual_shards=1, packing_bins=1)
    assert drawn_ids(list(batches(config))) == [record.id for record in RECORDS]


def test_the_end_of_a_finite_pass_is_padded():
    (packed,) = list(batches(small_config(epochs=1), records=make_records(1)))
    assert packed.sample_ids == [["record0"], [], [], []]
    assert not packed.batch.understanding.sample[1:].any()


def test_a_finished_pass_stays_finished_when_restored():
    iterator = batches(small_config(epochs=1))
    list(iterator)
    again = batches(small_config(epochs=1))
    again.set_state(iterator.get_state())
    assert list(again) == []


def test_task_weights_are_proportions_of_the_samples():
    config = small_config(task_weights={"text_to_image": 3.0, "editing": 1.0, "understanding": 0.0})
    ids = drawn_ids(take(batches(config), 40))
    tasks = [RECORDS[int(id_.removeprefix("record"))].task for id_ in ids]
    assert "understanding" not in tasks
    assert tasks.count("text_to_image") / len(tasks) == pytest.approx(0.75, abs=0.05)


def test_rows_hold_no_more_samples_than_allowed():
    packed = take(batches(small_config(max_samples_per_row=1)), 4)
    assert {len(row) for batch in packed for row in batch.sample_ids} == {1}


def test_methods_see_the_same_records_with_the_same_draws_where_rows_hold_a_fixed_number():
    room = {f"{region}_tokens": 120 for region in REGIONS}
    fixed = {"rows": 2, "max_samples_per_row": 2, "task_weights": {"text_to_image": 1.0, "editing": 1.0}, **room}
    expected = take(batches(small_config(method="uno", **fixed)), 20)
    assert {len(row) for batch in expected for row in batch.sample_ids} == {2}
    assert sorted(occurrences(expected)) == list(range(20 * 2 * 2))
    for method in ("sft", "uno_caption", "uno_visual", "sft_recaption", "reca"):
        actual = take(batches(small_config(method=method, packing_bins=5, **fixed)), 20)
        assert [batch.sample_ids for batch in actual] == [batch.sample_ids for batch in expected], method
        for one, other in zip(actual, expected, strict=True):
            assert sorted(occurrences([one])) == sorted(occurrences([other])), method


@pytest.mark.parametrize("place", [0, 15, 30])
def test_samples_that_fit_no_row_are_skipped_and_reported(place):
    records = RECORDS[:place] + [make_record(99, prompt="long " * 60)] + RECORDS[place:]
    packed = list(batches(small_config(epochs=1, shuffle=False), records=records))
    assert sorted(drawn_ids(packed)) == sorted(record.id for record in RECORDS)
    assert sum(batch.stats["filtered"] for batch in packed) == 1


def test_a_long_sample_is_skipped_even_if_dropout_would_shorten_it():
    records = [*make_records(4), make_record(99, prompt="long " * 60)]
    config = small_config(text_dropout=1.0, epochs=1)
    assert "record99" not in drawn_ids(list(batches(config, records=records)))


def test_skipped_samples_are_named_and_counted_by_cause():
    records = [*make_records(9), make_record(90, prompt="long " * 60), make_record(91, image=b"x")]
    packed = list(batches(small_config(epochs=1), records=records))
    skipped = sorted(skip for batch in packed for skip in batch.skipped)
    assert [(skip.id, skip.cause) for skip in skipped] == [
        ("record90", "text_tokens"),
        ("record91", "picture_format"),
    ]
    assert "needs" in skipped[0].message
    assert "increase data.text_tokens" in skipped[0].message
    assert "record 'record91', field image: not a picture" in skipped[1].message
    totals = sum((Counter(batch.stats) for batch in packed), Counter())
    assert (totals["filtered"], totals["filtered/text_tokens"], totals["filtered/picture_format"]) == (2, 1, 1)


def test_a_picture_above_the_limit_of_the_config_is_skipped():
    records = [make_record(0), make_record(1, image=picture(width=20, height=20))]
    packed = list(batches(small_config(epochs=1, max_picture_pixels=300), records=records))
    assert drawn_ids(packed) == ["record0"]
    assert [skip.cause for batch in packed for skip in batch.skipped] == ["picture_size"]


def test_data_that_never_fit_are_an_error():
    records = [make_record(i, prompt="long " * 60) for i in range(4)]
    advice = r"11 of 11 samples were skipped.*max_skipped_share.*increase data\.text_tokens to [0-9]+ \(11\)"
    with pytest.raises(UserError, match=advice):
        take(batches(records=records), 1)
    with pytest.raises(UserError, match=r"the last 109 were skipped.*increase data\.text_tokens"):
        take(batches(small_config(max_skipped_share=1.0), records=records), 1)


@pytest.mark.parametrize(("share", "stops"), [(0.0, True), (0.1, True), (0.2, False)])
def test_a_configured_share_of_skipped_samples_stops_the_pipeline(share, stops):
    records = [make_record(i, prompt="long " * 60 if i % 7 == 0 else "short") for i in range(70)]
    config = small_config(max_skipped_share=share, epochs=5)
    with pytest.raises(UserError, match="samples were skipped") if stops else nullcontext():
        list(batches(config, records=records))


def test_stats_count_samples_padding_and_missing_captions():
    records = [make_record(0), make_record(1, captions=())]
    (packed,) = list(batches(small_config(epochs=1, virtual_shards=1, rows=1), records=records))
    assert packed.stats["samples"] == 2
    assert packed.stats["without_caption"] == 1
    assert packed.stats["padding/latent"] == 0.5
    assert packed.stats["padding/vit"] == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_batches(method):
    packed = take(batches(small_config(method=method)), 2)
    assert all(batch.stats["samples"] > 0 for batch in packed)
    assert any(batch.batch.caption_loss.any() for batch in packed) == (method in ("uno", "uno_caption"))
    assert any(batch.batch.query_loss.any() for batch in packed) == (method in ("uno", "uno_visual"))
    assert all(batch.batch.latent_loss.any() for batch in packed)


def test_regions_that_a_method_does_not_use_may_be_absent():
    config = small_config(method="sft", caption_tokens=0, query_tokens=0)
    (packed,) = take(batches(config), 1)
    assert packed.batch.caption_ids.shape == packed.batch.query_index.shape == (4, 0)


def test_tokens_carry_the_task_that_they_are_counted_under():
    (packed,) = take(batches(small_config(method="reca", task_weights={"editing": 1.0})), 1)
    tasks = packed.batch.latent_source.task[packed.batch.generation.sample > 0]
    assert set(tasks.tolist()) == {TASKS.index("reconstruction")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "dpo"}, r"data\.method is 'dpo'.*uno, uno_caption"),
        ({"text_dropout": 1.5}, r"data\.text_dropout is 1\.5"),
        ({"seed": -1}, r"data\.seed"),
        ({"rows": 5}, r"data\.rows is 5, not a multiple of data\.virtual_shards = 2"),
        ({"rows": 0}, r"data\.rows is 0"),
        ({"epochs": -1}, r"data\.epochs"),
        ({"virtual_shards": 62, "rows": 62}, r"only 30 records.*lower data\.virtual_shards"),
        ({"task_weights": {"painting": 1.0}}, r"data\.task_weights names 'painting'"),
        ({"task_weights": {"editing": -1.0}}, r"data\.task_weights gives editing the weight -1"),
        (
            {"task_weights": {"reconstruction": 1.0}},
            r"samples reconstruction, but split 'train'.* contains text_to_image",
        ),
        ({"task_weights": {"editing": 0.0}}, r"data\.task_weights samples no task"),
        ({"vae_transform": ImageTransform(16, 8, 4)}, r"data\.vae_transform\.stride is 4, .* patch size \(8"),
        ({"vae_transform": ImageTransform(40, 8, 8)}, r"model\.max_latent_size is 4: lower max_side to 32"),
        ({"vit_transform": ImageTransform(20, 8, 4)}, r"model\.vision\.table_side is 4: lower max_side to 16"),
        ({"metaquery_transform": ImageTransform(12, 4, 4)}, r"can produce 9 patches .*model\.num_metaqueries is 4"),
        ({"text_tokens": 8}, r"data\.text_tokens is 8, but one editing sample"),
        ({"vit_tokens": 3}, r"data\.vit_tokens is 3, but one .* can take 4: .*data\.vit_transform\.max_side"),
        ({"caption_tokens": 2}, r"data\.caption_tokens is 2"),
        ({"query_tokens": 3}, r"data\.query_tokens is 3, .* at least 4 or lower data\.metaquery_transform\.max_side"),
        ({"latent_tokens": 7}, r"data\.latent_tokens is 7, but one editing sample of method uno can take 8"),
        ({"method": "reca", "vit_tokens": 0}, r"data\.vit_tokens is 0"),
    ],
)
def test_invalid_configs_are_rejected_by_field(change, message):
    with pytest.raises(ValueError, match=message):
        batches(small_config(**change))


def test_a_picture_with_more_latent_tokens_than_vision_positions_cannot_be_aligned():
    layout = replace(LAYOUT, align=True, vit_table_side=1)
    config = small_config(method="sft", vit_transform=ImageTransform(4, 4, 4))
    with pytest.raises(ValueError, match=r"2 latent tokens per side.*table_side is 1: lower max_side to 8, or set"):
        batches(config, layout=layout)


def test_shards_that_the_hosts_cannot_share_are_rejected():
    with pytest.raises(ValueError, match=r"data\.virtual_shards is 2, not a multiple of the 3 hosts"):
        batches(host_count=3)


def test_methods_without_metaqueries_need_no_table():
    layout = replace(LAYOUT, num_metaqueries=0)
    assert take(batches(small_config(method="uno_caption"), layout=layout), 1)


SCRIPT = """
from absl import flags
from tests.data.pipeline_test import batches
from tests.helpers.made_up_records import small_config

flags.FLAGS.mark_as_parsed()
left = [batches(small_config(**change)) for change in ({}, {"read_threads": 2}, {"prefetch": 0})]
for iterator in left:
    next(iterator)
"""


def test_a_script_that_leaves_an_iterator_open_ends_quietly():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")

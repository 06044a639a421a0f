"""Mixtures: several datasets with a weight and a method each, sampled into the same rows."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from tests.helpers.made_up_records import (
    LAYOUT,
    VAE_TRANSFORM,
    make_record,
    make_records,
    small_config,
    small_tokenizer,
    task_numbers,
)
from uno_jax.config import from_config_dict, to_config_dict
from uno_jax.data.config import DataConfig, PartConfig
from uno_jax.data.mixture import Mixture, Part, open_mixture, part_configs
from uno_jax.data.pipeline import batches_of_mixture
from uno_jax.data.records import write_records
from uno_jax.data.transforms import ImageTransform

PICTURES = make_records(20, ("text_to_image",))
EDITS = [make_record(100 + i, "editing") for i in range(20)]


def mixture_config(photos=None, edits=None, **changes) -> DataConfig:
    """Returns a config of two datasets, with fields of each."""
    parts = {"photos": PartConfig("photos", **(photos or {})), "edits": PartConfig("edits", **(edits or {}))}
    return small_config(mixture=parts, **changes)


def mixture_of_both(config: DataConfig) -> Mixture:
    records = {"photos": PICTURES, "edits": EDITS}
    return Mixture(
        tuple(
            Part(name, own, config.mixture[name].weight, records[name], task_numbers(records[name]))
            for name, own in part_configs(config).items()
        )
    )


def batches(config: DataConfig, count: int = 20, **hosts):
    made = batches_of_mixture(mixture_of_both(config), config, LAYOUT, small_tokenizer(), **hosts)
    return list(itertools.islice(made, count))


def ids(packed) -> list[str]:
    return [id_ for batch in packed for row in batch.sample_ids for id_ in row]


def kinds(packed) -> Counter[str]:
    """Counts the samples of each dataset, which the number of its records tells."""
    return Counter("edits" if int(id_.removeprefix("record")) >= 100 else "photos" for id_ in ids(packed))


def test_datasets_are_sampled_in_proportion_to_their_weights():
    counts = kinds(batches(mixture_config({"weight": 3.0}, {"weight": 1.0})))
    assert counts["photos"] / counts.total() == pytest.approx(0.75, abs=0.02)


def test_a_dataset_of_weight_0_is_not_sampled():
    assert set(kinds(batches(mixture_config(edits={"weight": 0.0})))) == {"photos"}


def test_the_tasks_of_a_dataset_share_its_weight():
    records = [*EDITS, *(make_record(200 + i, "understanding") for i in range(20))]
    config = mixture_config(
        {"weight": 2.0}, {"task_weights": {"editing": 1.0, "understanding": 3.0}}, method="pretrain"
    )
    photos, _ = mixture_of_both(config).parts
    edits = Part("edits", part_configs(config)["edits"], 1.0, records, task_numbers(records))
    groups = Mixture((photos, edits)).groups()
    assert [(group.name, group.weight) for group in groups] == [
        ("text_to_image of photos", 2.0),
        ("editing of edits", 0.25),
        ("understanding of edits", 0.75),
    ]
    assert groups[2].numbers.tolist() == list(range(40, 60))


def test_each_dataset_has_its_own_method():
    both = batches(mixture_config({"method": "sft"}, {"method": "uno"}))
    assert any(batch.stats["padding/query"] < 1 for batch in both)
    photos = batches(mixture_config({"method": "sft"}, {"method": "uno", "weight": 0.0}))
    assert all(batch.stats["padding/query"] == 1 for batch in photos)


def test_each_dataset_has_its_own_resolution():
    small = batches(mixture_config({"vae_transform": ImageTransform(8, 8, 8)}, {"weight": 0.0}), 1)[0]
    common = batches(mixture_config({}, {"weight": 0.0}), 1)[0]
    tokens, more_tokens = ((1 - packed.stats["padding/latent"]) / packed.stats["samples"] for packed in (small, common))
    assert more_tokens == pytest.approx(4 * tokens)


def test_batches_do_not_depend_on_the_number_of_hosts():
    config = mixture_config({"weight": 3.0}, {"method": "sft"})
    apart = [batches(config, 5, host_index=host, host_count=2) for host in range(2)]
    together = [batch.sample_ids for batch in batches(config, 5)]
    assert [one.sample_ids + two.sample_ids for one, two in zip(*apart, strict=True)] == together


def test_samples_are_counted_by_dataset():
    for batch in batches(mixture_config(), 3):
        counts = kinds([batch])
        assert {name: batch.stats[f"samples/{name}"] for name in counts} == counts
        assert batch.stats["samples"] == counts.total()


def test_tokens_state_their_dataset_if_the_layout_asks_for_it():
    config = mixture_config({"method": "uno"}, {"method": "uno"})
    layout = dataclasses.replace(LAYOUT, datasets=True)
    packed = next(batches_of_mixture(mixture_of_both(config), config, layout, small_tokenizer()))
    batch, row_ids = packed.batch, packed.sample_ids
    for row, names in enumerate(row_ids):
        expected = [int(int(name.removeprefix("record")) >= 100) for name in names]
        for tokens in (batch.text_dataset, batch.caption_source.dataset, batch.latent_source.dataset):
            assert tokens.dtype == np.int32
        sample = batch.generation.sample[row]
        for number, dataset in enumerate(expected, 1):
            assert set(batch.latent_source.dataset[row][sample == number].tolist()) == {dataset}
            text = batch.understanding.sample[row][: batch.text_ids.shape[1]]
            assert set(batch.text_dataset[row][text == number].tolist()) == {dataset}
    assert batches(config, 1)[0].batch.text_dataset is None


def test_an_epoch_has_every_record_of_every_dataset():
    packed = batches(mixture_config({"weight": 5.0}, epochs=1), 1000)
    assert sorted(ids(packed)) == sorted(record.id for record in (*PICTURES, *EDITS))


def test_ids_of_stored_records_begin_with_the_name_of_their_dataset(tmp_path):
    for name, records in (("photos", PICTURES), ("edits", EDITS)):
        write_records(tmp_path / name, name, {"train": lambda r=records: r}, description="", license_text="")
    parts = {name: PartConfig(str(tmp_path / name)) for name in ("photos", "edits")}
    mixture = open_mixture(small_config(mixture=parts), "train")
    assert {mixture[number].id for number in range(20)} == {f"photos:{record.id}" for record in PICTURES}
    assert mixture[20].id.startswith("edits:record1")
    assert len(mixture) == 40


def test_records_that_are_open_can_be_read_with_another_config():
    mixture = mixture_of_both(mixture_config({"method": "sft"}))
    again = mixture.read_with(mixture_config({"method": "sft"}, text_dropout=1.0))
    assert [part.config.text_dropout for part in again.parts] == [1.0, 1.0]
    assert [part.config.method for part in again.parts] == ["sft", "uno"]
    assert [part.records for part in again.parts] == [part.records for part in mixture.parts]


def test_a_config_with_a_mixture_survives_conversion():
    config = mixture_config({"weight": 2.0, "vae_transform": VAE_TRANSFORM}, {"task_weights": {"editing": 1.0}})
    assert from_config_dict(to_config_dict(config), DataConfig) == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: small_config(mixture={"a/b": PartConfig("x")}), "data.mixture names a dataset 'a/b'"),
        (lambda: mixture_config({"weight": -1.0}), "data.mixture.photos.weight is -1.0"),
        (lambda: mixture_config({"weight": 0.0}, {"weight": 0.0}), "every dataset the weight 0"),
        (lambda: mixture_config({"method": "unknown"}), "data.mixture.photos: data.method is 'unknown'"),
        (
            lambda: mixture_config({"task_weights": {"editing": 1.0}}),
            "data.mixture.photos.task_weights samples editing",
        ),
    ],
)
def test_a_wrong_field_of_a_dataset_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        batches(config(), 1)


def test_a_missing_dataset_is_named():
    with pytest.raises(ValueError, match="config.data.mixture.photos.directory: 'photos': there is no such folder"):
        open_mixture(mixture_config(), "train")

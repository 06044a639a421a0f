"""Datasets of prepare_data as sources."""

import pytest

from tests.helpers.made_up_records import make_record, make_records
from tests.helpers.made_up_sources import read_all, read_splits, values_of
from uno_jax.data.records import write_records
from uno_jax.data.sources.prepared import PREPARED
from uno_jax.data.sources.source import DataSourceError
from uno_jax.process.errors import UserError


def test_records_and_splits_stay_as_they_are(tmp_path):
    splits = {"train": lambda: make_records(6), "odd": lambda: [make_record(7)]}
    write_records(tmp_path / "d", "toy", splits, description="Toys.", license_text="None.")
    splits = read_splits(PREPARED, prepared=tmp_path / "d")
    read = {split: sorted(records, key=lambda record: record.id) for split, records in splits.items()}
    assert read == {"train": make_records(6), "odd": [make_record(7)]}


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(DataSourceError, match="is no dataset of prepare_data"):
        PREPARED.identity(values_of(PREPARED, prepared=tmp_path))


def test_a_missing_shard_is_refused_before_anything_is_read(tmp_path):
    write_records(tmp_path / "d", "toy", {"train": lambda: make_records(6)}, description="", license_text="")
    for shard in (tmp_path / "d").glob("*array_record*"):
        shard.unlink()
    with pytest.raises(UserError, match="d"):
        read_all(PREPARED, prepared=tmp_path / "d")

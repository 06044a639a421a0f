"""The same records give the same dataset, whatever the format that they come in."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.made_up_sources import every_format, made_of_jsonl, values_of
from uno_jax.data.record import Record
from uno_jax.data.records import open_records
from uno_jax.data.sources.registry import SOURCES
from uno_jax.prepare_data import Request, prepare


def prepared(folder: Path, source: str, **options) -> list[Record]:
    request = Request(SOURCES[source], values_of(SOURCES[source], **options), folder / "out", vocab_size=300)
    prepare(request, Console(quiet=True))
    return list(open_records(folder / "out", "train"))


@pytest.fixture(scope="module")
def as_jsonl(tmp_path_factory):
    """Returns a function that gives the dataset of records from a JSONL file."""
    return made_of_jsonl(prepared, tmp_path_factory)


@every_format
def test_every_format_gives_the_dataset_of_the_same_records_as_jsonl(tmp_path, as_jsonl, source, write, records):
    found = prepared(tmp_path, source, **write(tmp_path, records))
    assert found == as_jsonl(records)

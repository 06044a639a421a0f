"""The same records give the same dataset, whatever the format that they come in."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers import made_up_sources as made_up
from tests.helpers.made_up_sources import ROUNDS, SINGLE, TURNS, values_of
from uno_jax.data.record import Record
from uno_jax.data.records import open_records
from uno_jax.data.sources.registry import SOURCES
from uno_jax.prepare_data import Request, prepare

ALL = (*SINGLE, *ROUNDS, *TURNS)


def prepared(folder: Path, source: str, **options) -> list[Record]:
    request = Request(SOURCES[source], values_of(SOURCES[source], **options), folder / "out", vocab_size=300)
    prepare(request, Console(quiet=True))
    return list(open_records(folder / "out", "train"))


@pytest.fixture(scope="module")
def as_jsonl(tmp_path_factory):
    """Returns the dataset of records from a JSONL file, prepared once for each tuple of records."""
    known: list[tuple[tuple, list[Record]]] = []

    def read(records):
        for those, result in known:
            if those == records:
                return result
        folder = tmp_path_factory.mktemp("jsonl")
        known.append((records, prepared(folder, "jsonl", **made_up.write_jsonl(folder, records))))
        return known[-1][1]

    return read


@pytest.mark.parametrize(
    ("source", "write", "records"),
    [
        ("csv", made_up.write_csv, ALL),
        ("parquet", made_up.write_parquet, ALL),
        ("parquet", made_up.write_bagel_pairs, SINGLE[:1]),
        ("parquet", made_up.write_bagel_edits, ROUNDS),
        ("conversations", made_up.write_conversations, TURNS),
        ("webdataset", made_up.write_webdataset, ALL),
        ("hugging_face", made_up.write_hugging_face, ALL),
        ("tfds", made_up.write_tfds, SINGLE),
        ("prepared", made_up.write_prepared, ALL),
    ],
    ids=lambda value: getattr(value, "__name__", "").removeprefix("write_") or None,
)
def test_every_format_gives_the_dataset_of_the_same_records_as_jsonl(tmp_path, as_jsonl, source, write, records):
    found = prepared(tmp_path, source, **write(tmp_path, records))
    assert found == as_jsonl(records)

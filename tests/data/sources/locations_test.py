"""Paths and URLs of sources."""

import io
import os
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from tests.helpers.made_up_sources import read_all, square
from uno_jax.data.sources.csv_table import CSV
from uno_jax.data.sources.jsonl import JSONL
from uno_jax.data.sources.locations import find_files, folder_state, location
from uno_jax.data.sources.parquet import PARQUET
from uno_jax.data.sources.source import DataSourceError


@pytest.mark.parametrize("url", ["s3://bucket/a", "http://host/a.parquet", "hdfs://a", "file:///a"])
def test_a_scheme_that_nothing_reads_is_refused(url):
    with pytest.raises(DataSourceError, match="--parquet: nothing here reads .* or gs://"):
        location("parquet", url)


def test_a_bucket_without_its_library_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DataSourceError, match=r"gs:// needs gcsfs.*pip install '\.\[gcs\]'"):
        location("parquet", "gs://bucket/folder")


class Bucket(MemoryFileSystem):
    """A file system in memory in the place of Google Cloud Storage."""

    protocol = ("gcs", "gs")
    store: dict = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://").removeprefix("gcs://"))


@pytest.fixture
def bucket(monkeypatch):
    """Returns a function that writes a file into a bucket."""
    monkeypatch.setitem(_registry, "gcs", Bucket)

    def write(name, content):
        with fsspec.open(f"gcs://bucket/{name}", "wb") as file:
            file.write(content)

    yield write
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]


def test_files_of_a_bucket_are_read_through_its_file_system(bucket):
    content = io.BytesIO()
    pq.write_table(pa.table({"image": [square(1)], "prompt": ["one"]}), content)
    bucket("data/a.parquet", content.getvalue())
    [found] = find_files("parquet", "gs://bucket/data", (".parquet",), "files")
    assert found.name == "a.parquet"
    [record], _ = read_all(PARQUET, parquet="gs://bucket/data")
    assert record.prompt == "one"


@pytest.mark.parametrize(
    ("source", "name", "content"),
    [
        (
            JSONL,
            "jsonl",
            b'{"id": "1", "image": "a/1.png", "prompt": "one"}\n{"id": "2", "image": "../1.png", "prompt": "x"}',
        ),
        (CSV, "csv", b"image,prompt\na/1.png,one\n../1.png,x\n"),
    ],
)
def test_a_folder_of_pictures_may_be_in_a_bucket(bucket, source, name, content):
    bucket("records", content)
    bucket("images/a/1.png", square(1))
    bucket("1.png", square(2))
    [record], [rejection] = read_all(source, images="gs://bucket/images", **{name: "gs://bucket/records"})
    assert record.image == square(1)
    assert "leads out of the image folder" in rejection.problem


def test_a_missing_file_of_a_bucket_is_named(bucket):
    with pytest.raises(DataSourceError, match="there is no file gs://bucket/records"):
        read_all(CSV, images="gs://bucket/images", csv="gs://bucket/records")


def test_a_folder_may_hold_names_that_are_not_text(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"")
    assert folder_state("images", tmp_path) == folder_state("images", tmp_path)

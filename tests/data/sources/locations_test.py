"""Paths and URLs of sources."""

import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from tests.helpers.made_up_sources import read_all, square
from uno_jax.data.sources.locations import find_files, location
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

    protocol = "gs"
    store: dict = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


def test_files_of_a_bucket_are_read_through_its_file_system(monkeypatch):
    monkeypatch.setitem(_registry, "gs", Bucket)
    with fsspec.open("gs://bucket/data/a.parquet", "wb") as file:
        pq.write_table(pa.table({"image": [square(1)], "prompt": ["one"]}), file)
    [found] = find_files("parquet", "gs://bucket/data", (".parquet",), "files")
    assert found.name == "a.parquet"
    [record], _ = read_all(PARQUET, parquet="gs://bucket/data")
    assert record.prompt == "one"

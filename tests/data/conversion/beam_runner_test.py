"""Apache Beam gives the same dataset as processes of this machine."""

import dataclasses
import importlib.util
import os
import sys

import pytest
from rich.console import Console

from tests.helpers.made_up_sources import values_of, write_hugging_face, write_jsonl, write_parquet
from uno_jax import prepare_data
from uno_jax.data.sources.registry import SOURCES
from uno_jax.prepare_data import Beam, Request, prepare

RECORDS = tuple({"id": f"r{n}", "image": n, "prompt": f"square {n}"} for n in range(20))
DIRECT = ("--runner=FnApiRunner",)

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed (extra `beam`)"
)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_problems(write):
    """Returns a writer of records of which one has the id of an earlier one, and one has no prompt."""
    return lambda folder, records: write(folder, (*records[:9], {**records[9], "id": "r0"}, {"id": "x", "image": 1}))


@needs_beam
@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("jsonl", write_jsonl),
        ("jsonl", with_problems(write_jsonl)),
        ("parquet", write_parquet),
        ("hugging_face", write_hugging_face),
    ],
)
def test_a_pipeline_gives_the_bytes_of_processes(tmp_path, monkeypatch, source, write):
    monkeypatch.setattr("uno_jax.data.storage.SHARD_BYTES", 500)
    (tmp_path / "data").mkdir()
    values = values_of(SOURCES[source], **write(tmp_path / "data", RECORDS), test_fraction=0.2)
    request = Request(SOURCES[source], values, tmp_path / "one", vocab_size=300, processes=1)
    prepare(request, Console(quiet=True))
    prepare(
        dataclasses.replace(request, out=tmp_path / "two", beam=Beam(DIRECT), records_per_part=3), Console(quiet=True)
    )
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert sorted(os.listdir(tmp_path)) == ["data", "one", "two"]


@needs_beam
def test_workers_may_share_another_folder_with_this_machine(tmp_path):
    (tmp_path / "data").mkdir()
    values = values_of(SOURCES["jsonl"], **write_jsonl(tmp_path / "data", RECORDS))
    request = Request(SOURCES["jsonl"], values, tmp_path / "one", vocab_size=300, processes=1)
    prepare(request, Console(quiet=True))
    given = [f"--{name}={value}" for name, value in values.items()]
    flags = [f"--beam_flags={' '.join(DIRECT)}", f"--beam_folder={tmp_path / 'shared'}", "--vocab_size=300"]
    prepare_data.main(["--dataset=jsonl", *given, f"--out={tmp_path / 'two'}", "--runner=beam", *flags])
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert os.listdir(tmp_path / "shared") == []


def test_without_beam_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(SystemExit, match=r"--runner=beam needs apache_beam.*pip install '\.\[beam\]'"):
        prepare_data.main([f"--out={tmp_path / 'out'}", "--runner=beam"])


def test_flags_of_beam_are_refused_for_processes(tmp_path):
    with pytest.raises(SystemExit, match=r"--beam_flags and --beam_folder: only for --runner=beam"):
        prepare_data.main([f"--out={tmp_path / 'out'}", "--beam_flags=--runner=DirectRunner"])

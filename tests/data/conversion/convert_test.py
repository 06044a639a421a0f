"""The shards of a dataset depend neither on processes, nor on parts, nor on kills."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from tests.helpers.made_up_sources import square, values_of, write_jsonl
from tests.helpers.paths import ROOT
from uno_jax.data.records import open_records
from uno_jax.data.sources.registry import SOURCES
from uno_jax.prepare_data import Request, prepare
from uno_jax.process.work_folder import WorkError

RECORDS = tuple({"id": f"r{n}", "image": n, "prompt": f"square {n}"} for n in range(40))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    values = values_of(SOURCES["jsonl"], **write_jsonl(folder, RECORDS), test_fraction=0.2)
    return Request(SOURCES["jsonl"], values, folder / "out", vocab_size=300, processes=1)


@pytest.fixture(scope="module")
def unbroken(request_):
    prepare(request_, Console(quiet=True))
    return contents(request_.out)


def test_the_dataset_does_not_depend_on_processes_and_parts(request_, unbroken, tmp_path):
    prepare(dataclasses.replace(request_, out=tmp_path / "out", processes=2, records_per_part=3), Console(quiet=True))
    assert contents(tmp_path / "out") == unbroken


def test_records_are_divided_among_shards_in_one_order(request_, unbroken, tmp_path, monkeypatch):
    monkeypatch.setattr("uno_jax.data.storage.SHARD_BYTES", 500)
    prepare(dataclasses.replace(request_, out=tmp_path / "out"), Console(quiet=True))
    assert len(list((tmp_path / "out").glob("jsonl-train.*"))) > 3
    one, several = (open_records(folder, "train") for folder in (request_.out, tmp_path / "out"))
    assert list(one) == list(several)
    several.check()


def command(request, out, *options):
    given = [f"--{name}={value}" for name, value in request.values.items()]
    arguments = ["--dataset=jsonl", *given, "--vocab_size=300", f"--out={out}", "--records_per_part=2", *options]
    return [sys.executable, "-m", "uno_jax.prepare_data", *arguments]


def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_bytes(request_, unbroken, tmp_path):
    out, parts = tmp_path / "out", tmp_path / ".out.partial-0" / "parts"
    process = subprocess.Popen(command(request_, out), cwd=ROOT, stdout=subprocess.DEVNULL)
    while len(list(parts.glob("*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    converted = {path: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    request = dataclasses.replace(request_, out=out, records_per_part=2)
    with pytest.raises(WorkError, match=r"another value of vocab_size \(300, now 400\)"):
        prepare(dataclasses.replace(request, vocab_size=400), Console(quiet=True))
    assert {path: path.stat().st_mtime_ns for path in converted} == converted  # a worker may yet finish its part
    prepare(request, Console(quiet=True))
    assert contents(out) == unbroken
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("pattern", ["parts/part-*-00000001.bin", "parts/part-*-00000001.json", "made/*-train.*-00000"])
def test_a_flipped_bit_in_unfinished_work_is_named_and_that_part_is_made_again(
    request_, unbroken, tmp_path, monkeypatch, capsys, pattern
):
    request = dataclasses.replace(request_, out=tmp_path / "out", records_per_part=2)
    with monkeypatch.context() as patched:
        patched.setattr("uno_jax.prepare_data._write_contact_sheet", lambda made: {}["stopped here"])
        with pytest.raises(KeyError, match="stopped here"):
            prepare(request, Console(quiet=True))
    [damaged] = (tmp_path / ".out.partial-0").glob(pattern)
    whole = damaged.read_bytes()
    position = whole.index(b"square")
    damaged.write_bytes(whole[:position] + b"c" + whole[position + 1 :])
    prepare(request, Console(quiet=True))
    assert contents(tmp_path / "out") == unbroken
    [line] = capsys.readouterr().err.splitlines()
    assert damaged.stem in line
    assert "damaged since it was written" in line
    assert line.endswith("again")


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [0.2 * n for n in range(1, 16)])
def test_a_kill_at_any_moment_changes_nothing(request_, unbroken, tmp_path, kill_after):
    out = tmp_path / "out"
    process = subprocess.Popen(command(request_, out, "--processes=2"), cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / ".out.partial-0").exists():
        time.sleep(0.001)
    time.sleep(kill_after)
    process.kill()
    process.wait()
    prepare(dataclasses.replace(request_, out=out, records_per_part=2), Console(quiet=True))
    assert contents(out) == unbroken
    assert os.listdir(tmp_path) == ["out"]


def test_pictures_of_one_colour_are_stored_byte_for_byte(request_, unbroken):
    records = {record.id: record for record in open_records(request_.out, "train")}
    assert all(record.image == square(int(id_[1:])) for id_, record in records.items())

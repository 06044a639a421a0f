"""More records for a dataset: what it has stays as it is."""

import dataclasses
import json
import os

import pytest
from rich.console import Console

from tests.helpers.made_up_sources import square, values_of, write_jsonl
from uno_jax import prepare_data
from uno_jax.data.records import open_records, record_tasks
from uno_jax.data.sources.registry import SOURCES
from uno_jax.prepare_data import PrepareError, Request, prepare
from uno_jax.process.errors import UserError

RECORDS = tuple({"id": f"r{n}", "image": n, "prompt": f"square {n}"} for n in range(12))
EDITS = ({"id": "c", "images": [7, 8, 9], "instructions": [["darker"], ["lighter"]]},)


def request_of(folder, records, out, **changes):
    folder.mkdir()
    values = values_of(SOURCES["jsonl"], **write_jsonl(folder, records), test_fraction=0.3)
    return dataclasses.replace(Request(SOURCES["jsonl"], values, out, vocab_size=300, processes=1), **changes)


@pytest.fixture
def out(tmp_path):
    out = tmp_path / "out"
    prepare(request_of(tmp_path / "first", RECORDS[:8], out), Console(quiet=True))
    return out


def request_again(tmp_path, out):
    """The request that made the dataset."""
    request = request_of(tmp_path / f"{len(os.listdir(tmp_path))}", (), out)
    jsonl, images = tmp_path / "first" / "records.jsonl", tmp_path / "first" / "images"
    return dataclasses.replace(request, values={**request.values, "jsonl": str(jsonl), "images": str(images)})


def append(tmp_path, out, records):
    request = request_of(tmp_path / "second", records, out, append=True)
    prepare(request, Console(quiet=True))
    return request


def manifest(out):
    return json.loads((out / "dataset.json").read_text())


def shards(out):
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in out.glob("*.array_record-*")}


def ids(out):
    return sorted(record.id for split in ("train", "test") for record in open_records(out, split))


def test_new_records_are_in_shards_of_their_own_after_the_old_ones(tmp_path, out):
    before, train = shards(out), list(open_records(out, "train"))
    append(tmp_path, out, (*RECORDS, *EDITS))
    assert before.items() <= shards(out).items()
    assert ids(out) == sorted([record["id"] for record in RECORDS] + ["c/round-1", "c/round-2"])
    assert list(open_records(out, "train"))[: len(train)] == train
    open_records(out, "train").check()


def test_the_files_of_the_dataset_tell_of_all_records(tmp_path, out):
    first = manifest(out)
    request = append(tmp_path, out, (*RECORDS, *EDITS))
    for split, counts in manifest(out)["records"].items():
        records = list(open_records(out, split))
        assert (out / f"ids-{split}.txt").read_text().split() == [record.id for record in records]
        assert len(record_tasks(out, split)) == sum(counts.values()) == len(records)
    made = manifest(out)
    assert made["parameters"] == first["parameters"]
    assert made["left_out"] == {"records": 8, "by_cause": {"already_there": 8}}
    assert sum(made["histograms"]["longest_side"]["count"]) == 12 + 4
    assert made["files"].keys() == {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and path.name != "dataset.json"
    }
    assert prepare_data._parameters(request) in made["appended"]


def test_the_tokenizer_and_other_files_stay(tmp_path, out):
    (out / "notes.txt").write_text("mine")
    vocabulary = (out / "tokenizer" / "vocab.json").read_bytes()
    append(tmp_path, out, RECORDS)
    assert (out / "tokenizer" / "vocab.json").read_bytes() == vocabulary
    assert (out / "notes.txt").read_text() == "mine"


def test_the_same_command_again_adds_nothing(tmp_path, out, capsys):
    request = append(tmp_path, out, RECORDS)
    before = (out / "dataset.json").read_bytes()
    prepare(request, Console())
    assert "nothing to do" in capsys.readouterr().out
    assert (out / "dataset.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["first", "out", "second"]


def test_records_that_are_all_there_change_nothing(tmp_path, out):
    before = (out / "dataset.json").read_bytes()
    append(tmp_path, out, RECORDS[2:5])
    assert (out / "dataset.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["first", "out", "second"]


def test_an_append_that_is_interrupted_leaves_the_dataset_as_it_was(tmp_path, out, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    request = request_of(tmp_path / "second", RECORDS, out, append=True)
    with monkeypatch.context() as patched:
        patched.setattr(prepare_data, "_write_contact_sheet", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(request, Console(quiet=True))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    prepare(request, Console(quiet=True))
    assert ids(out) == sorted(record["id"] for record in RECORDS)


def test_there_must_be_a_dataset(tmp_path):
    with pytest.raises(PrepareError, match="is no dataset. Give the dataset to append to"):
        append(tmp_path, tmp_path / "out", RECORDS)


def test_the_tokenizer_of_a_dataset_cannot_be_chosen_again(tmp_path):
    with pytest.raises(SystemExit, match="the dataset keeps its records and its tokenizer"):
        prepare_data.main([f"--out={tmp_path}", "--append", "--vocab_size=400"])


def test_records_that_are_left_out_are_counted_and_listed_and_not_rejected(tmp_path, capsys):
    request = request_of(tmp_path / "first", RECORDS, tmp_path / "out", strict=True)
    (tmp_path / "first" / "images" / "3.png").write_bytes(square(3, 4))
    (tmp_path / "first" / "images" / "5.png").write_bytes(square(5, 16))
    values = {**request.values, "min_side": 8, "max_side": 12}
    prepare(dataclasses.replace(request, values=values), Console(soft_wrap=True))
    printed = capsys.readouterr().out
    assert "1 records left out (min_side: 1), listed in left_out.jsonl" in printed
    assert "1 pictures rewritten (scaled: 1)" in printed
    listed = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [(entry["id"], entry["cause"]) for entry in listed] == [("r3", "min_side")]
    assert manifest(tmp_path / "out")["left_out"] == {"records": 1, "by_cause": {"min_side": 1}}
    assert manifest(tmp_path / "out")["rewritten_pictures"] == {"scaled": 1}


@pytest.mark.parametrize("name", ["ids-train.txt", "tokenizer/vocab.json", "jsonl-train.array_record-00000"])
def test_a_dataset_with_a_damaged_file_is_refused_by_its_name_and_can_be_prepared_again(tmp_path, out, name):
    request = request_of(tmp_path / "second", RECORDS, out, append=True)
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole[:-1])
    for again in (request, request_again(tmp_path, out)):
        with pytest.raises(PrepareError, match=f"{name} is missing, or not as it was written"):
            prepare(again, Console(quiet=True))
    prepare(dataclasses.replace(request_again(tmp_path, out), overwrite=True), Console(quiet=True))
    assert (out / name).read_bytes() == whole


@pytest.mark.parametrize("content", ["{}", '{"format": 2, "parameters": []}', '{"format": '])
def test_a_damaged_manifest_is_refused_by_its_name(tmp_path, out, content):
    (out / "dataset.json").write_text(content)
    for append in (False, True):
        with pytest.raises(UserError, match="dataset.json"):
            prepare(dataclasses.replace(request_again(tmp_path, out), append=append), Console(quiet=True))


@pytest.mark.parametrize(
    ("records", "message"),
    [((), "the source holds no records"), (({"id": "new", "image": 1, "prompt": 5},), "no record can be added")],
)
def test_records_of_which_none_can_be_added_are_refused(tmp_path, out, records, message):
    before = manifest(out)
    with pytest.raises(PrepareError, match=message):
        append(tmp_path, out, records)
    assert manifest(out) == before

"""The command prepare_data: a dataset is written completely or not at all."""

import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from PIL import Image
from rich.console import Console

from tests.helpers.paths import REFERENCE, ROOT
from uno_jax import prepare_data
from uno_jax.data.openmoji import dataset as openmoji
from uno_jax.data.openmoji.glyphs import read_glyph
from uno_jax.data.record import Record
from uno_jax.data.records import open_records
from uno_jax.data.sources.source import DataSource, Made, Opened, Option, Rejection, open_records_of
from uno_jax.data.tokenizer import Tokenizer
from uno_jax.prepare_data import PrepareError, Request


@pytest.fixture
def user_data(tmp_path):
    (tmp_path / "images").mkdir()
    lines = []
    for number in range(12):
        Image.new("RGB", (8, 8), (number * 20, 0, 99)).save(tmp_path / "images" / f"{number}.png")
        lines.append({"id": f"r{number}", "image": f"{number}.png", "prompt": f"square number {number}"})
    write_lines(tmp_path, lines)
    return tmp_path, lines


def write_lines(folder, lines):
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def prepare(folder, **values):
    """Runs the command on the JSONL file of a folder and returns the exit status."""
    defaults = {"dataset": "jsonl", "jsonl": folder / "data.jsonl", "images": folder / "images", "vocab_size": 300}
    given = {"out": folder / "out", **defaults, **values}
    try:
        prepare_data.main([f"--{name}={value}" for name, value in given.items()])
    except SystemExit as stop:
        if not isinstance(stop.code, str):
            return stop.code
        print(stop.code)  # like Python, which then exits with status 1
        return 1
    return 0


def everything_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_dataset_holds_records_tokenizer_and_contact_sheet(user_data, capsys):
    folder, lines = user_data
    assert prepare(folder, test_fraction=0.3) == 0
    splits = [open_records(folder / "out", split) for split in ("train", "test")]
    assert sorted(record.id for source in splits for record in source) == sorted(line["id"] for line in lines)
    tokenizer = Tokenizer.from_directory(folder / "out" / "tokenizer")
    assert tokenizer.decode(tokenizer.encode("square number 5")) == "square number 5"
    assert Image.open(folder / "out" / "contact_sheet.png").width > 100
    printed = capsys.readouterr().out
    assert "text_to_image" in printed
    assert "contact_sheet.png" in printed


def test_nothing_but_the_dataset_is_left_behind(user_data):
    folder, _ = user_data
    before = everything_in(folder)
    prepare(folder)
    assert everything_in(folder) == sorted([*before, "out"])


def test_the_same_request_again_does_nothing(user_data, capsys):
    folder, _ = user_data
    prepare(folder)
    before = (folder / "out" / "dataset.json").stat().st_mtime_ns
    assert prepare(folder) == 0
    assert (folder / "out" / "dataset.json").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().out


def test_a_different_dataset_is_replaced_only_when_asked(user_data, capsys):
    folder, lines = user_data
    prepare(folder)
    write_lines(folder, lines[:6])
    assert prepare(folder) == 1
    assert "--overwrite" in capsys.readouterr().out
    assert prepare(folder, overwrite=True, test_fraction=0) == 0
    assert len(open_records(folder / "out", "train")) == 6


def test_a_folder_without_a_dataset_is_never_replaced(user_data):
    folder, _ = user_data
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("do not lose me")
    assert prepare(folder, overwrite=True) == 1
    assert everything_in(folder / "out") == ["thesis.txt"]


def test_rejected_records_are_named_and_counted_and_the_rest_is_prepared(user_data, capsys):
    folder, lines = user_data
    write_lines(folder, [lines[0] | {"image": "gone.png"}, *lines[1:]])
    assert prepare(folder, test_fraction=0) == 0
    printed = capsys.readouterr().out
    assert "rejected data.jsonl:1: record 'r0', field 'image'" in printed
    assert "1 of 12 records rejected" in printed
    assert len(open_records(folder / "out", "train")) == 11


def test_all_rejections_are_listed_in_a_file(user_data):
    folder, lines = user_data
    write_lines(folder, [lines[0] | {"image": "gone.png", "promt": "x"}, *lines[1:]])
    assert prepare(folder, test_fraction=0) == 0
    listed = [json.loads(line) for line in (folder / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(entry["line"], entry["id"], entry["field"], entry["cause"]) for entry in listed] == [
        (1, "r0", "promt", ""),
        (1, "r0", "image", "picture_missing"),
    ]


def test_more_rejected_records_than_allowed_stop_the_command(user_data, capsys):
    folder, lines = user_data
    write_lines(folder, [*(line | {"image": "gone.png"} for line in lines[:7]), *lines[7:]])
    assert prepare(folder, test_fraction=0) == 1
    assert "58% of the records were rejected, more than --max_rejected=0.5 allows" in capsys.readouterr().out
    assert everything_in(folder) == ["data.jsonl", "images"]
    assert prepare(folder, test_fraction=0, max_rejected=0.6) == 0


def test_strict_writes_nothing_when_a_record_is_rejected(user_data):
    folder, lines = user_data
    write_lines(folder, [lines[0] | {"image": "gone.png"}, *lines[1:]])
    assert prepare(folder, strict=True) == 1
    assert everything_in(folder) == ["data.jsonl", "images"]


def test_no_training_records_is_an_error(user_data):
    folder, lines = user_data
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    assert prepare(folder) == 1
    assert everything_in(folder) == ["data.jsonl", "images"]


def test_records_that_are_all_rejected_while_they_are_read_are_counted(user_data, capsys):
    folder, _ = user_data
    (folder / "data.csv").write_text("image,prompt\ngone.png,one\n0.png,\n")
    arguments = [f"--csv={folder / 'data.csv'}", f"--images={folder / 'images'}", "--test_fraction=0"]
    with pytest.raises(SystemExit, match="no training records"):
        prepare_data.main(["--dataset=csv", f"--out={folder / 'out'}", *arguments])
    assert (
        "2 of 2 records rejected (rejections by field: image picture_missing: 1, prompt: 1)" in capsys.readouterr().out
    )
    assert not (folder / "out").exists()


def test_given_tokenizer_files_are_copied(user_data):
    folder, _ = user_data
    assert prepare(folder, tokenizer=REFERENCE) == 0
    copied = folder / "out" / "tokenizer" / "vocab.json"
    assert copied.read_bytes() == (REFERENCE / "vocab.json").read_bytes()


def test_two_builds_are_the_same(user_data):
    folder, _ = user_data
    prepare(folder)
    prepare(folder, out=folder / "again")
    first, second = (list(open_records(folder / name, "train")) for name in ("out", "again"))
    assert first == second
    vocabularies = [(folder / name / "tokenizer" / "vocab.json").read_bytes() for name in ("out", "again")]
    assert vocabularies[0] == vocabularies[1]


def test_the_embedded_dataset_is_prepared(tmp_path, capsys):
    few = [read_glyph(stem) for stem in ("1F34B", "2764", "1F499", "1F3A9", "1F1F2-1F1F9", "1F512")]
    source = dataclasses.replace(openmoji.OPENMOJI, open=partial(openmoji.open_openmoji, glyphs=few))
    prepare_data.prepare(Request(source, {"image_size": 32}, tmp_path / "out"), Console(soft_wrap=True))
    assert "CC BY-SA 4.0" in capsys.readouterr().out
    assert "CC BY-SA 4.0" in (tmp_path / "out" / "LICENSE").read_text()
    records = {record.id: record for record in open_records(tmp_path / "out", "train")}
    assert records["openmoji/image/1F34B"].prompt == "a lemon"
    assert "openmoji/edit/colour/2764/1F499" in records


def test_the_line_of_a_rejection_is_printed_as_a_number(user_data, capsys):
    folder, lines = user_data
    (folder / "data.jsonl").write_text("\n" * 99 + json.dumps(lines[0] | {"promt": "x"}) + "\n" + json.dumps(lines[1]))
    prepare(folder, test_fraction=0)
    assert "rejected data.jsonl:100: record" in capsys.readouterr().out


def test_a_record_with_several_problems_counts_once(user_data, capsys):
    folder, lines = user_data
    write_lines(folder, [lines[0] | {"image": "gone.png", "promt": "x"}, *lines[1:]])
    prepare(folder, test_fraction=0)
    assert (
        "1 of 12 records rejected (rejections by field: promt: 1, image picture_missing: 1)" in capsys.readouterr().out
    )


def test_splits_of_any_names_are_written_and_counted_train_first(tmp_path):
    records = {name: [Record(name, "text_to_image", square(1), "a square")] for name in ("odd", "train")}
    opened = open_records_of(records, description="Squares.", license="None.")
    source = DataSource("squares", "squares", (), dict, lambda values, reporter: opened)
    prepare_data.prepare(Request(source, {}, tmp_path / "out", vocab_size=300), Console(soft_wrap=True))
    counts = json.loads((tmp_path / "out" / "dataset.json").read_text())["records"]
    assert list(counts.items()) == [("train", {"text_to_image": 1}), ("odd", {"text_to_image": 1})]
    assert [record.id for record in open_records(tmp_path / "out", "odd")] == ["odd"]


# A source that checks its records while they are read


def open_made_up_rows(values, reporter):
    make = partial(make_row, values["broken_row"])
    return Opened((partial(range, 1, 5),), make, total=None, description="Rows.", license="None.")


def make_row(broken, row):
    if row == broken:
        rejection = Rejection("rows.bin", row, "", "image", "no picture", "Leave it out")
        return Made("train", rejections=(rejection,), file="rows.bin", line=row)
    return Made("train", (Record(f"r{row}", "text_to_image", square(row), f"square number {row}"),))


def square(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


BROKEN_ROW = Option("broken_row", int, 2, "row without a picture")
ROWS = DataSource("rows", "made-up rows", (BROKEN_ROW,), dict, open_made_up_rows)


def prepare_rows(out, **changes):
    request = Request(ROWS, {"broken_row": 2}, out, vocab_size=300)
    prepare_data.prepare(dataclasses.replace(request, **changes), Console(soft_wrap=True))


def test_records_rejected_while_they_are_read_are_named_and_counted(tmp_path, capsys):
    prepare_rows(tmp_path / "out")
    printed = capsys.readouterr().out
    assert "rejected rows.bin:2: field 'image': no picture. Leave it out." in printed
    assert "1 of 4 records rejected (rejections by field: image: 1)" in printed
    assert {record.id for record in open_records(tmp_path / "out", "train")} == {"r1", "r3", "r4"}


def test_strict_writes_nothing_when_a_record_is_rejected_while_it_is_read(tmp_path):
    with pytest.raises(PrepareError, match="--strict"):
        prepare_rows(tmp_path / "out", strict=True)
    assert everything_in(tmp_path) == []


def test_the_identity_of_a_source_distinguishes_its_datasets(tmp_path):
    prepare_rows(tmp_path / "out")
    with pytest.raises(PrepareError, match="made with other parameters"):
        prepare_rows(tmp_path / "out", values={"broken_row": 3})


# Refused before any work


def test_options_of_another_source_are_refused(user_data):
    folder, _ = user_data
    arguments = [f"--jsonl={folder / 'data.jsonl'}", f"--images={folder / 'images'}", f"--out={folder / 'out'}"]
    with pytest.raises(SystemExit) as exit:
        prepare_data.main(arguments)
    assert "--jsonl and --images: not for --dataset=openmoji. Give --dataset=jsonl." in exit.value.code


def test_a_tokenizer_that_cannot_be_used_is_refused_at_the_start(user_data, capsys):
    folder, _ = user_data
    (folder / "cut").mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(REFERENCE / name, folder / "cut")
    merges = (folder / "cut" / "merges.txt").read_text().splitlines(keepends=True)
    (folder / "cut" / "merges.txt").write_text("".join(merges[:100]))
    for option, message in (
        ({"vocab_size": 100}, "expected at least 261"),
        ({"tokenizer": folder / "cut"}, "no merge"),
    ):
        assert prepare(folder, **option) == 1
        printed = capsys.readouterr().out
        assert message in printed
        assert "Checking records" not in printed


def test_a_file_in_the_place_of_the_dataset_is_refused(user_data, capsys):
    folder, _ = user_data
    assert prepare(folder, out=folder / "data.jsonl") == 1
    assert "data.jsonl is a file, not a folder. Give another --out." in capsys.readouterr().out


def test_the_current_folder_may_be_the_dataset(user_data, monkeypatch):
    folder, lines = user_data
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    assert prepare(folder, out=".", test_fraction=0) == 0
    assert len(open_records(folder / "empty", "train")) == len(lines)


def test_an_interrupted_command_ends_with_one_line_and_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-m", "uno_jax.prepare_data", "--dataset=openmoji", f"--out={tmp_path / 'a' / 'out'}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "a").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert [path.name for path in tmp_path.rglob("*")] in ([], ["a"])

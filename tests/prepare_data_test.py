"""The command prepare_data, as a user runs it: a dataset appears complete or not at all."""

import json
import shutil

import pytest
from absl import flags
from PIL import Image

from tests.helpers.paths import REFERENCE
from uno_jax import prepare_data
from uno_jax.data.openmoji import dataset as openmoji
from uno_jax.data.openmoji.glyphs import read_glyph
from uno_jax.data.records import open_records
from uno_jax.data.tokenizer import Tokenizer


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
    """Runs the command on the JSONL file of a folder; gives the exit status."""
    defaults = {"dataset": "jsonl", "jsonl": folder / "data.jsonl", "images": folder / "images", "vocab_size": 300}
    given = {"out": folder / "out", **defaults, **values}
    flags.FLAGS.mark_as_parsed()
    before = {name: flags.FLAGS[name].value for name in given}
    try:
        for name, value in given.items():
            flags.FLAGS[name].value = flags.FLAGS[name].parser.parse(str(value))
        prepare_data.main(["prepare_data"])
    except SystemExit as stop:
        return stop.code
    finally:
        for name, value in before.items():
            flags.FLAGS[name].value = value
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


def test_the_same_request_again_is_left_alone(user_data, capsys):
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


def test_a_folder_that_is_no_dataset_is_never_replaced(user_data):
    folder, _ = user_data
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("do not lose me")
    assert prepare(folder, overwrite=True) == 1
    assert everything_in(folder / "out") == ["thesis.txt"]


def test_refused_records_are_named_and_counted_and_the_rest_is_prepared(user_data, capsys):
    folder, lines = user_data
    write_lines(folder, [lines[0] | {"image": "gone.png"}, *lines[1:]])
    assert prepare(folder, test_fraction=0) == 0
    printed = capsys.readouterr().out
    assert "refused data.jsonl:1: record 'r0', field 'image'" in printed
    assert "1 of 12 records refused" in printed
    assert len(open_records(folder / "out", "train")) == 11


def test_strict_makes_nothing_when_a_record_is_refused(user_data):
    folder, lines = user_data
    write_lines(folder, [lines[0] | {"image": "gone.png"}, *lines[1:]])
    assert prepare(folder, strict=True) == 1
    assert everything_in(folder) == ["data.jsonl", "images"]


def test_nothing_left_is_a_failure(user_data):
    folder, lines = user_data
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()
    assert prepare(folder) == 1
    assert everything_in(folder) == ["data.jsonl", "images"]


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


def test_the_embedded_dataset_is_prepared(tmp_path, monkeypatch, capsys):
    few = [read_glyph(stem) for stem in ("1F34B", "2764", "1F499", "1F3A9", "1F1F2-1F1F9", "1F512")]
    monkeypatch.setattr(openmoji, "all_glyphs", lambda: few)
    assert prepare(tmp_path, dataset="openmoji", image_size=32) == 0
    assert "CC BY-SA 4.0" in capsys.readouterr().out
    assert "CC BY-SA 4.0" in (tmp_path / "out" / "LICENSE").read_text()
    records = {record.id: record for record in open_records(tmp_path / "out", "train")}
    assert records["openmoji/image/1F34B"].prompt == "a lemon"
    assert "openmoji/edit/colour/2764/1F499" in records

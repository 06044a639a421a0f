"""Parquet files in BAGEL's public layouts, or with the columns of the record schema."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.made_up_sources import read_all, read_splits, square, values_of
from uno_jax.data.sources.parquet import PARQUET
from uno_jax.data.sources.source import DataSourceError


def write(path, *rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


CAPTIONED = {"image": square(1), "captions": json.dumps({"caption_a": "a red square", "caption_b": "all red"})}


def test_the_first_caption_of_a_text_to_image_row_is_the_prompt_and_the_others_are_captions(tmp_path):
    [record], rejections = read_all(PARQUET, parquet=write(tmp_path / "a.parquet", CAPTIONED))
    assert rejections == []
    assert (record.id, record.task, record.image) == ("a.parquet/1", "text_to_image", square(1))
    assert (record.prompt, record.captions) == ("a red square", ("all red",))


def test_an_editing_row_of_one_round_is_one_record(tmp_path):
    row = {"image_list": [square(1), square(2)], "instruction_list": [["make it blue"]]}
    [record], _ = read_all(PARQUET, parquet=write(tmp_path / "a.parquet", row))
    assert (record.id, record.task, record.prompt) == ("a.parquet/1", "editing", "make it blue")
    assert (record.sources, record.image) == ((square(1),), square(2))


def test_each_round_and_wording_of_an_editing_row_is_a_record(tmp_path):
    row = {
        "image_list": [square(1), square(2), square(3)],
        "instruction_list": [["make it blue", "paint it blue"], ["add a hat"]],
    }
    records, _ = read_all(PARQUET, parquet=write(tmp_path / "a.parquet", row))
    assert [(record.id, record.prompt, record.sources[0], record.image) for record in records] == [
        ("a.parquet/1/round-1/wording-1", "make it blue", square(1), square(2)),
        ("a.parquet/1/round-1/wording-2", "paint it blue", square(1), square(2)),
        ("a.parquet/1/round-2", "add a hat", square(2), square(3)),
    ]


def test_all_rounds_of_a_row_are_in_one_split(tmp_path):
    pictures = [square(number) for number in range(4)]
    rows = [{"image_list": pictures, "instruction_list": [["a"], ["b"], ["c"]], "id": str(n)} for n in range(20)]
    splits = read_splits(PARQUET, parquet=write(tmp_path / "a.parquet", *rows), test_fraction=0.5)
    train, test = ({record.id.split("/")[0] for record in splits[name]} for name in ("train", "test"))
    assert len(train) + len(test) == 20
    assert not train & test
    assert test


def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b/1", "a", "b/0"):
        write(tmp_path / f"{name}.parquet", {"image": square(1), "prompt": name})
    records, _ = read_all(PARQUET, parquet=tmp_path)
    assert [(record.id, record.prompt) for record in records] == [
        ("a.parquet/1", "a"),
        ("b/0.parquet/1", "b/0"),
        ("b/1.parquet/1", "b/1"),
    ]


def test_pictures_of_hugging_face_are_read_from_their_bytes(tmp_path):
    row = {"image": {"bytes": square(4), "path": "x.png"}, "prompt": "x", "id": 7}
    [record], _ = read_all(PARQUET, parquet=write(tmp_path / "a.parquet", row))
    assert (record.id, record.image) == ("7", square(4))


def test_columns_with_other_names_are_named(tmp_path):
    row = {"jpg": square(1), "meta": {"text": "a thing"}, "url": "http://x", "width": 8}
    path = write(tmp_path / "a.parquet", row)
    [record], _ = read_all(PARQUET, parquet=path, columns="image=jpg,prompt=meta.text", ignore="rest")
    assert record.prompt == "a thing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"columns that are no fields: url\. Name their fields.*--ignore=url"),
        ({"columns": "prompt"}, "expected FIELD=COLUMN"),
        ({"columns": "promt=url"}, "expected FIELD=COLUMN"),
        ({"columns": "prompt=text"}, "has no column 'text'. It has image, url"),
        ({"columns": "prompt=image", "ignore": "url"}, "no column of pictures"),
    ],
)
def test_columns_that_are_no_fields_are_refused_before_anything_is_read(tmp_path, options, message):
    path = write(tmp_path / "a.parquet", {"image": square(1), "url": "x"})
    with pytest.raises(DataSourceError, match=message):
        PARQUET.identity(values_of(PARQUET, parquet=path, **options))


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        (CAPTIONED | {"captions": "{}"}, "prompt", "missing"),
        ({"image": square(1), "prompt": "x", "captions": '{"a": '}, "captions", "not a list"),
        (CAPTIONED | {"captions": '{"a": "one", "b": "One"}'}, "captions[0]", "same as the prompt"),
        (CAPTIONED | {"image": b""}, "image", "empty"),
        (CAPTIONED | {"image": None}, "image", "nothing instead of an encoded picture"),
        ({"image": {"bytes": None, "path": "../a.png"}, "prompt": "x"}, "image", "the text '../a.png'"),
        (CAPTIONED | {"image": square(1)[:-40]}, "image", "damaged"),
        (CAPTIONED | {"id": "../../etc/passwd"}, "id", "has a part '..'"),
        (CAPTIONED | {"id": "x" * 2000}, "id", "2,000 characters"),
        ({"image_list": [square(1)], "instruction_list": []}, "images", "1 pictures"),
        ({"image_list": [square(1), square(2)], "instruction_list": [["a"], ["b"]]}, "instructions", "2 rounds"),
        ({"image_list": [square(1), square(1)], "instruction_list": [["a"]]}, "images[1]", "the same picture"),
        ({"image_list": [square(1), square(2)], "instruction_list": [[]]}, "instructions[0]", "empty"),
        ({"image_list": [square(1), square(2)], "instruction_list": [[" "]]}, "instructions[0][0]", "empty"),
        ({"image_list": [square(n) for n in range(65)], "instruction_list": [["a"]] * 64}, "images", "65 pictures"),
    ],
)
def test_an_invalid_row_is_rejected_by_file_number_and_field(tmp_path, row, field, problem):
    records, [rejection] = read_all(PARQUET, parquet=write(tmp_path / "a.parquet", row))
    assert records == []
    assert (rejection.file, rejection.line, rejection.field) == ("a.parquet", 1, field)
    assert problem in rejection.problem


def test_text_that_is_not_utf8_rejects_its_row_only(tmp_path):
    texts = pa.array([b"fine", b"\xff", b"fine too"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image": [square(1)] * 3, "prompt": texts}), tmp_path / "a.parquet")
    records, [rejection] = read_all(PARQUET, parquet=tmp_path)
    assert [record.prompt for record in records] == ["fine", "fine too"]
    assert (rejection.line, rejection.field) == (2, "(row)")


def test_the_rows_before_the_damage_of_a_file_are_read_and_the_damage_is_named(tmp_path):
    rows = [{"image": square(number), "prompt": str(number)} for number in range(64)]
    path = write(tmp_path / "a.parquet", *rows, row_group_size=16, compression="snappy", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
    path.write_bytes(content)
    records, rejections = read_all(PARQUET, parquet=path)
    assert len(records) >= 16
    assert rejections


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_file_that_is_no_parquet_file_is_refused_before_anything_is_read(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataSourceError, match=r"a\.parquet: not a Parquet file, or damaged"):
        PARQUET.identity(values_of(PARQUET, parquet=tmp_path))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no file or folder nowhere. Give a Parquet file"),
        (".", "no file in . ends with .parquet"),
        ("ftp://host/a.parquet", "nothing here reads 'ftp://host/a.parquet'"),
        ("", "expected a path"),
    ],
)
def test_a_place_without_files_is_refused_before_anything_is_read(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataSourceError, match=message):
        PARQUET.identity(values_of(PARQUET, parquet=place))


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", CAPTIONED)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataSourceError, match=r"pip install '\.\[arrow\]'"):
        PARQUET.identity(values_of(PARQUET, parquet=path))

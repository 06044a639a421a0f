"""Folders of Hugging Face's `save_to_disk`."""

import json
import sys

import pyarrow as pa
import pytest

from tests.helpers.made_up_sources import read_all, read_splits, square, values_of
from uno_jax.data.sources.hugging_face import HUGGING_FACE
from uno_jax.data.sources.source import DataSourceError

ROW = {"image": {"bytes": square(1), "path": None}, "prompt": "a red square"}


def write(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    return folder


def write_splits(folder, **splits):
    for name, rows in splits.items():
        write(folder / name, *rows)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def test_rows_of_one_dataset_are_read_in_order(tmp_path):
    records, rejections = read_all(HUGGING_FACE, hugging_face=write(tmp_path, *(ROW | {"id": n} for n in range(5))))
    assert [record.id for record in records] == ["0", "1", "2", "3", "4"]
    assert records[0].image == square(1)
    assert rejections == []


def test_the_splits_of_a_dictionary_stay(tmp_path):
    folder = write_splits(tmp_path, validation=[ROW | {"id": "v"}], train=[ROW | {"id": "t"}, ROW | {"id": "u"}])
    splits = read_splits(HUGGING_FACE, hugging_face=folder)
    ids = {split: [record.id for record in records] for split, records in splits.items()}
    assert ids == {"validation": ["v"], "train": ["t", "u"]}


def test_a_single_split_is_split_by_the_ids(tmp_path):
    folder = write_splits(tmp_path, validation=[ROW | {"id": str(number)} for number in range(30)])
    splits = read_splits(HUGGING_FACE, hugging_face=folder, test_fraction=0.5)
    counts = {split: len(records) for split, records in splits.items()}
    assert sum(counts.values()) == 30
    assert counts.keys() == {"train", "test"}


def test_a_picture_without_its_content_is_rejected(tmp_path):
    outside = ROW | {"image": {"bytes": None, "path": "/etc/passwd"}}
    records, [rejection] = read_all(HUGGING_FACE, hugging_face=write(tmp_path, ROW, outside))
    assert len(records) == 1
    assert (rejection.line, rejection.field, rejection.cause) == (2, "image", "picture_missing")


def test_text_that_is_not_utf8_rejects_its_row_only(tmp_path):
    texts = pa.array([b"fine", b"\xff", b"fine too"], pa.binary()).view(pa.string())
    folder = write(tmp_path, ROW)
    table = pa.table({"image": [square(1)] * 3, "prompt": texts})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    records, [rejection] = read_all(HUGGING_FACE, hugging_face=folder)
    assert [record.prompt for record in records] == ["fine", "fine too"]
    assert rejection.line == 2


def test_offsets_that_lead_out_of_a_file_are_rejected(tmp_path):
    folder = write(tmp_path, ROW | {"prompt": "one"}, ROW | {"prompt": "two"})
    file = folder / "data-00000-of-00001.arrow"
    offsets, damaged = bytes([0, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0]), bytes([0, 0, 0, 0, 3, 0, 0, 0, 255, 255, 255, 127])
    assert file.read_bytes().count(offsets) == 1
    file.write_bytes(file.read_bytes().replace(offsets, damaged))
    _, rejections = read_all(HUGGING_FACE, hugging_face=folder)
    assert "binary offsets" in rejections[0].problem


def test_a_cut_file_is_read_up_to_the_cut(tmp_path):
    folder = write(tmp_path, *(ROW | {"id": str(number)} for number in range(20)))
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    records, [rejection] = read_all(HUGGING_FACE, hugging_face=folder)
    assert 0 < len(records) < 20
    assert "cannot be read from here on" in rejection.problem


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("state.json", '{"_data_files": [{"filename": "../../secret.arrow"}]}', "is no name of a file in it"),
        ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow: missing"),
        ("state.json", '{"_data_files": []}', "has no records"),
        ("state.json", "{", "cannot be read"),
        ("state.json", "[]", "no JSON object"),
        ("data-00000-of-00001.arrow", "no arrow", "not an Arrow file, or damaged"),
        ("dataset_dict.json", '{"splits": ["../.."]}', "no list of names of splits"),
        ("dataset_dict.json", '{"splits": ["a", "b"]}', "but no train"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused_before_anything_is_read(tmp_path, file, content, message):
    (write(tmp_path, ROW) / file).write_text(content)
    with pytest.raises(DataSourceError, match=message):
        HUGGING_FACE.identity(values_of(HUGGING_FACE, hugging_face=tmp_path))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataSourceError, match=r"no dataset_dict\.json and no state\.json"):
        HUGGING_FACE.identity(values_of(HUGGING_FACE, hugging_face=tmp_path))


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path, ROW)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataSourceError, match=r"pip install '\.\[arrow\]'"):
        HUGGING_FACE.identity(values_of(HUGGING_FACE, hugging_face=tmp_path))

"""The user's own records: every record is checked, and rejections name line, field and remedy."""

import json

import pytest
from PIL import Image

from tests.helpers.made_up_sources import read_all
from uno_jax.data.sources.jsonl import JSONL
from uno_jax.data.sources.source import DataSourceError


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "cats").mkdir(parents=True)
    for name, colour in (("red", "red"), ("cats/blue", "blue"), ("green", "green")):
        Image.new("RGB", (8, 6), colour).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:-30])
    (folder / "text.png").write_text("not a picture")
    (folder / "circle.png").symlink_to("circle.png")
    return folder


GOOD = {"id": "1", "image": "red.png", "prompt": "a red square"}
EDIT = {"id": "2", "task": "editing", "image": "red.png", "prompt": "make it red", "sources": ["cats/blue.png"]}
QUESTION = {"id": "3", "task": "understanding", "image": "green.png", "prompt": "which colour?", "answer": "green"}


def check(tmp_path, images, *lines):
    path = tmp_path / "data.jsonl"
    encoded = [line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return read_all(JSONL, jsonl=path, images=images)


def test_good_records_of_every_task_are_accepted(tmp_path, images):
    records, rejections = check(tmp_path, images, GOOD, EDIT, QUESTION)
    assert [(record.id, record.task) for record in records] == [
        ("1", "text_to_image"),
        ("2", "editing"),
        ("3", "understanding"),
    ]
    assert rejections == []


def test_accepted_records_are_in_the_order_of_the_file(tmp_path, images):
    first = GOOD | {"prompt": "ein rötliches Quadrat", "captions": ["all red"]}
    (one, two), _ = check(tmp_path, images, first, b"", {**GOOD, "id": "bad", "image": "no.png"}, EDIT)
    assert (one.id, one.prompt, one.captions) == ("1", "ein rötliches Quadrat", ("all red",))
    assert (two.task, two.sources) == ("editing", ((images / "cats/blue.png").read_bytes(),))


@pytest.mark.parametrize(
    ("record", "field", "problem"),
    [
        (GOOD | {"image": "missing.png"}, "image", "No such file"),
        (GOOD | {"image": "broken.png"}, "image", "damaged"),
        (GOOD | {"image": "text.png"}, "image", "not a picture"),
        (GOOD | {"image": "/etc/hostname"}, "image", "absolute path"),
        (GOOD | {"image": "C:\\pictures\\red.png"}, "image", "absolute path"),
        (GOOD | {"image": "../images/../data.jsonl"}, "image", "leads out of the image folder"),
        (GOOD | {"image": "cats"}, "image", "not a file"),
        (GOOD | {"image": 3}, "image", "not text"),
        ({"id": "1", "prompt": "x"}, "image", "missing"),
        (GOOD | {"prompt": " "}, "prompt", "missing or empty"),
        (GOOD | {"prompt": 7}, "prompt", "not text"),
        ({"image": "red.png", "prompt": "x"}, "id", "missing or empty"),
        (GOOD | {"captions": ["fine", "A red  square"]}, "captions[1]", "same as the prompt"),
        (GOOD | {"captions": "one"}, "captions", "not a list"),
        (GOOD | {"captions": [""]}, "captions[0]", "empty"),
        (GOOD | {"task": "painting"}, "task", "unknown task"),
        (GOOD | {"promt": "x"}, "promt", "no such field"),
        (GOOD | {"sources": ["green.png"]}, "sources", "have no sources"),
        (GOOD | {"answer": "yes"}, "answer", "have no answer"),
        (EDIT | {"sources": []}, "sources", "missing or empty"),
        (EDIT | {"sources": ["green.png", "missing.png"]}, "sources[1]", "No such file"),
        (EDIT | {"sources": ["red.png"]}, "sources[0]", "same picture as the target"),
        (QUESTION | {"answer": ""}, "answer", "missing or empty"),
        (QUESTION | {"captions": ["x"]}, "captions", "have no captions"),
        ([1, 2], "(line)", "not an object"),
        (b'{"id": ', "(line)", "not valid JSON"),
        (b"[" * 100_000, "(line)", "nested too deeply"),
        (b'{"id": "\xff"}', "(line)", "not UTF-8"),
        (b'{"id": "1", "id": "2"}', "(line)", "the key 'id' occurs twice"),
        (b'{"id": ' + b"1" * 5000 + b"}", "(line)", "a number of more than 4300 digits"),
        (b'{"id": "' + b"x" * 2**20 + b'"}', "(line)", "more than 1,048,576 bytes"),
        (rb'{"id": "1", "prompt": "a smile \ud83d"}', "prompt", "half of a surrogate pair"),
        (rb'{"id": "1", "captions": ["a", "\ude00"]}', "captions[1]", "half of a surrogate pair"),
        (rb'{"id": "1", "image": "\ud83d.png"}', "image", "half of a surrogate pair"),
        (GOOD | {"image": "circle.png"}, "image", "is not a path"),
        (GOOD | {"image": "a\0b.png"}, "image", "is not a path"),
        (GOOD | {"task": ["editing"]}, "task", "unknown task"),
        (EDIT | {"sources": ["green.png"] * 65}, "sources", "65 pictures"),
    ],
)
def test_an_invalid_field_is_rejected_by_name(tmp_path, images, record, field, problem):
    records, (rejection,) = check(tmp_path, images, EDIT | {"id": "before"}, record)
    assert [record.id for record in records] == ["before"]
    assert (rejection.file, rejection.line, rejection.field) == ("data.jsonl", 2, field)
    assert problem in rejection.problem
    assert rejection.remedy


def test_a_rejection_names_file_line_record_and_field(tmp_path, images):
    _, rejections = check(tmp_path, images, GOOD | {"image": "missing.png"})
    assert str(rejections[0]).startswith("data.jsonl:1: record '1', field 'image': 'missing.png': cannot be read")


def test_null_fields_are_absent(tmp_path, images):
    [record], _ = check(tmp_path, images, GOOD | {"sources": None, "answer": None, "captions": None, "task": None})
    assert (record.task, record.captions, record.sources, record.answer) == ("text_to_image", (), (), "")
    _, [rejection] = check(tmp_path, images, GOOD | {"prompt": None})
    assert (rejection.field, rejection.problem) == ("prompt", "missing or empty")


def test_records_after_a_huge_line_are_read(tmp_path, images):
    records, rejections = check(tmp_path, images, b"x" * (2**21 + 9), GOOD)
    assert [rejection.line for rejection in rejections] == [1]
    assert [record.id for record in records] == ["1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,image,prompt\n1,a.png,x\n", r"is CSV.*--dataset=csv --csv=.*data\.csv"),
        (b"PAR1\x15\x04", r"is Parquet.*--dataset=parquet --parquet="),
        (b'\xef\xbb\xbf [{"id": "1"}]', r"is one JSON list.*read_json"),
        (b"\x1f\x8b\x08", r"is gzip.*gunzip"),
    ],
)
def test_another_format_is_refused_with_the_way_to_read_it(tmp_path, images, content, message):
    (tmp_path / "data.csv").write_bytes(content)
    values = {"jsonl": str(tmp_path / "data.csv"), "images": str(images), "test_fraction": 0, "max_picture_pixels": 1}
    with pytest.raises(DataSourceError, match=message):
        JSONL.identity(values)


def test_the_second_of_two_equal_ids_is_rejected(tmp_path, images):
    records, rejections = check(tmp_path, images, GOOD, EDIT | {"id": "1"})
    assert [record.task for record in records] == ["text_to_image"]
    assert "data.jsonl:1 already has the id '1'" in rejections[0].problem


def test_all_problems_of_a_record_are_named(tmp_path, images):
    _, rejections = check(tmp_path, images, {"id": "1", "image": "no.png", "prompt": ""})
    assert [rejection.field for rejection in rejections] == ["prompt", "image"]


def test_a_link_that_leads_out_of_the_folder_is_rejected(tmp_path, images):
    Image.new("RGB", (4, 4)).save(tmp_path / "outside.png")
    (images / "link.png").symlink_to(tmp_path / "outside.png")
    _, [rejection] = check(tmp_path, images, GOOD | {"image": "link.png"})
    assert "leads out" in rejection.problem


def test_a_question_may_be_empty(tmp_path, images):
    assert check(tmp_path, images, QUESTION | {"prompt": ""})[1] == []


def test_a_missing_file_or_folder_is_an_error(tmp_path, images):
    with pytest.raises(DataSourceError, match="there is no file"):
        read_all(JSONL, jsonl=tmp_path / "no.jsonl", images=images)

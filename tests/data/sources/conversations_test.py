"""Conversations in BAGEL's layout: each answer is a record."""

import json

import pytest

from tests.helpers.made_up_sources import read_all, square
from uno_jax.data.sources.conversations import CONVERSATIONS


def said(*texts):
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def read(tmp_path, *lines, **options):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(square(0))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_all(CONVERSATIONS, conversations=tmp_path / "a.jsonl", images=tmp_path / "images", **options)


GOOD = {"id": 7, "image": "0.png", "conversations": said("<image>\nWhat is it?", "A square.")}


def test_a_question_and_its_answer_are_one_record(tmp_path):
    [record], rejections = read(tmp_path, GOOD)
    assert rejections == []
    assert (record.id, record.task, record.image) == ("7", "understanding", square(0))
    assert (record.prompt, record.answer) == ("What is it?", "A square.")


def test_each_later_answer_is_a_record_whose_question_holds_the_earlier_turns(tmp_path):
    records, _ = read(tmp_path, GOOD | {"conversations": said("<image>What?", "A square.", "Colour?", "Red.")})
    assert [(record.id, record.prompt, record.answer) for record in records] == [
        ("7/turn-1", "What?", "A square."),
        ("7/turn-2", "What?\nA square.\nColour?", "Red."),
    ]


def test_a_line_without_an_id_gets_one_of_file_and_line(tmp_path):
    [record], _ = read(tmp_path, {"image": ["0.png"], "conversations": GOOD["conversations"]})
    assert record.id == "a.jsonl/1"


def test_other_fields_are_left_out_only_when_asked(tmp_path):
    records, _ = read(tmp_path, GOOD | {"width": 8}, ignore="width")
    assert len(records) == 1


@pytest.mark.parametrize(
    ("line", "field", "problem", "cause"),
    [
        (GOOD | {"width": 8}, "width", "no such field", ""),
        (GOOD | {"image": ["0.png", "0.png"]}, "image", "2 pictures", "several_pictures"),
        (GOOD | {"image": None}, "image", "no picture", "no_picture"),
        (GOOD | {"image": None, "video": "a.mp4"}, "video", "a video", "video"),
        (GOOD | {"image": "../a.jsonl"}, "image", "leads out", "picture_path"),
        (GOOD | {"conversations": "hello"}, "conversations", "no list of questions", ""),
        (GOOD | {"conversations": said("What?")}, "conversations", "each with an answer", ""),
        (GOOD | {"conversations": said("a", "b")[::-1]}, "conversations[0]", "not a text from human", ""),
        (GOOD | {"conversations": said("<image><image>", "b")}, "conversations", "2 times <image>", "several_pictures"),
        (GOOD | {"conversations": said("a", " ")}, "turns[0][1]", "missing or empty", ""),
        (GOOD | {"id": "../7"}, "id", "has a part '..'", ""),
        ([1], "(line)", "not an object", ""),
    ],
)
def test_a_line_that_makes_no_records_is_rejected_by_line_field_and_cause(tmp_path, line, field, problem, cause):
    records, [rejection] = read(tmp_path, GOOD | {"id": "first"}, line)
    assert [record.id for record in records] == ["first"]
    assert (rejection.line, rejection.field, rejection.cause) == (2, field, cause)
    assert problem in rejection.problem

"""The record schema: rounds of edits and turns of conversations, which every source may give."""

import pytest

from tests.helpers.made_up_sources import square
from uno_jax.data.sources.rows import read_bytes
from uno_jax.data.sources.schema import check_record

ROUNDS = {"id": "1", "images": [square(1), square(2), square(3)], "instructions": ["darker", ["lighter"]]}
TURNS = {"id": "2", "image": square(1), "turns": [["What?", "A square."]]}


def test_rounds_may_have_captions_of_their_pictures():
    records = check_record(ROUNDS | {"captions": [["a dark square"], []]}, read_bytes).records
    assert [(record.id, record.captions) for record in records] == [
        ("1/round-1", ("a dark square",)),
        ("1/round-2", ()),
    ]


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        (ROUNDS | {"task": "text_to_image"}, "task", "has rounds"),
        (ROUNDS | {"prompt": "x"}, "prompt", "records with rounds have no such field"),
        (ROUNDS | {"captions": ["a"]}, "captions", "not a list for each round"),
        (ROUNDS | {"captions": [["Darker"], []]}, "captions[0][0]", "same as the prompt"),
        (ROUNDS | {"instructions": ["a", 3]}, "instructions[1]", "not a list"),
        (ROUNDS | {"images": "x"}, "images", "no list of pictures"),
        (TURNS | {"task": "editing"}, "task", "has turns"),
        (TURNS | {"prompt": "x"}, "prompt", "records with turns have no such field"),
        (TURNS | {"turns": []}, "turns", "empty"),
        (TURNS | {"turns": [["a"]]}, "turns[0]", "not a pair"),
        (TURNS | {"turns": [[1, "a"]]}, "turns[0][0]", "not text"),
        ({"id": "3", "image": square(1), "prompt": "x" * 2**21}, "prompt", "2,097,152 characters"),
        ({"id": "3", "image": square(1), "prompt": "x", "captions": ["y"] * 2000}, "captions", "2,000 texts"),
        ({"id": "a\n", "image": square(1), "prompt": "x"}, "id", "invisible character"),
    ],
)
def test_an_invalid_field_is_named(fields, field, problem):
    checked = check_record(fields, read_bytes)
    assert checked.records == ()
    assert [found[0] for found in checked.problems] == [field]
    assert problem in checked.problems[0][1]


def test_without_a_prompt_the_first_caption_is_the_prompt():
    [record] = check_record({"id": "1", "image": square(1), "captions": ["one", "two"]}, read_bytes).records
    assert (record.prompt, record.captions) == ("one", ("two",))

"""Reading JSON from others: values, and errors that name the reason and the place."""

from __future__ import annotations

import re

import pytest

from uno_jax.process.json_reader import JsonError, half_pair, parse_json, read_json_object


@pytest.mark.parametrize("text", ['{"a": [1, null]}', b'{"a": [1, null]}', b'\xef\xbb\xbf{"a": [1, null]}'])
def test_text_and_utf_8_bytes_are_parsed(text):
    assert parse_json(text) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes at character 2"),
        ('{"a": 1,\n "b": }', "Expecting value at line 2, character 7"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        pytest.param("[" * 100_000, "brackets nested too deeply", id="nested"),
        pytest.param("1" * 5000, "a number of more than 4300 digits", id="digits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' occurs twice"),
    ],
)
def test_invalid_json_raises_an_error_with_the_reason(text, reason):
    with pytest.raises(JsonError, match=re.escape(f"not valid JSON ({reason}")):
        parse_json(text)


@pytest.mark.parametrize(
    ("content", "problem"),
    [("{", "not valid JSON (Expecting property name"), ("[]", "expected a JSON object, found list")],
)
def test_a_file_without_a_json_object_is_named(tmp_path, content, problem):
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(JsonError, match=re.escape(f"{file}: {problem}")):
        read_json_object(file)


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(JsonError, match="268,435,457 bytes are more than the maximum of 268,435,456"):
        read_json_object(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (r'{"a": "\ud83d\ude00", "b": ["x", {}]}', None),
        (r'{"a": "x", "b": ["x", "\ude00"]}', "b[1]"),
        (r'{"a": {"b": "smile \ud83d"}}', "a.b"),
        (r'{"\ud83d": 1}', "\ud83d"),
    ],
)
def test_half_of_a_surrogate_pair_is_found_by_the_name_of_its_text(text, name):
    assert half_pair(parse_json(text)) == name

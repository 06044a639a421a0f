"""Reading JSON from others: values, and errors that name the reason and the place."""

from __future__ import annotations

import re

import pytest

from uno_jax.process.json_reader import JsonError, parse_json, read_json_object


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
        pytest.param("1" * 5000, "Exceeds the limit (4300 digits)", id="digits"),
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

"""Paths as people write them."""

import pytest

from uno_jax.process.paths import local_path


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/runs/x") == "/home/me/runs/x"
    assert local_path("~") == "/home/me"
    assert local_path("./~/runs") == "./~/runs"
    assert local_path("a:b/c.py:large") == "a:b/c.py:large"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a path"),
        (" ", "expected a path"),
        ("a\0b", "expected a path"),
        ("a\udcff", "is not UTF-8 text"),
        ("gs://bucket/run", "is a URL"),
        ("s3://bucket/run", "is a URL"),
        ("~nobody-here/x", r"write \./~nobody-here/x"),
    ],
)
def test_what_is_no_path_of_this_machine_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        local_path(text)

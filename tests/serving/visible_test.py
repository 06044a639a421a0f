"""What a client sees of a text that is being written."""

from __future__ import annotations

import pytest

from uno_jax.serving.visible import Visible, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red he", "a red he"),
        ("a red EN", "a red"),
        ("a red END of", "a red"),
        ("caf\ufffd", "caf"),
        ("a <thi", "a"),
    ],
)
def test_an_end_that_may_still_change_is_held_back(text, shown):
    assert visible(text, ["END"], complete=False).content == shown


def test_a_complete_text_is_shown_to_its_end():
    assert visible("a red EN", ["END"], complete=True) == Visible("a red EN", "", False)


def test_the_first_stop_text_ends_a_text():
    assert visible("one. two! three", ["!", "."], complete=True) == Visible("one", "", True)


def test_a_thought_is_separated_from_the_content():
    assert visible("<think>well</think>yes", (), complete=True) == Visible("yes", "well", False)
    assert visible("<think>well</thi", (), complete=False) == Visible("", "well", False)
    assert visible("<thi", (), complete=False) == Visible("", "", False)


@pytest.mark.parametrize("text", [" <think> a  b </think> c d END e", "no thought\n\nat all", "<think>only a thought"])
def test_what_is_shown_only_grows(text):
    before = Visible("", "", False)
    for end in range(len(text) + 1):
        now = visible(text[:end], ["END"], complete=end == len(text))
        assert now.content.startswith(before.content)
        assert now.thought.startswith(before.thought)
        before = now

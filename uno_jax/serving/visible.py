"""What a client may see of a text that is being written: no stop text, no half tag, no half character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from uno_jax.inference.thinking import split_thought

_TAGS = ("<think>", "</think>")


class Visible(NamedTuple):
    """The visible part of a text."""

    content: str
    thought: str
    stopped: bool
    """Whether a stop text ends it."""


def visible(text: str, stop: Sequence[str], *, complete: bool) -> Visible:
    """Returns the part of a text that no later token changes.

    Args:
      text: the text so far.
      stop: texts that end it.
      complete: whether no token follows. Otherwise an end is held back that may become a stop text, a tag of a thought,
        or another character.
    """
    found = [place for mark in stop if (place := text.find(mark)) >= 0]
    if found:
        text = text[: min(found)]
    elif not complete:
        text = text.rstrip("\ufffd")
        text = text[: len(text) - max(_overlap(text, mark) for mark in (*_TAGS, *stop))]
    thought, content = split_thought(text)
    return Visible(content, thought, bool(found))


def _overlap(text: str, mark: str) -> int:
    """Number of characters at the end of `text` with which `mark` begins, fewer than all of it."""
    return next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)

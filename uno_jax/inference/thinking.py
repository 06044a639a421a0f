"""Thinking before drawing or answering: the system prompts, and how a thought is told from what follows it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from uno_jax.sampling.text import TextConfig


@dataclass(frozen=True)
class ThinkingConfig:
    """The texts that stand before a context, and how thoughts are written.

    The wording is our own. A checkpoint that was trained to think on some wording answers best to that one.
    """

    drawing_prompt: str = (
        "Plan the picture before you draw it: what it shows, where things are, and how they look. Write the plan "
        "between <think> and </think>; the picture follows, as in <think> the plan </think> the picture"
    )
    answering_prompt: str = (
        "Reason before you answer. Write the reasoning between <think> and </think>; the answer follows, as in "
        "<think> the reasoning </think> the answer"
    )
    text: TextConfig = field(default_factory=lambda: TextConfig(max_length=1000))
    """How thoughts before a picture are written; those before an answer are a part of it."""


def split_thought(text: str) -> tuple[str, str]:
    """The thought between its tags, and what comes after; no thought where there are no tags.

    A thought whose end was never written is all there is.
    """
    match = re.match(r"\s*<think>(.*?)(?:</think>(.*)|$)", text, re.DOTALL)
    if match is None:
        return "", text.strip()
    return match[1].strip(), (match[2] or "").strip()

"""Thinking before a picture or an answer: system prompts, and the separation of thought and answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from uno_jax.sampling.text import TextConfig


@dataclass(frozen=True)
class ThinkingConfig:
    """System prompts before a context, and the sampling of thoughts.

    The wording is our own. A checkpoint that was trained with other system prompts works best with those.
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
    """Sampling of thoughts before a picture. A thought before an answer is part of the answer."""


def split_thought(text: str) -> tuple[str, str]:
    """Splits a text into the thought between its tags and the answer after it.

    Without tags the thought is empty. Without a closing tag the whole text is the thought.
    """
    match = re.match(r"\s*<think>(.*?)(?:</think>(.*)|$)", text, re.DOTALL)
    if match is None:
        return "", text.strip()
    return match[1].strip(), (match[2] or "").strip()

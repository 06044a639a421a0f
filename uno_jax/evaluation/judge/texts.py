"""Texts for a judge, and what is read from its answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from uno_jax.evaluation.benchmark import BenchmarkError, Item
from uno_jax.process.json_reader import JsonError, parse_json, read_json_object

_SPELLINGS = ("<prompt>", "<edit_prompt>")
_BLOCK = re.compile(r"```(?:json)?\s*(\{.*?\})\s*```", re.DOTALL)


def read_templates(file: Path) -> dict[str, str]:
    """Reads the texts for a judge: a JSON object of texts by name, such as ImgEdit's `prompts.json`.

    Raises:
      BenchmarkError: it is not such a file.
    """
    if not file.is_file():
        raise BenchmarkError(f"--judge_prompts: {file} is no file; give a JSON file of texts by name")
    found = read_json_object(file)
    for name, text in found.items():
        if not isinstance(text, str) or not text.strip():
            raise BenchmarkError(f"{file}: {name} is {text!r}: expected a text")
    return found


def filled(template: str, item: Item) -> str:
    """Returns a text with `<prompt>` (or `<edit_prompt>`) and, as `<name>`, the published fields of an item."""
    fields = {f"<{name}>": value for name, value in item.published.items() if isinstance(value, str)}
    values = {**fields, **dict.fromkeys(_SPELLINGS, item.prompt)}
    # At once, because a prompt may contain what looks like a field.
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], template)


def json_in(answer: str) -> dict[str, Any] | None:
    """Returns the JSON object of an answer: all of it, in a block of Markdown, or between its outer braces."""
    block = _BLOCK.search(answer)
    start, end = answer.find("{"), answer.rfind("}")
    for text in (answer.strip(), block[1] if block else "", answer[start : end + 1] if 0 <= start < end else ""):
        try:
            value = parse_json(text)
        except JsonError:
            continue
        if isinstance(value, dict):
            return value
    return None

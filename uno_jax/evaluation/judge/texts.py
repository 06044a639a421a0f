"""Texts for a judge, and what is read from its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.evaluation.benchmark import BenchmarkError, Item
from uno_jax.process.json_reader import JsonError, parse_json, read_json_object

_OWN = "own"
_PROMPT = ("prompt", "edit_prompt", "instruct")
"""Names of the prompt of an item in published texts."""
_BLOCK = re.compile(r"```(?:json)?\s*(\{.*?\})\s*```", re.DOTALL)
_BETWEEN = r"[\"'*_`\s:：=()]*"  # the name of a rating and the rating: in JSON, in Markdown, or in a line
# A whole number, alone or as 4/5, and not the first one of a range or a list.
_NUMBER = r"(\d+)(?!\d)(?:\s*/\s*\d+)?(?!\s*[-–/]\s*\d|[.,]\d|,\s*\d)"


class Texts(NamedTuple):
    """Texts for a judge."""

    by_name: Mapping[str, str]
    source: str
    """Name of their file, or "own"."""

    @property
    def own(self) -> bool:
        """Whether they are in words of this project."""
        return self.source == _OWN


def own_texts(by_name: Mapping[str, str]) -> Texts:
    """Returns texts in words of this project."""
    return Texts(by_name, _OWN)


def read_texts(file: Path) -> Texts:
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
    return Texts(found, file.name)


def filled(template: str, item: Item) -> str:
    """Returns a text with the prompt of an item and its published fields in the places of their names.

    A place is `<name>`, or `{name}` as in texts that scorers fill by Python's `format`, where `{{` stands for a brace.
    The prompt is called `prompt`, `edit_prompt` or `instruct`.
    """
    fields = {name: value for name, value in item.published.items() if isinstance(value, str)}
    values = {**fields, **dict.fromkeys(_PROMPT, item.prompt)}
    places = {f"{{{name}}}": value for name, value in values.items()}
    if any(place in template for place in places):
        places = {"{{": "{", "}}": "}", **places}
    places |= {f"<{name}>": value for name, value in values.items()}
    # At once, because a prompt may contain what looks like a field.
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], template)


def without_thoughts(answer: str) -> str:
    """Returns an answer without what a reasoning model thinks before it, which may mention other ratings.

    Thoughts that were cut off have no answer after them.
    """
    return answer.rpartition("</think>")[2].partition("<think>")[0]


def rating_in(answer: str, name: str, least: int, most: int) -> int | None:
    """Returns a rating of an answer, a whole number in a range; None if there is none.

    Args:
      answer: JSON with a field of this name, or any text in which the rating follows the name.
      name: such as `quality_score`. In a text, it may be spelled "Quality Score". The last one counts.
      least: the lowest rating.
      most: the highest one.
    """
    value = (json_in(answer) or {}).get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value) if value in range(least, most + 1) else None
    found = re.findall(rf"{name.replace('_', '[_ ]?')}s?{_BETWEEN}{_NUMBER}", answer, re.IGNORECASE)
    return int(found[-1]) if found and least <= int(found[-1]) <= most else None


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

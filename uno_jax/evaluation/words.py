"""What a judge says of each item, for people to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from uno_jax.evaluation.benchmark import Answers, Item, Judging


def kept_words(judging: Judging) -> tuple[Judging, dict[str, str]]:
    """Returns the judging, and a dictionary that receives the judge's words by item when raw outputs are written.

    They are about the first picture of an item, which a gallery shows.
    """
    words: dict[str, str] = {}

    def write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
        first = {item.id: picture for picture, item in reversed(list(pictures.items()))}
        words.update({item: _joined(given) for item, picture in first.items() if (given := answers.get(picture))})
        return judging.write(folder, out, pictures, answers)

    return dataclasses.replace(judging, write=write), words


def _joined(answers: Answers) -> str:
    """Returns an answer, or several under the names of their questions."""
    if len(answers) == 1:
        return next(iter(answers.values()))
    return "\n\n".join(f"{name}: {text}" for name, text in answers.items())

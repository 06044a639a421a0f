"""Parts about reading: captions and answers before and after, and captions of noised latents by time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uno_jax.study import figures
from uno_jax.study.config import BEFORE
from uno_jax.study.document import Figure, Paragraph, Table
from uno_jax.study.parts.part import Part, names_of, percent
from uno_jax.study.plan import Study
from uno_jax.study.results import Measured, measured
from uno_jax.study.statistics import Estimate

_PROMPTS = {"none": "no prompt", "own": "its own prompt", "other": "the prompt of another scene"}


def reading(study: Study, folder: Path) -> Part | None:
    """Makes the table of captions and answers that are exactly right, of the bases and of each arm."""
    rows, numbers, head = [], {}, []
    for name, of in _found(study):
        ways = {
            f"{what} of {words}": of.accuracy(mask)
            for what in ("caption", "answer")
            for source, words in (("vit", "ViT tokens"), ("latents", "clean latents"))
            if (mask := of.where(functools.partial(_is, what=what, source=source))).any()
        }
        head = ["", *ways]
        rows.append([name, *(percent(estimate) for estimate in ways.values())])
        numbers[name] = ways
    if not rows:
        return None
    text = (
        "Texts that the understanding expert writes of held-out pictures, percent exactly right: everything that a "
        "caption states is true and no thing is left out; an answer is the expected one."
    )
    return Part([Paragraph(text), Table(head, rows)], numbers)


def noised_reading(study: Study, folder: Path) -> Part | None:
    """Draws how captions of noised latents are by time, if the block sees no prompt, its own, or another one."""
    evaluation = study.config.reading
    right = measured(study, BEFORE, evaluation)
    shapes = measured(study, BEFORE, evaluation, field="shapes")
    other = measured(study, BEFORE, evaluation, field="shapes_of_other")
    if right is None or shapes is None or other is None:
        return None
    times = sorted({line["way"]["time"] for line in right.lines if line["way"]["source"] == "noised"})
    panels: dict[str, dict[str, figures.Line]] = {}
    numbers: dict[str, Any] = {}
    for title, of, prompts in (
        ("caption exactly right about the picture", right, _PROMPTS),
        ("caption names the picture's shapes", shapes, _PROMPTS),
        ("caption names the shapes of the other scene", other, {"other": _PROMPTS["other"]}),
    ):
        panels[title] = {}
        for prompt, words in prompts.items():
            at = {t: e for t in times if (e := _at(of, t, prompt)) is not None}
            if at:
                means, lows, highs = ([100 * estimate[i] for estimate in at.values()] for i in range(3))
                panels[title][words] = figures.Line(list(at), means, lows, highs)
                numbers.setdefault(title, {})[prompt] = at
    if not times:
        return None
    colour = figures.colours(list(_PROMPTS.values()))
    drawn = figures.lines(panels, colour, "time t (0 clean, 1 noise)", "captions (%)", y_limits=(-2, 102))
    figures.save(drawn, folder / "reading_by_time.png")
    text = (
        "Captions that the base writes after a noised block, as UNO trains them. Where they are wrong without a "
        "prompt, supervision can teach nothing about the picture. Where they name the shapes of another scene whose "
        "prompt the block sees, they are read from the prompt, and not from the picture."
    )
    return Part([Paragraph(text), Figure("figures/reading_by_time.png", "captions of noised latents by time")], numbers)


def _found(study: Study) -> Iterator[tuple[str, Measured]]:
    evaluations = [e for e in study.config.final if e.kind == "read"] or [study.config.reading]
    for name in names_of(study.config):
        of = measured(study, name, evaluations[0])
        if of is None and name == BEFORE:
            of = measured(study, name, study.config.reading)
        if of is not None:
            yield name, of


def _at(of: Measured, time: float, prompt: str) -> Estimate | None:
    mask = of.where(lambda line: _is(line, source="noised", time=time, prompt=prompt))
    return of.accuracy(mask) if mask.any() else None


def _is(line: Mapping[str, Any], **way: Any) -> bool:
    return all(line["way"][name] == value for name, value in way.items())

"""The result of a study in one table for the terminal."""

from __future__ import annotations

import rich.table

from uno_jax.study.config import BEFORE, Evaluation
from uno_jax.study.parts.part import names_of, title_of
from uno_jax.study.plan import Study
from uno_jax.study.results import measured


def summary_table(study: Study) -> rich.table.Table | None:
    """Makes a table with a row per arm and a column per category: prompts drawn right, in percent, without intervals.

    It shows the first set of prompts that the study draws. None if nothing of it is measured yet.
    """
    for evaluation in study.config.final:
        if evaluation.kind == "draw":
            return _table(study, evaluation)
    return None


def _table(study: Study, evaluation: Evaluation) -> rich.table.Table | None:
    found = {name: each for name in names_of(study.config) if (each := measured(study, name, evaluation)) is not None}
    if not found:
        return None
    first = next(iter(found.values()))
    categories = first.categories()
    title = f"Drawn right (%), {len(first.lines):,} {title_of(evaluation)}"
    table = rich.table.Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    for heading in ("all", *categories):
        table.add_column(heading.replace("_", " "), justify="right")
    for name, each in found.items():
        masks = [each.of_category(category) for category in categories]
        shares = [each.accuracy().mean, *(each.accuracy(mask).mean for mask in masks)]
        table.add_row("before" if name == BEFORE else name, *(f"{100 * share:.1f}" for share in shares))
    return table

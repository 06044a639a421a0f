"""Parts about accuracy: totals, differences to the reference, categories, curves, and what can be resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from uno_jax.study import figures
from uno_jax.study.config import BEFORE, Evaluation, StudyConfig
from uno_jax.study.document import Block, Figure, Paragraph, Table
from uno_jax.study.parts.part import Part, names_of, percent, points, title_of
from uno_jax.study.plan import Study, curve_steps
from uno_jax.study.results import Measured, measured
from uno_jax.study.statistics import Estimate, Spread, pair_interval, pairs_needed, smallest_difference, spread

Found = dict[str, Measured]
"""Results by name of the arm."""


def accuracy(study: Study, folder: Path) -> Part | None:
    """Makes the table of arms: accuracy, and difference to the reference, for each set of prompts."""
    return _totals(study, folder, "draw", "differences")


def edits(study: Study, folder: Path) -> Part | None:
    """Makes the same table for edits, and the one by kind of edit."""
    totals, kinds = (
        _totals(study, folder, "edit", "edit_differences"),
        _by_category(study, folder, "edit", "edit_kinds"),
    )
    if totals is None or kinds is None:
        return totals
    return Part([*totals.blocks, *kinds.blocks], {"all": totals.numbers, "by_kind": kinds.numbers})


def categories(study: Study, folder: Path) -> Part | None:
    """Makes tables and bars of the accuracy by category, for each set of prompts."""
    return _by_category(study, folder, "draw", "categories")


def _by_category(study: Study, folder: Path, kind: str, figure: str) -> Part | None:
    config, panels = study.config, {}
    blocks: list[Block] = []
    numbers: dict[str, Any] = {}
    for evaluation in _of_kind(config.final, kind):
        found = _found(study, evaluation)
        if not found:
            continue
        groups: dict[str, dict[str, Estimate]] = {}
        differences: dict[str, dict[str, Estimate]] = {}
        for category in next(iter(found.values())).categories():
            masks = {name: each.of_category(category) for name, each in found.items()}
            groups[category] = {name: each.accuracy(masks[name]) for name, each in found.items()}
            differences[category] = _differences(found, config, masks)
        title = title_of(evaluation)
        panels[title] = groups
        numbers[evaluation.name] = {"accuracy": groups, "difference": differences}
        head = ["", *(category.replace("_", " ") for category in groups)]
        rows = [[name, *(percent(of.get(name)) for of in groups.values())] for name in found]
        blocks += [Paragraph(f"{title}, percent right:"), Table(head, rows)]
        compared = [name for name in found if any(name in of for of in differences.values())]
        if compared:
            rows = [[name, *(points(of.get(name)) for of in differences.values())] for name in compared]
            blocks += [Paragraph(f"{title}, minus {config.reference}, in points:"), Table(head, rows)]
    if not panels:
        return None
    colour = figures.colours(names_of(config), BEFORE)
    figures.save(figures.bars(panels, colour, "right (%)"), folder / f"{figure}.png")
    return Part([Figure(f"figures/{figure}.png", "accuracy by category, with intervals"), *blocks], numbers)


def curves(study: Study, folder: Path) -> Part | None:
    """Draws the accuracy over training steps, and its difference to the reference. Step 0 is the base."""
    config, panels = study.config, {}
    numbers: dict[str, Any] = {}
    for evaluation in config.curve:
        before = measured(study, BEFORE, evaluation)
        found = {
            arm.name: {
                step: of for step in curve_steps(config, arm) if (of := measured(study, arm.name, evaluation, step))
            }
            for arm in config.arms
        }
        reference = found[config.reference]
        totals = {
            name: ({} if before is None else {0: before.accuracy()}) | {step: of.accuracy() for step, of in at.items()}
            for name, at in found.items()
            if at
        }
        differences = {
            name: {step: e for step, of in at.items() if step in reference and (e := of.minus(reference[step]))}
            for name, at in found.items()
            if name != config.reference
        }
        title = title_of(evaluation)
        panels[title] = {name: _line(at, intervals=False) for name, at in totals.items()}
        panels[f"{title}, minus {config.reference}"] = {name: _line(at) for name, at in differences.items() if at}
        numbers[evaluation.name] = {"accuracy": totals, "difference": differences}
    panels = {title: panel for title, panel in panels.items() if panel}
    if not panels:
        return None
    colour = figures.colours(names_of(config), BEFORE)
    figures.save(figures.lines(panels, colour, "training step", "prompts drawn right (%)"), folder / "curves.png")
    about = "accuracy over training steps; the bands are intervals of the difference"
    return Part([Figure("figures/curves.png", about)], numbers)


def _line(at: Mapping[int, Estimate], *, intervals: bool = True) -> figures.Line:
    means, lows, highs = ([100 * estimate[i] for estimate in at.values()] for i in range(3))
    return figures.Line(list(at), means, lows if intervals else None, highs if intervals else None)


def resolution(study: Study, folder: Path) -> Part | None:
    """Calculates from the measured spread what difference the study can resolve, and how many runs it needs."""
    config = study.config
    evaluation = next(_of_kind(config.final, "draw"), None)
    found = _found(study, evaluation) if evaluation else {}
    rows, numbers = [], {}
    for name, each in found.items():
        difference = each.difference(found[config.reference]) if config.reference in found else None
        if name in (BEFORE, config.reference) or difference is None:
            continue
        pairs, prompts = difference.right.shape
        if pairs < 2 or prompts < 2:
            continue
        sources = spread(difference.right)
        rows.append(_resolution_row(name, sources, pairs, prompts, config.difference))
        numbers[name] = {
            "spread": sources._asdict(),
            "pairs": pairs,
            "prompts": prompts,
            "smallest": smallest_difference(sources, pairs, prompts),
            "student": pair_interval(difference.right),
        }
    if not rows:
        return None
    assert evaluation is not None
    wanted = f"{100 * config.difference:g} points"
    text = (
        f"The difference to {config.reference} ({title_of(evaluation)}) varies from run to run, from prompt to prompt, "
        "and with both together: standard deviations of a single one, in points. From these follow the smallest true "
        "difference that this number of runs and prompts shows with a probability of 80% (interval of 95%, "
        f"Student's over runs), and the number of runs that {wanted} need with as many prompts."
    )
    head = ["", "of runs", "of prompts", "the rest", "runs", "prompts", "smallest difference", f"runs for {wanted}"]
    return Part([Paragraph(text), Table(head, rows)], numbers)


def _resolution_row(name: str, sources: Spread, pairs: int, prompts: int, wanted: float) -> list[str]:
    need = pairs_needed(sources, wanted, prompts)
    return [
        name,
        *(f"{100 * value:.1f}" for value in sources),
        str(pairs),
        f"{prompts:,}",
        f"{100 * smallest_difference(sources, pairs, prompts):.1f}",
        "more than 100, or more prompts" if need is None else str(need.pairs),
    ]


def _totals(study: Study, folder: Path, kind: str, figure: str) -> Part | None:
    config = study.config
    found = {evaluation: _found(study, evaluation) for evaluation in _of_kind(config.final, kind)}
    found = {evaluation: each for evaluation, each in found.items() if each}
    if not found:
        return None
    names = [name for name in names_of(config) if any(name in each for each in found.values())]
    differences = {evaluation: _differences(each, config) for evaluation, each in found.items()}
    head = ["", "runs"]
    for evaluation in found:
        head += [f"{title_of(evaluation)} (%)", f"minus {config.reference}"]
    rows = [[name, _run_count(name, list(found.values())), *_row(name, found, differences)] for name in names]
    blocks: list[Block] = [Paragraph(_about(study, list(found))), Table(head, rows)]
    panels = {title_of(evaluation): each for evaluation, each in differences.items() if each}
    if panels:
        drawn = figures.differences(panels, config.reference, figures.colours(names_of(config), BEFORE))
        figures.save(drawn, folder / f"{figure}.png")
        blocks.append(Figure(f"figures/{figure}.png", f"difference to {config.reference}, with intervals"))
    numbers = {
        evaluation.name: {
            name: {
                "accuracy": each.accuracy(),
                "by_pair": {pair.name: float(row.mean()) for pair, row in zip(each.pairs, each.right, strict=True)},
                "difference": differences[evaluation].get(name),
            }
            for name, each in of.items()
        }
        for evaluation, of in found.items()
    }
    return Part(blocks, numbers)


def _row(
    name: str, found: dict[Evaluation, Found], differences: dict[Evaluation, dict[str, Estimate]]
) -> Iterator[str]:
    for evaluation, each in found.items():
        yield percent(each[name].accuracy()) if name in each else ""
        yield points(differences[evaluation].get(name))


def _differences(
    found: Found, config: StudyConfig, masks: Mapping[str, Bool[np.ndarray, " records"]] | None = None
) -> dict[str, Estimate]:
    """Returns the difference of each other arm to the reference. The bases are those that their runs started from."""
    reference = found.get(config.reference)
    if reference is None:
        return {}
    each = {}
    for name, of in found.items():
        mask = None if masks is None else masks[name]
        if name == BEFORE:
            before = reference.minus(of, mask)
            each[name] = None if before is None else Estimate(-before.mean, -before.high, -before.low)
        elif name != config.reference:
            each[name] = of.minus(reference, mask)
    return {name: estimate for name, estimate in each.items() if estimate is not None}


def _about(study: Study, evaluations: Sequence[Evaluation]) -> str:
    config = study.config
    counts = {len(each.lines) for evaluation in evaluations for each in _found(study, evaluation).values()}
    prompts = " or ".join(f"{count:,}" for count in sorted(counts))
    several = config.bases() > 1 or max(config.seeds_of(arm) for arm in config.arms) > 1
    over = "over prompts, bases and seeds" if several else "over prompts only, because there is one run of each arm"
    return (
        f"Share of records with everything right and nothing else, judged exactly; {prompts} records each, the same "
        f"with the same noise for all. Intervals are of 95%, by a bootstrap {over}; `*` marks a difference whose "
        "interval excludes 0."
    )


def _found(study: Study, evaluation: Evaluation) -> Found:
    each = {name: measured(study, name, evaluation) for name in names_of(study.config)}
    return {name: results for name, results in each.items() if results is not None}


def _run_count(name: str, found: Sequence[Found]) -> str:
    counts = [len(each[name].pairs) for each in found if name in each]
    return str(max(counts, default=0))


def _of_kind(evaluations: Sequence[Evaluation], kind: str) -> Iterator[Evaluation]:
    return (evaluation for evaluation in evaluations if evaluation.kind == kind)

"""One table over checkpoints and benchmarks, as Markdown, CSV, JSON and LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.evaluation.differences import differences
from uno_jax.evaluation.runs import Run
from uno_jax.process.files import atomic_file


class Row(NamedTuple):
    """An average of a benchmark. Numbers with other settings or of another judge are in another row."""

    benchmark: str
    average: str
    settings: str
    judge: str


class Cell(NamedTuple):
    """The number of a model."""

    value: float
    scored: int
    expected: int

    @property
    def text(self) -> str:
        """The value, and the items scored of those expected if some are not."""
        note = "" if self.scored == self.expected else f" ({self.scored:,} of {self.expected:,})"
        return f"{self.value:.4f}{note}" if abs(self.value) < 1.5 else f"{self.value:.2f}{note}"


Table = dict[Row, dict[str, Cell]]
"""Row -> model -> cell."""


def make_table(runs: Sequence[Run]) -> Table:
    """Returns the averages of all runs that have a score, in the order of the runs."""
    table: Table = {}
    for benchmark in dict.fromkeys(run.benchmark for run in runs):
        for run in runs:
            for score in run.scores if run.benchmark == benchmark else ():
                for average, value in score["averages"].items():
                    row = Row(benchmark, average, run.settings, score["judge"])
                    cell = Cell(value, score["items_scored"], score["items_expected"])
                    table.setdefault(row, {})[run.model] = cell
    return table


def write_tables(out: Path, runs: Sequence[Run]) -> None:
    """Writes `table.md`, `table.csv`, `table.json` and `table.tex` to a folder."""
    table, models = make_table(runs), list(dict.fromkeys(run.model for run in runs))
    contents = {
        "table.md": "\n".join(filter(None, [_markdown(table, models), _differences(runs), _unscored(runs)])),
        "table.csv": _csv(table),
        "table.json": json.dumps(_json(table, runs), ensure_ascii=False, indent=1) + "\n",
        "table.tex": _latex(table, models),
    }
    for name, text in contents.items():
        with atomic_file(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _lines(table: Table, models: Sequence[str]) -> list[list[str]]:
    """Returns the cells of all lines, head first."""
    lines = [["benchmark", "average", "settings", "judge", *models]]
    for row, cells in table.items():
        lines.append([*row, *(cells[model].text if model in cells else "" for model in models)])
    return lines


def _markdown(table: Table, models: Sequence[str]) -> str:
    return markdown_table(_lines(table, models), 4) if table else ""


def markdown_table(lines: Sequence[Sequence[str]], texts: int) -> str:
    """Formats lines, head first, with `texts` columns of text and then columns of numbers."""
    head, *rest = ([cell.replace("|", "/") for cell in line] for line in lines)
    rule = [*["---"] * texts, *["---:"] * (len(head) - texts)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *rest])


def _differences(runs: Sequence[Run]) -> str:
    lines = [
        [each.benchmark, each.settings, each.judge, f"{each.model} - {each.minus}", f"{each.items:,}"]
        + [f"{value:+.4f}" for value in (each.value, each.low, each.high)]
        for each in differences(runs)
    ]
    head = ["benchmark", "settings", "judge", "difference", "items", "mean", "low", "high"]
    title = "Differences over the same items, all of one weight, with 95% intervals over items:\n\n"
    return title + markdown_table([head, *lines], 4) if lines else ""


def _unscored(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        if not run.scores:
            expected = len(run.record.pictures)
            made = expected - len(run.record.missing(run.out))
            lines.append(f"- {run.benchmark}, {run.model}, {run.settings}: {made:,} of {expected:,} pictures made\n")
    return "Not scored yet:\n\n" + "".join(lines) if lines else ""


def _csv(table: Table) -> str:
    """One line per number, for other programs."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([*Row._fields, "model", *Cell._fields])
    for row, cells in table.items():
        for model, cell in cells.items():
            writer.writerow([*row, model, *cell])
    return content.getvalue()


def _json(table: Table, runs: Sequence[Run]) -> dict[str, Any]:
    numbers = [
        {**row._asdict(), "model": model, **cell._asdict()}
        for row, cells in table.items()
        for model, cell in cells.items()
    ]
    sources = [
        {
            "benchmark": run.benchmark,
            "model": run.model,
            "settings": run.settings,
            "categories": {score["judge"]: score["categories"] for score in run.scores},
            "record": run.record.head,
        }
        for run in runs
    ]
    compared = [each._asdict() for each in differences(runs)]
    return {"numbers": numbers, "differences": compared, "runs": sources}


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def _latex(table: Table, models: Sequence[str]) -> str:
    lines = [" & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in line) for line in _lines(table, models)]
    head, *rest = (f"{line} \\\\" for line in lines)
    columns = "l" * 4 + "r" * len(models)
    return "\n".join(
        [f"\\begin{{tabular}}{{{columns}}}", "\\hline", head, "\\hline", *rest, "\\hline", "\\end{tabular}\n"]
    )

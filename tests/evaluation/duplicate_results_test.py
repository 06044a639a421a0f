"""A result that is given twice is refused, whether it failed or not, in one file or in two."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers.evaluate_command import fail
from tests.helpers.evaluated import write_evaluated
from uno_jax.evaluation.spreadsheet import write_xlsx


class Case(NamedTuple):
    """Results of the only item of a folder."""

    item: str
    category: str
    good: Any
    failed: Any
    """None if the scorer has no failed results."""
    write: Callable[[Path, list[Any]], Path]
    """Writes results to a new folder, and returns what `--results` names."""
    twice: bool = True
    """Whether a file may have two results of an item."""


def lines(folder: Path, results: list[Any]) -> Path:
    file = folder / "results.jsonl"
    file.write_text("".join(f"{json.dumps(result)}\n" for result in results))
    return file


def dpg(folder: Path, results: list[str]) -> Path:
    file = folder / "dpg-bench_1_results.txt"
    file.write_text("".join(f"{result}\n" for result in results))
    return file


def gedit(folder: Path, results: list[tuple[Any, Any]]) -> Path:
    file = folder / "base_color_alter_gpt_score.csv"
    head = "edited_image,sementics_score,quality_score,intersection_exist,instruction_language"
    rows = [f"save/fullset/color_alter/en/a.png,{semantics},{quality},True,en" for semantics, quality in results]
    file.write_text("\n".join([head, *rows]))
    return file


def imgedit(folder: Path, results: list[Any]) -> Path:
    [result] = results
    file = folder / "result.json"
    file.write_text(json.dumps({"1": result}))
    return file


def kris(folder: Path, results: list[Any]) -> Path:
    [result] = results
    file = folder / "physics/metrics.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"1": result}))
    return file


def rise(folder: Path, results: list[Any]) -> Path:
    head = ["index", "Reasoning", "ApprConsistency", "VisualPlausibility", "match_log"]
    file = folder / "base_judge.xlsx"
    write_xlsx(file, [head, *(["1", *result] for result in results)])
    return file


def unigen(folder: Path, results: list[str]) -> Path:
    file = folder / "base_en.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([["result_json", "img_path"], *([result, "base/1_0.png"] for result in results)])
    return file


def wise(rating: float) -> dict[str, Any]:
    return {"prompt_id": 1, "consistency": rating, "realism": rating, "aesthetic_quality": rating}


CASES = {
    "geneval": Case(
        "00000", "colors", {"filename": "00000/samples/0.png", "tag": "colors", "correct": True}, None, lines
    ),
    "dpg": Case("1", "numbered", "images/1.png, 1.0, 0.5, 0.5, 0.0, 0.5", None, dpg),
    "wise": Case("1", "any", wise(2), wise(9.9), lines),
    "gedit_en": Case("color_alter/a", "color_alter", (4, 9), ("", ""), gedit),
    "imgedit": Case("1", "add", "Prompt Compliance: 5\nVisual: 4\nDetail: 3", {"error": "late"}, imgedit, twice=False),
    "kris": Case(
        "physics/1",
        "physics",
        {"consistency_score": 5, "quality_score": 5, "instruction_score": 5, "knowledge_score": 5},
        {},
        kris,
        twice=False,
    ),
    "rise": Case("1", "causal_reasoning", [5, 5, 5, "succeed"], ["", "", "", "failed"], rise),
    "unigen_en": Case("1", "any", '{"testpoint": ["Style"], "score": [1]}', "", unigen),
}
"""Benchmark -> case."""

KINDS = {
    "good_twice": lambda case: (case.good, case.good),
    "failed_first": lambda case: (case.failed, case.good),
    "failed_last": lambda case: (case.good, case.failed),
    "failed_twice": lambda case: (case.failed, case.failed),
}


POSSIBLE = [
    (name, kind, files)
    for name, case in CASES.items()
    for kind, results in KINDS.items()
    for files in (1, 2)
    if None not in results(case) and (files == 2 or case.twice)
]


@pytest.mark.parametrize(("name", "kind", "files"), POSSIBLE)
def test_a_result_that_is_given_twice_is_refused(tmp_path, name, kind, files):
    case = CASES[name]
    results = list(KINDS[kind](case))
    out = write_evaluated(tmp_path / "out", name, {case.item: case.category})
    parts = [results] if files == 1 else [[result] for result in results]
    given = []
    for number, part in enumerate(parts):
        (tmp_path / f"results_{number}").mkdir()
        given.append(case.write(tmp_path / f"results_{number}", part))
    message = fail("score", f"--out={out}", *(f"--results={file}" for file in given))
    assert "is also at" in message
    assert "give each result once" in message
    assert not (out / "score.json").exists()

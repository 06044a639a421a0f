"""RISEBench (PhoenixZ810/RISEBench): edits that need reasoning, in four categories, judged by a language model."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from uno_jax.evaluation.benchmark import (
    IMAGES,
    SOURCES,
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    Preset,
    Score,
    Seen,
    check_result,
    data_of,
    field_of,
    find_file,
    read_text,
)
from uno_jax.evaluation.presets import EDITING, OURS_EDITING, THOUGHTS
from uno_jax.evaluation.sources import copy_source
from uno_jax.evaluation.spreadsheet import read_xlsx
from uno_jax.process.json_reader import JsonError, parse_json

_FILE = "datav2_total_w_subtask.json"
_NAMES = (_FILE, f"data/{_FILE}")
_CONSISTENCY, _REASONING, _PLAUSIBILITY = "ApprConsistency", "Reasoning", "VisualPlausibility"
_WEIGHTS = {_CONSISTENCY: 0.3, _REASONING: 0.5, _PLAUSIBILITY: 0.2}
_FREE_WEIGHTS = {_REASONING: 0.8, _PLAUSIBILITY: 0.2}
"""Weights of an edit whose consistency is not judged."""
_LOGICAL_WEIGHTS = {_CONSISTENCY: 0.3, _REASONING: 0.7}
_LOGICAL = "logical_reasoning"
_LEAST, _MOST = 1, 5  # of a rating


def _read(path: Path) -> Data:
    """Reads `datav2_total_w_subtask.json`, a list of edits. Pictures are named from its folder."""
    file = find_file(path, _NAMES)
    try:
        records = parse_json(read_text(file))
    except JsonError as error:
        raise BenchmarkError(f"{file}: {error}; download it again") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise BenchmarkError(f"{file}: expected a JSON list of objects; download it again")
    items = []
    for number, record in enumerate(records):
        where = f"{file}[{number}]"
        index, category = field_of(record, "index", str, where), field_of(record, "category", str, where)
        for name, value in (("index", index), ("category", category)):
            if not re.fullmatch(r"\w[\w-]*", value):
                raise BenchmarkError(f"{where}: {name} is {value!r}, which is no file name; download it again")
        picture, prompt = field_of(record, "image", str, where), field_of(record, "instruction", str, where)
        source = f"{SOURCES}/{index}{PurePosixPath(picture).suffix}"
        items.append(Item(index, prompt, category, where, {"picture": picture}, source))
    return data_of(items, [file])


def _picture(item: Item, sample: int, name: str) -> str:
    return f"{IMAGES}/{name}/images/{item.category}/{item.id}.png"


def _unpack(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Copies the pictures to edit, unless they exist."""
    folder = find_file(path, _NAMES).parent
    for item in items:
        roots = [folder, folder / "data"]
        copy_source(out / str(item.source), item.published["picture"], roots, item, "download the whole folder data")


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `<MODEL>_judge.xlsx` of `gpt_eval.py`: up to three ratings from 1 to 5 of each edit.

    An edit is right with full ratings in all that is asked of its category: consistency, reasoning and, except for
    logical ones, plausibility. The official accuracy counts an edit whose consistency is not asked for as wrong, and a
    failed judgement, too. The weighted score is halved, but at least 1, if reasoning is rated 1.
    """
    scores: dict[str, float] = {}
    seen: Seen = {}
    right: dict[str, float] = {}
    asked_for: dict[str, bool] = {}
    failed = 0
    for file in files:
        for number, row in enumerate(read_xlsx(file), start=2):
            index, where = row.get("index", ""), f"{file}, row {number}"
            check_result(index, items, seen, where, shown=repr(index))
            free = row.get("match_log") == "succeed" and _CONSISTENCY not in row
            logical = items[index].category == _LOGICAL
            weights = _LOGICAL_WEIGHTS if logical else _FREE_WEIGHTS if free else _WEIGHTS
            ratings = {name: _rating(row.get(name), f"{where}: {name}") for name in weights if name in row}
            if len(ratings) < len(weights):
                failed += 1
                continue
            score = sum(weight * ratings[name] for name, weight in weights.items())
            scores[index] = max(1.0, score / 2) if ratings[_REASONING] == _LEAST else score
            right[index] = float(min(ratings.values()) == _MOST)
            asked_for[index] = not free
    if not scores:
        raise BenchmarkError(f"{files[0]}: no edit has its ratings; expected <MODEL>_judge.xlsx")
    kinds: dict[str, list[float]] = defaultdict(list)
    for index, value in right.items():
        kinds[items[index].category].append(value)
    official = sum(value for index, value in right.items() if asked_for[index])
    return Score(
        averages={
            "accuracy": 100 * float(np.mean(list(right.values()))),
            "accuracy, official": 100 * official / (len(right) + failed),
            "score, (s - 1) x 25": 25 * (float(np.mean(list(scores.values()))) - 1),
        },
        categories={kind: 100 * float(np.mean(values)) for kind, values in sorted(kinds.items())},
        items=right,
        pictures=len(scores),
        failed=failed,
    )


def _rating(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = 0.0
    if not _LEAST <= value <= _MOST:
        raise BenchmarkError(f"{where} is {text!r}: expected a number from {_LEAST} to {_MOST}")
    return value


RISE = Benchmark(
    name="rise",
    about="RISEBench",
    published=360,
    samples=1,
    presets={
        "bagel": Preset("BAGEL's script without thinking, image scale as in its table", EDITING),
        "bagel_think": Preset(
            "BAGEL's script with thinking, but our system prompt",
            dataclasses.replace(EDITING, image_scale=2.0, think=True),
            THOUGHTS,
        ),
        "ours": OURS_EDITING,
    },
    read=_read,
    picture=_picture,
    scorer="python gpt_eval.py --data data/datav2_total_w_subtask.json --input data --output {images}/{name} (in a "
    "checkout of PhoenixZ810/RISEBench); it writes {name}_judge.xlsx",
    unpack=_unpack,
    results="*_judge.xlsx",
    score=_score,
)

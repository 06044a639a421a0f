"""RISEBench (PhoenixZ810/RISEBench): edits that need reasoning, in four categories, judged by a language model."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from uno_jax.evaluation.benchmark import (
    IMAGES,
    SOURCES,
    Answers,
    Ask,
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    Judging,
    Preset,
    Score,
    Seen,
    check_result,
    data_of,
    field_of,
    find_file,
    read_text,
)
from uno_jax.evaluation.judge.pictures import write_smaller
from uno_jax.evaluation.judge.rise_texts import TEXTS
from uno_jax.evaluation.judge.texts import rating_in
from uno_jax.evaluation.presets import EDITING, OURS_EDITING, THOUGHTS
from uno_jax.evaluation.sources import copy_source, find_source
from uno_jax.evaluation.spreadsheet import read_xlsx, write_xlsx
from uno_jax.process.json_reader import JsonError, parse_json

_FILE = "datav2_total_w_subtask.json"
_NAMES = (_FILE, f"data/{_FILE}")
_CONSISTENCY, _REASONING, _PLAUSIBILITY = "ApprConsistency", "Reasoning", "VisualPlausibility"
_WEIGHTS = {_CONSISTENCY: 0.3, _REASONING: 0.5, _PLAUSIBILITY: 0.2}
_FREE_WEIGHTS = {_REASONING: 0.8, _PLAUSIBILITY: 0.2}
"""Weights of an edit whose consistency is not judged."""
_LOGICAL_WEIGHTS = {_CONSISTENCY: 0.3, _REASONING: 0.7}
_LOGICAL, _SPATIAL = "logical_reasoning", "spatial_reasoning"
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
    # The scorer asks whether the table has this column, and not whether the edit has the field.
    wordless = any("reasoning_wo_ins" in record for record in records)
    items = []
    for number, record in enumerate(records):
        where = f"{file}[{number}]"
        index, category = field_of(record, "index", str, where), field_of(record, "category", str, where)
        for name, value in (("index", index), ("category", category)):
            if not re.fullmatch(r"\w[\w-]*", value):
                raise BenchmarkError(f"{where}: {name} is {value!r}, which is no file name; download it again")
        picture, prompt = field_of(record, "image", str, where), field_of(record, "instruction", str, where)
        source = f"{SOURCES}/{index}{PurePosixPath(picture).suffix}"
        kept = {"picture": picture, "wordless": wordless, **_judged_by(record, category)}
        items.append(Item(index, prompt, category, where, kept, source))
    return data_of(items, [file])


def _judged_by(record: Mapping[str, Any], category: str) -> dict[str, Any]:
    """Returns what a judge needs of a record: texts, or "" if there are none, and switches. They are checked when it is
    asked."""
    given = {name: value for name, value in record.items() if value is not None and value == value}  # NaN is none
    return {
        "reference": given.get("reference_txt" if category == _LOGICAL else "reference", ""),
        "reference_img": given.get("reference_img", ""),
        "with_source": "reasoning_img" in given,
        "free": "consistency_free" in given and category != _LOGICAL,
    }


def _picture(item: Item, sample: int, name: str) -> str:
    return f"{IMAGES}/{name}/images/{item.category}/{item.id}.png"


_ADVICE = "download the whole folder data"


def _unpack(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Copies the pictures to edit, unless they exist."""
    folder = find_file(path, _NAMES).parent
    for item in items:
        roots = [folder, folder / "data"]
        copy_source(out / str(item.source), item.published["picture"], roots, item, _ADVICE)


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `<MODEL>_judge.xlsx` of `gpt_eval.py`: up to three ratings from 1 to 5 of each edit.

    An edit is right with full ratings in all that is asked of its category: consistency, reasoning and, except for
    logical ones, plausibility. The official accuracy counts an edit whose consistency is not asked for as wrong, and a
    failed judgement, too. The weighted score is halved, but at least 1, if reasoning is rated 1. The official script
    leaves consistency out of the score of every edit that is not logical: it takes an empty cell of `consistency_free`
    as true.
    """
    scores: dict[str, float] = {}
    loose: dict[str, float] = {}
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
            scores[index] = _weighted(ratings, weights)
            loose[index] = _weighted(ratings, weights if logical else _FREE_WEIGHTS)
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
            "score without consistency, (s - 1) x 25": 25 * (float(np.mean(list(loose.values()))) - 1),
        },
        categories={kind: 100 * float(np.mean(values)) for kind, values in sorted(kinds.items())},
        items=right,
        pictures=len(scores),
        failed=failed,
    )


def _weighted(ratings: Mapping[str, float], weights: Mapping[str, float]) -> float:
    score = sum(weight * ratings[name] for name, weight in weights.items())
    return max(1.0, score / 2) if ratings[_REASONING] == _LEAST else score


def _rating(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = 0.0
    if not _LEAST <= value <= _MOST:
        raise BenchmarkError(f"{where} is {text!r}: expected a number from {_LEAST} to {_MOST}")
    return value


_LARGEST = 768  # pixels of the longer side of a picture that the judge sees
_FINAL = "final_score"


class _Form(NamedTuple):
    """The texts that ask about an edit, and what they show before the result."""

    consistency: str
    reasoning: str
    quality: str
    first: bool
    """Whether the question about reasoning shows a picture before the result."""
    reference: bool
    """Whether this picture, and that of the question about consistency, is the reference and not the source."""


def _form(item: Item) -> _Form:
    reference = bool(field_of(item.published, "reference_img", str, item.where))
    answer, with_source = field_of(item.published, "reference", str, item.where), item.published["with_source"]
    if item.category == _LOGICAL:
        if answer:
            return _Form("prompt_logical_cons_ans", "prompt_logical_txt", "", False, False)
        if not reference:
            raise BenchmarkError(f"{item.where}: there is no reference_txt and no reference_img; download it again")
        wordless = item.published["wordless"]
        reasoning = "prompt_logical_img_wo_q" if wordless else "prompt_logical_img"
        return _Form("prompt_logical_cons", reasoning, "", True, True)
    if item.category == _SPATIAL and reference:
        return _Form("prompt_spatial_cons", "prompt_spatial_ref_img", "prompt_spatial_qual", True, True)
    if not answer:
        raise BenchmarkError(f"{item.where}: there is no reference; download it again")
    if item.category == _SPATIAL:
        reasoning = "prompt_spatial_ref_w_input" if with_source else "prompt_spatial_ref"
        return _Form("prompt_spatial_cons", reasoning, "prompt_spatial_qual", with_source, False)
    reasoning = "prompt_reasoning_w_input" if with_source else "prompt_reasoning"
    return _Form("prompt_consist", reasoning, "prompt_generation", with_source, False)


def _asks(data: Path, out: Path, item: Item, picture: Path) -> list[Ask]:
    """Asks about consistency, unless it is free, reasoning and, except for logical edits, plausibility. Pictures are
    shown as JPEG of at most 768 pixels, as by the scorer."""
    form = _form(item)
    result = write_smaller(picture, out / _RESIZED / f"{item.id}.jpg", _LARGEST)
    before = out / str(item.source)
    if form.reference:
        roots = [find_file(data, _NAMES).parent, find_file(data, _NAMES).parent / "data"]
        before = find_source(item.published["reference_img"], roots, item, _ADVICE)
    first = write_smaller(before, out / _RESIZED / f"{item.id}_before.jpg", _LARGEST)
    return [
        *([] if item.published["free"] else [Ask(form.consistency, (first, result))]),
        Ask(form.reasoning, (first, result) if form.first else (result,)),
        *([Ask(form.quality, (result,))] if form.quality else []),
    ]


_RESIZED = "judge/resized"


def _rated(name: str, answer: str) -> int | None:
    """Returns a rating from 1 to 5. Questions about logical edits are answered by 0 or 1, which stand for 1 and 5."""
    if name.startswith("prompt_logical"):
        right = rating_in(answer, _FINAL, 0, 1)
        return None if right is None else _MOST if right else _LEAST
    return rating_in(answer, _FINAL, _LEAST, _MOST)


def _readable(item: Item, name: str, answer: str) -> bool:
    return _rated(name, answer) is not None


def _write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
    """Writes a table of the ratings of each edit and the answers. An edit that lacks one has no rating at all."""
    rows: list[list[str | int]] = [["index", "category", *_COLUMNS, "match_log", *_COLUMNS.values()]]
    for picture, item in pictures.items():
        form, given = _form(item), answers.get(picture, {})
        asked = {_REASONING: form.reasoning, _PLAUSIBILITY: form.quality}
        if not item.published["free"]:
            asked[_CONSISTENCY] = form.consistency
        texts = {name: given.get(text, "") for name, text in asked.items() if text}
        whole = all(texts.values())
        ratings = {name: _rated(asked[name], text) for name, text in texts.items()} if whole else {}
        cells = [rating if (rating := ratings.get(name)) is not None else "" for name in _COLUMNS]
        said = [texts.get(name, "") for name in _COLUMNS]
        rows.append([item.id, item.category, *cells, "succeed" if whole else "failed", *said])
    file = folder / "rise_judge.xlsx"
    write_xlsx(file, rows)
    return [file]


_COLUMNS = {_REASONING: "judge_reas", _CONSISTENCY: "judge_cons", _PLAUSIBILITY: "judge_qua"}
"""Column of a rating -> that of the answer that it is from."""


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
    judging=Judging(_asks, _readable, _write, TEXTS),
)

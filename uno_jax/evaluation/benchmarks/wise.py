"""WISE (PKU-YuanGroup/WISE): prompts that need world knowledge, judged by a language model.

Two protocols share the names of files: the legacy one of all numbers that BAGEL published, and `_verified`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from uno_jax.evaluation.benchmark import (
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
    one_picture,
    read_json_lines,
    read_text,
)
from uno_jax.evaluation.presets import LATE, OURS, TEXT_TO_IMAGE, THOUGHTS
from uno_jax.process.files import atomic_file
from uno_jax.process.json_reader import JsonError, parse_json

_FILES = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
_GROUPS = {
    "culture": (range(1, 401), 0.4),
    "time": (range(401, 568), 0.167),
    "space": (range(568, 701), 0.133),
    "biology": (range(701, 801), 0.1),
    "physics": (range(801, 901), 0.1),
    "chemistry": (range(901, 1001), 0.1),
}
"""Legacy protocol: group -> its ids, and its weight in the overall score."""
_WEIGHTS = {"consistency": 0.7, "realism": 0.2, "aesthetic_quality": 0.1}
_LARGEST = 2  # of a rating
_KEPT: tuple[str, ...] = ("Explanation", "Subcategory", "Hint")
_FAILED = 9.9  # the rating of a failed request in the files of the scorer
_TEMPLATE, _SCORES = "wise", "scores.jsonl"
_LINE = re.compile(r"(consistency|realism|aesthetic quality)[*_\s]*[:：]?[*_\s]*([0-2])(?!\d)", re.IGNORECASE)


def _read(path: Path, suffix: str) -> Data:
    """Reads the files of a protocol, named with a suffix: three, or BAGEL's `final_data.json` of the legacy one."""
    names = [f"{name}{suffix}.json" for name in _FILES]
    folder = next((each for each in (path, path / "data") if any((each / name).is_file() for name in names)), path)
    files = [path] if path.is_file() else [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise BenchmarkError(f"{path}: there is no {names[0]}; give the folder of the prompt files of WISE")
    if path.is_file() and ("_verified" in path.name) != bool(suffix):
        other = "wise" if suffix else "wise_verified"
        raise BenchmarkError(f"{path} belongs to the other protocol of WISE; use --benchmark={other}")
    items = []
    for file in files:
        for number, record in enumerate(_list(file)):
            where = f"{file}[{number}]"
            prompt = field_of(record, "Prompt", str, where)
            category = f"{field_of(record, 'Category', str, where)} / {field_of(record, 'Subcategory', str, where)}"
            kept = {name: record[name] for name in _KEPT if name in record}
            items.append(Item(str(field_of(record, "prompt_id", int, where)), prompt, category, where, kept))
    return data_of(items, files)


def _list(file: Path) -> list[dict[str, Any]]:
    try:
        value = parse_json(read_text(file))
    except JsonError as error:
        raise BenchmarkError(f"{file}: {error}; download it again") from error
    if not isinstance(value, list) or not value or not all(isinstance(record, dict) for record in value):
        raise BenchmarkError(f"{file}: expected a JSON list of objects; download it again")
    return value


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads the three files of scores that `gpt_eval.py` writes, and averages them as `Calculate.py` does.

    The score of an image is (0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2. A rating above 2 marks a
    failed request. BAGEL's copy of the scorer weighs the six groups equally.
    """
    scores: dict[str, float] = {}
    seen: Seen = {}
    failed = 0
    for file in files:
        for where, line in read_json_lines(file):
            name = str(field_of(line, "prompt_id", int, where))
            check_result(name, items, seen, where, shown=f"prompt_id {name}")
            ratings = {rating: field_of(line, rating, (int, float), where) for rating in _WEIGHTS}
            if all(0 <= value <= _LARGEST for value in ratings.values()):
                scores[name] = sum(_WEIGHTS[rating] * value for rating, value in ratings.items()) / _LARGEST
            else:
                failed += 1
    groups = {
        group: float(np.mean(found))
        for group, (ids, _) in _GROUPS.items()
        if (found := [score for name, score in scores.items() if int(name) in ids])
    }
    if not groups:
        raise BenchmarkError(f"{files[0]}: no image has three ratings from 0 to {_LARGEST}; run the judge again")
    weights = {group: _GROUPS[group][1] for group in groups}
    return Score(
        averages={
            "official weights": sum(weights[g] * value for g, value in groups.items()) / sum(weights.values()),
            "equal weights (BAGEL's copy)": float(np.mean(list(groups.values()))),
            "mean of images": float(np.mean(list(scores.values()))),
        },
        categories=groups,
        items=scores,
        pictures=len(scores),
        failed=failed,
    )


def _ratings(answer: str) -> dict[str, int]:
    """Reads lines such as "Consistency: 2", also in bold; the last one counts."""
    found = {name.lower().replace(" ", "_"): int(digit) for name, digit in _LINE.findall(answer)}
    return found if found.keys() == _WEIGHTS.keys() else {}


def _asks(data: Path, out: Path, item: Item, picture: Path) -> list[Ask]:
    return [Ask(_TEMPLATE, (picture,))]


def _readable(item: Item, name: str, answer: str) -> bool:
    return bool(_ratings(answer))


def _write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
    """Writes the ratings of all pictures as the scorer does, with 9.9 for a failed judgement."""
    lines = []
    for picture, item in pictures.items():
        answer = answers.get(picture, {}).get(_TEMPLATE)
        ratings = dict.fromkeys(_WEIGHTS, _FAILED) if answer is None else _ratings(answer)
        line = {"prompt_id": int(item.id), "Subcategory": item.published.get("Subcategory", ""), **ratings}
        lines.append(f"{json.dumps(line, ensure_ascii=False)}\n")
    with atomic_file(folder / _SCORES) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return [folder / _SCORES]


_PRESETS = {
    "bagel": Preset("BAGEL's script without thinking", dataclasses.replace(TEXT_TO_IMAGE, interval=LATE)),
    "bagel_think": Preset(
        "BAGEL's script with thinking, but our system prompt",
        dataclasses.replace(TEXT_TO_IMAGE, interval=LATE, think=True),
        THOUGHTS,
    ),
    "reca": Preset(
        "RecA's script, with the settings of BAGEL's without thinking",
        dataclasses.replace(TEXT_TO_IMAGE, interval=LATE),
    ),
    "ours": OURS,
}

WISE = Benchmark(
    name="wise",
    about="WISE, the legacy protocol of published numbers",
    published=1000,
    samples=1,
    presets=_PRESETS,
    read=partial(_read, suffix=""),
    picture=one_picture,
    scorer="python gpt_eval.py --json_path PROMPTS --image_dir {images} .. for each of the three prompt files "
    "(WISE_legacy in a checkout of PKU-YuanGroup/WISE)",
    score=_score,
    judging=Judging(_asks, _readable, _write),
)
WISE_VERIFIED = Benchmark(
    name="wise_verified",
    about="WISE, the verified protocol of 2026",
    published=1000,
    samples=1,
    presets=_PRESETS,
    read=partial(_read, suffix="_verified"),
    picture=one_picture,
    scorer="IMAGE_DIR={images} bash eval_qwen.sh (in a checkout of PKU-YuanGroup/WISE)",
)

"""KRIS-Bench (mercurystraw/Kris_Bench): edits that need knowledge, in 20 categories, judged by a language model."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

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
)
from uno_jax.evaluation.presets import EDITING, OURS_EDITING, THOUGHTS
from uno_jax.evaluation.sources import copy_source
from uno_jax.process.json_reader import read_json_object

_FILE = "annotation.json"
_DIMENSIONS = {
    "attribute perception": "count_change color_change size_adjustment part_completion anomaly_correction",
    "spatial perception": "viewpoint_change position_movement",
    "temporal prediction": "temporal_prediction",
    "social science": "humanities practical_knowledge",
    "natural science": "biology chemistry geography medicine mathematics physics",
    "logical reasoning": "abstract_reasoning rule-based_reasoning",
    "instruction decomposition": "multi-element_composition multi-instruction_execution",
}
"""Dimension -> its categories, which are the names of folders."""
_KNOWLEDGE = {
    "factual": ("attribute perception", "spatial perception", "temporal prediction"),
    "conceptual": ("social science", "natural science"),
    "procedural": ("logical reasoning", "instruction decomposition"),
}
"""Type of knowledge -> its dimensions."""
_WITH_KNOWLEDGE = {"social science", "natural science", "logical reasoning"}
"""Dimensions whose edits are also judged by their knowledge."""
_DIMENSION_OF = {category: name for name, listed in _DIMENSIONS.items() for category in listed.split()}
_RATINGS = ("consistency_score", "quality_score", "instruction_score")
_KNOWLEDGE_RATING = "knowledge_score"
_LEAST, _MOST = 1, 5  # of a rating


def _read(path: Path) -> Data:
    """Reads `<category>/annotation.json` of all categories: an object of edits by id."""
    folder = next((each for each in (path, path / "KRIS_Bench") if _files(each)), path)
    files = _files(folder)
    if not files:
        raise BenchmarkError(f"{path}: there is no physics/{_FILE} or other; give the folder KRIS_Bench")
    items = [
        _item(file.parent.name, name, record, f"{file}: {name}")
        for file in files
        for name, record in read_json_object(file).items()
    ]
    return data_of(items, files)


def _files(folder: Path) -> list[Path]:
    return [file for category in sorted(_DIMENSION_OF) if (file := folder / category / _FILE).is_file()]


def _item(category: str, name: str, record: Any, where: str) -> Item:
    if not isinstance(record, dict) or not re.fullmatch(r"\w[\w-]*", name):
        raise BenchmarkError(f"{where}: expected an id that names a file, and an object; download it again")
    shown = field_of(record, "ori_img", (str, list), where)
    pictures = shown if isinstance(shown, list) else [shown]
    if not pictures or not all(isinstance(picture, str) and picture for picture in pictures):
        raise BenchmarkError(f"{where}: ori_img is {shown!r}: expected the name of a picture, or a list of them")
    first, *more = (
        f"{SOURCES}/{category}/{name}_{number}{PurePosixPath(picture).suffix}"
        for number, picture in enumerate(pictures)
    )
    prompt = field_of(record, "ins_en", str, where)
    return Item(f"{category}/{name}", prompt, category, where, {"pictures": pictures}, first, tuple(more))


def _picture(item: Item, sample: int, name: str) -> str:
    return f"{IMAGES}/{name}/{item.id}.png"


def _unpack(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Copies the pictures to edit, unless they exist."""
    for item in items:
        roots = [path / item.category, path / "KRIS_Bench" / item.category]
        for file, picture in zip((str(item.source), *item.more), item.published["pictures"], strict=True):
            copy_source(out / file, picture, roots, item, "download the whole folder KRIS_Bench")


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `<category>/metrics.json`: ratings from 1 to 5 of consistency, quality, instruction and, for half of the
    categories, knowledge.

    The mean of a dimension, of a type of knowledge and of all is over all single ratings in it, so that categories with
    more edits or ratings weigh more. BAGEL's script has mapped a rating s to (s - 1) x 25, and at first to s x 20.
    """
    ratings: dict[str, list[float]] = {}
    seen: Seen = {}
    missing = 0
    for file in files:
        for name, record in read_json_object(file).items():
            key, where = f"{file.parent.name}/{name}", f"{file}: {name}"
            check_result(key, items if isinstance(record, dict) else (), seen, where)
            names = [*_RATINGS, *([_KNOWLEDGE_RATING] if _dimension(items[key]) in _WITH_KNOWLEDGE else [])]
            rated: list[Any] = [record.get(each) for each in names]
            ratings[key] = [float(value) for value in rated if _is_rating(value)]
            missing += len(ratings[key]) < len(names)
    found = {key: values for key, values in ratings.items() if values}
    if not found:
        raise BenchmarkError(f"{files[0]}: no edit has a rating from {_LEAST} to {_MOST}; expected metrics.json")
    pooled: dict[str, list[float]] = defaultdict(list)
    for key, values in found.items():
        pooled[_dimension(items[key])] += values
    kinds = {
        f"{kind} knowledge": [value for name in names for value in pooled.get(name, [])]
        for kind, names in _KNOWLEDGE.items()
    }
    everything = [value for values in pooled.values() for value in values]
    return Score(
        averages={
            "overall, (s - 1) x 25": _points(everything),
            "overall, s x 20": 20 * float(np.mean(everything)),
            **{name: _points(values) for name, values in kinds.items() if values},
        },
        categories={name: _points(pooled[name]) for name in _DIMENSIONS if name in pooled},
        items={key: _points(values) for key, values in found.items()},
        pictures=len(found),
        failed=missing,
    )


def _dimension(item: Item) -> str:
    return _DIMENSION_OF[item.category]


def _is_rating(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and _LEAST <= value <= _MOST


def _points(values: Sequence[float]) -> float:
    return 25 * (float(np.mean(values)) - 1)


KRIS = Benchmark(
    name="kris",
    about="KRIS-Bench",
    published=1267,
    samples=1,
    presets={
        "bagel": Preset("BAGEL's script without thinking", EDITING),
        "bagel_think": Preset(
            "BAGEL's script with thinking, but our system prompt", dataclasses.replace(EDITING, think=True), THOUGHTS
        ),
        "ours": OURS_EDITING,
    },
    read=_read,
    picture=_picture,
    scorer="python metrics_common.py --results_dir {images} --models {name}, and the four other metrics_*.py (in "
    "BAGEL's eval/gen/kris); they write metrics.json into each folder of {images}/{name}",
    unpack=_unpack,
    results="*/metrics.json",
    score=_score,
)

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
)
from uno_jax.evaluation.judge.kris_texts import TEXTS
from uno_jax.evaluation.judge.texts import rating_in
from uno_jax.evaluation.presets import EDITING, OURS_EDITING, THOUGHTS
from uno_jax.evaluation.sources import copy_source, find_source
from uno_jax.process.files import write_json
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
_TEMPORAL, _MULTIPLE, _VIEW = "temporal_prediction", "multi-element_composition", "viewpoint_change"
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
    kept = {
        "pictures": pictures,
        # Only a judge needs these, so that they are checked then.
        "explanation": record.get("explain_en") or "",
        "truth": record.get("gt_img") or "",
        "N": str(_frames(pictures)[-1]) if category == _TEMPORAL else "",
    }
    return Item(f"{category}/{name}", prompt, category, where, kept, first, tuple(more))


def _frames(pictures: Sequence[str]) -> list[int]:
    """Returns the frame numbers of pictures such as `7-2.png`, and at the end that of the frame to predict.

    This is the one of four frames that is missing, or the next one.
    """
    numbered = [re.search(r"\d+-(\d+)", picture) for picture in pictures]
    numbers = [int(found[1]) if found else place for place, found in enumerate(numbered, start=1)]
    missing = set(range(1, 5)) - set(numbers)
    return [*numbers, missing.pop() if len(missing) == 1 else max(numbers) + 1]


def _picture(item: Item, sample: int, name: str) -> str:
    return f"{IMAGES}/{name}/{item.id}.png"


def _unpack(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Copies the pictures to edit, unless they exist."""
    for item in items:
        for file, picture in zip((str(item.source), *item.more), item.published["pictures"], strict=True):
            copy_source(out / file, picture, _roots(path, item), item, _ADVICE)


def _roots(path: Path, item: Item) -> list[Path]:
    return [path / item.category, path / "KRIS_Bench" / item.category]


_ADVICE = "download the whole folder KRIS_Bench"


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
            names = _names(items[key])
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


def _names(item: Item) -> list[str]:
    """Returns the names of the ratings of an edit."""
    return [*_RATINGS, *([_KNOWLEDGE_RATING] if _dimension(item) in _WITH_KNOWLEDGE else [])]


def _dimension(item: Item) -> str:
    return _DIMENSION_OF[item.category]


def _is_rating(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and _LEAST <= value <= _MOST


def _points(values: Sequence[float]) -> float:
    return 25 * (float(np.mean(values)) - 1)


_QUALITY, _DUAL = "prompt_quality", "prompt_dual_evaluation"
_ASKED = {
    _QUALITY: ("quality_score",),
    _DUAL: ("instruction_score", _KNOWLEDGE_RATING),
    **dict.fromkeys(("prompt_consist", "prompt_consist_multi", "prompt_consist_temporal"), ("consistency_score",)),
    **dict.fromkeys(
        (
            *("prompt_instruction_following", "prompt_view_instruction_following"),
            *("prompt_instruction_multi", "prompt_instruction_temporal"),
        ),
        ("instruction_score",),
    ),
}
"""Text for a judge, by its name in the scorer -> the ratings that it asks for."""


def _asks(data: Path, out: Path, item: Item, picture: Path) -> list[Ask]:
    """Asks about consistency, following of the instruction and quality; for half of the categories, about knowledge
    together with the second. The last question shows the result alone."""
    field_of(item.published, "explanation", str, item.where)
    sources = [out / str(file) for file in (item.source, *item.more)]
    quality = Ask(_QUALITY, (picture,), ("Edited image:",))
    if item.category == _TEMPORAL:
        frames = zip(_frames(item.published["pictures"]), [*sources, picture], strict=True)
        numbers, shown = zip(*sorted(frames), strict=True)
        captions = [
            f"Frame {n} ({'generated' if file == picture else 'reference'}):"
            for n, file in zip(numbers, shown, strict=True)
        ]
        texts = ("prompt_consist_temporal", "prompt_instruction_temporal")
        return [*(Ask(text, shown, tuple(captions)) for text in texts), quality]
    if item.category == _MULTIPLE:
        captions = [f"Reference image {number}:" for number in range(1, len(sources) + 1)]
        texts = ("prompt_consist_multi", "prompt_instruction_multi")
        return [*(Ask(text, (*sources, picture), (*captions, "Predicted image:")) for text in texts), quality]
    both, captioned = (sources[0], picture), ("Original image:", "Edited image:")
    if item.category == _VIEW:
        published = field_of(item.published, "truth", str, item.where)
        truth = find_source(published, _roots(data, item), item, _ADVICE)
        follows = Ask("prompt_view_instruction_following", (*both, truth), (*captioned, "Ground-truth image:"))
    else:
        knowledge = _dimension(item) in _WITH_KNOWLEDGE
        follows = Ask(_DUAL if knowledge else "prompt_instruction_following", both, captioned)
    return [Ask("prompt_consist", both, captioned), follows, quality]


def _answered(name: str, answer: str) -> dict[str, int | None]:
    return {rating: rating_in(answer, rating, _LEAST, _MOST) for rating in _ASKED[name]}


def _readable(item: Item, name: str, answer: str) -> bool:
    return None not in _answered(name, answer).values()


def _write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
    """Writes `<category>/metrics.json`: the ratings of each edit and the answers that they are from."""
    results: dict[str, dict[str, Any]] = defaultdict(dict)
    for picture, item in pictures.items():
        record = {"instruction": item.prompt, "explain": item.published["explanation"], **dict.fromkeys(_names(item))}
        for name, answer in answers.get(picture, {}).items():
            for rating, value in _answered(name, answer).items():
                record |= {rating: value, rating.replace("_score", "_reasoning"): answer}
        results[item.category][item.id.removeprefix(f"{item.category}/")] = record
    files = []
    for category, records in sorted(results.items()):
        files.append(folder / category / "metrics.json")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        write_json(files[-1], records)
    return files


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
    judging=Judging(_asks, _readable, _write, TEXTS),
)

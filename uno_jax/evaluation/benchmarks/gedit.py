"""GEdit-Bench (stepfun-ai): edits of photographs by instructions in English or Chinese, judged by a language model."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from uno_jax.data.decoding import decode_rgb
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
    read_text,
)
from uno_jax.evaluation.judge.texts import json_in
from uno_jax.evaluation.presets import EDITING, LATE, OURS_EDITING
from uno_jax.inference.picture_files import write_png
from uno_jax.process.files import atomic_file

_TEXTS = ["task_type", "key", "instruction", "instruction_language", "Intersection_exist"]
_EDITED, _SHOWN = "input_image_raw", "input_image"
"""Fields of the picture that a model edits, and of the one that the judge sees."""
_SHOWN_SUFFIX = "_SRCIMG"
_RESIZED = "judge/resized"
_COLUMNS = (
    *("source_image", "edited_image", "instruction", "sementics_score", "quality_score"),
    *("intersection_exist", "instruction_language"),
)
_PNG = b"\x89PNG\r\n\x1a\n"


def _tables(path: Path) -> list[Path]:
    """Returns the Parquet files of the split `train`."""
    if path.is_file():
        return [path]
    files = sorted(path.rglob("train-*.parquet")) or sorted(path.rglob("*.parquet"))
    if not files:
        raise BenchmarkError(f"{path}: there are no .parquet files; download the data set stepfun-ai/GEdit-Bench")
    return files


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every row of a table and its place. Few rows are in memory at a time."""
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            missing = set(columns) - set(table.schema_arrow.names)
            if missing:
                raise BenchmarkError(f"{file}: there is no column {', '.join(sorted(missing))}; download it again")
            number = 0
            for batch in table.iter_batches(batch_size=16, columns=list(columns)):
                for row in batch.to_pylist():
                    yield f"{file}[{number}]", row
                    number += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise BenchmarkError(f"{file}: cannot be read as Parquet ({error}); download it again") from error


def _read(path: Path, language: str) -> Data:
    """Reads the rows with instructions in a language, `en` or `cn`."""
    files = _tables(path)
    items = [
        _item(row, where) for file in files for where, row in _rows(file, _TEXTS) if _language(row, where) == language
    ]
    if not items:
        raise BenchmarkError(f"{path}: there are no rows with instruction_language {language!r}; download it again")
    return data_of(items, files)


def _language(row: Mapping[str, Any], where: str) -> str:
    return str(field_of(row, "instruction_language", str, where))


def _item(row: Mapping[str, Any], where: str) -> Item:
    task, key = field_of(row, "task_type", str, where), field_of(row, "key", str, where)
    for name, value in (("task_type", task), ("key", key)):
        if not re.fullmatch(r"\w[\w.-]*", value):
            raise BenchmarkError(f"{where}: {name} is {value!r}, which is no file name; download it again")
    kept = {"language": _language(row, where), "key": key, "intersection": bool(row.get("Intersection_exist"))}
    source = f"{SOURCES}/{task}/{key}.png"
    return Item(f"{task}/{key}", field_of(row, "instruction", str, where), task, where, kept, source)


def _picture(item: Item, sample: int, name: str) -> str:
    folder = f"{IMAGES}/{name}/fullset/{item.category}/{item.published['language']}"
    return f"{folder}/{item.published['key']}.png"


def _unpack(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Writes the pictures to edit, and those that the scorer shows its judge, unless they exist."""
    missing: dict[tuple[str, str], Item] = {}
    for item in items:
        if not (out / str(item.source)).is_file() or not _shown(out, item, name).is_file():
            missing[(item.id, item.published["language"])] = item
    if not missing:
        return
    for file in _tables(path):
        for where, row in _rows(file, [*_TEXTS, _EDITED, _SHOWN]):
            found = missing.get((_item(row, where).id, _language(row, where)))
            if found is not None:
                _write_source(out / str(found.source), row[_EDITED], f"{where}: {_EDITED}")
                _write_source(_shown(out, found, name), row[_SHOWN], f"{where}: {_SHOWN}")


def _shown(out: Path, item: Item, name: str) -> Path:
    picture = out / _picture(item, 0, name)
    return picture.with_name(f"{picture.stem}{_SHOWN_SUFFIX}.png")


def _write_source(file: Path, image: Any, where: str) -> None:
    """Writes a picture of the table as PNG: its own bytes if they are PNG."""
    content = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(content, bytes):
        raise BenchmarkError(f"{where}: there are no bytes of a picture; download the file again")
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = decode_rgb(content, where)
    if content.startswith(_PNG):
        with atomic_file(file) as temporary:
            temporary.write_bytes(content)
    else:
        write_png(file, Image.fromarray(pixels))


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `<MODEL>_<task>_gpt_score.csv` of all kinds of edit, and averages them as `calculate_statistics.py` does.

    The score of an edit is the geometric mean of semantics and quality. The published score is the unweighted mean
    over the kinds of edit. The intersection is a subset, which is also published under the same name.
    """
    scores: dict[str, float] = {}
    seen: Seen = {}
    parts: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in _PARTS}
    failed = 0
    for file in files:
        table = csv.DictReader(io.StringIO(read_text(file)))
        for number, row in enumerate(table, start=2):
            where = f"{file}:{number}"
            path = str(row.get("edited_image")).replace("\\", "/").split("/")
            name, language = "/".join([*path[-3:-2], path[-1].removesuffix(".png")]), "".join(path[-2:-1])
            own = language == str(row.get("instruction_language"))
            check_result(name, items if own else (), seen, where, shown=repr(row.get("edited_image")))
            ratings = [_rating(row.get(column)) for column in ("sementics_score", "quality_score")]
            if None in ratings:
                failed += 1
                continue
            semantics, quality = (float(rating or 0) for rating in ratings)
            scores[name] = math.sqrt(semantics * quality)
            values = {"O": scores[name], "SC": semantics, "PQ": quality}
            subset = str(row.get("intersection_exist")).strip().lower() == "true"
            for part, (kind, all_rows) in _PARTS.items():
                if all_rows or subset:
                    parts[part][items[name].category].append(values[kind])
    if not scores:
        raise BenchmarkError(f"{files[0]}: no edit has two ratings; expected <MODEL>_<task>_gpt_score.csv")
    averages = {
        part: float(np.mean([np.mean(values) for values in tasks.values()])) for part, tasks in parts.items() if tasks
    }
    averages["O, mean of edits"] = float(np.mean(list(scores.values())))
    categories = {task: float(np.mean(values)) for task, values in sorted(parts["O"].items())}
    return Score(averages, categories, scores, len(scores), failed)


_PARTS = {
    "O": ("O", True),
    "SC": ("SC", True),
    "PQ": ("PQ", True),
    "O, intersection": ("O", False),
    "SC, intersection": ("SC", False),
    "PQ, intersection": ("PQ", False),
}
"""Average -> the score of an edit, and whether all edits are in it."""


def _rating(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 <= value <= 10 else None


_TEMPLATES = {"SC": 2, "PQ": 2}
"""Texts for a judge, and the number of ratings that each asks for: of semantics, and of quality."""


def _asks(data: Path, out: Path, item: Item, picture: Path) -> list[Ask]:
    """Asks about semantics with the picture before and after, and about quality with the latter alone.

    The result is resized to the size of the picture before, as the scorer does.
    """
    before = picture.with_name(f"{picture.stem}{_SHOWN_SUFFIX}.png")
    after = out / _RESIZED / f"{item.id}.png"
    with Image.open(before) as first, Image.open(picture) as second:
        size, same = first.size, first.size == second.size
        if not same:
            after.parent.mkdir(parents=True, exist_ok=True)
            write_png(after, second.convert("RGB").resize(size))
    shown = picture if same else after
    return [Ask("SC", (before, shown)), Ask("PQ", (shown,))]


def _ratings(name: str, answer: str) -> list[float]:
    """Reads an answer such as {"score": [7, 9], "reasoning": ".."}."""
    found = json_in(answer) or {}
    ratings = found.get("score")
    listed = ratings if isinstance(ratings, list) else [ratings]
    values = [value for value in map(_rating, listed) if value is not None]
    return values if len(values) == len(listed) == _TEMPLATES[name] else []


def _readable(item: Item, name: str, answer: str) -> bool:
    return bool(_ratings(name, answer))


def _write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
    """Writes a table for each kind of edit. The score of each aspect is the lowest of its ratings."""
    rows: dict[str, list[list[Any]]] = defaultdict(list)
    for picture, item in pictures.items():
        given = answers.get(picture, {})
        scores = [min(_ratings(name, given[name])) if name in given else "" for name in _TEMPLATES]
        names = [
            str(file.relative_to(out)) for file in (picture.with_name(f"{picture.stem}{_SHOWN_SUFFIX}.png"), picture)
        ]
        kept = [item.published["intersection"], item.published["language"]]
        rows[item.category].append([*names, item.prompt, *scores, *kept])
    files = []
    for task, lines in sorted(rows.items()):
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows([_COLUMNS, *lines])
        files.append(folder / f"{task}_gpt_score.csv")
        with atomic_file(files[-1]) as temporary:
            temporary.write_text(content.getvalue(), encoding="utf-8")
    return files


_PRESETS = {
    "bagel": Preset("BAGEL's script", dataclasses.replace(EDITING, interval=LATE)),
    "reca": Preset("RecA's script, with the settings of BAGEL's", dataclasses.replace(EDITING, interval=LATE)),
    "ours": OURS_EDITING,
}


def _benchmark(language: str, code: str) -> Benchmark:
    return Benchmark(
        name=f"gedit_{code}",
        about=f"GEdit-Bench, {language} instructions",
        published=606,
        samples=1,
        presets=_PRESETS,
        read=partial(_read, language=code),
        picture=_picture,
        scorer=f"python test_gedit_score.py --model_name {{name}} --save_path {{images}} --backbone JUDGE, then "
        f"calculate_statistics.py with --language {code} (in BAGEL's eval/gen/gedit)",
        unpack=_unpack,
        score=_score,
        judging=Judging(_asks, _readable, _write),
    )


GEDIT_EN = _benchmark("English", "en")
GEDIT_CN = _benchmark("Chinese", "cn")

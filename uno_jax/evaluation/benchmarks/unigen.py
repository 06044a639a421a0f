"""UniGenBench++ (CodeGoat24/UniGenBench): short and long prompts in English and Chinese, judged by a language model."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from uno_jax.evaluation.benchmark import (
    IMAGES,
    Answers,
    Ask,
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    Judging,
    Score,
    Seen,
    check_result,
    data_of,
    find_file,
    read_text,
)
from uno_jax.evaluation.judge.unigen_texts import MEANINGS, TEMPLATE, TEXTS
from uno_jax.evaluation.presets import OURS
from uno_jax.process.files import atomic_file
from uno_jax.process.json_reader import JsonError, parse_json

_PRIMARY = {"en": "Primary Categories", "zh": ""}
_POINTS = {"en": ("Testpoints", "Testpoint Description"), "zh": ("考点", "考点对应描述")}
"""Names of the lists of test points, and of what each is in the prompt."""
_COLUMNS = ("index", "prompt", "testpoint", "output", "result_json", "img_path")
UNREADABLE = "unreadable category"
"""Category of a prompt whose column of categories is not valid JSON, as one of the published files has it."""


def _read(path: Path, kind: str) -> Data:
    """Reads `test_prompts_<kind>.csv`."""
    name, language = f"test_prompts_{kind}.csv", kind.split("_")[0]
    file = find_file(path, (name, f"data/{name}"))
    if path.is_file() and path.name.startswith("test_prompts_") and path.name != name:
        raise BenchmarkError(f"{path} belongs to another benchmark; expected {name}")
    items = []
    table = csv.DictReader(io.StringIO(read_text(file), newline=""))
    for number, row in enumerate(table):
        where, prompt, index = f"{file}: row {number}", row.get(f"prompt_{language}"), row.get("index")
        if prompt is None or index is None or not index.isdecimal():
            raise BenchmarkError(f"{where}: expected columns index and prompt_{language}; download it again")
        fields = _fields(row.get(f"sub_dims_{language}") or "")
        items.append(Item(index, prompt, _category(fields, language), where, _points(fields, language)))
    if not items:
        raise BenchmarkError(f"{file}: no prompts; download it again")
    return data_of(items, [file])


def _fields(text: str) -> dict[str, Any]:
    """Returns the column of categories; nothing if it is not valid JSON."""
    try:
        fields = parse_json(text)
    except JsonError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _points(fields: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Returns the test points, and texts about them for a judge. `points` is for texts of this project, the other texts
    are what the scorer's own text has in the places of these names. Without valid test points, it returns nothing."""
    points, shown = (fields.get(name) for name in _POINTS[language])
    if not isinstance(points, list) or not isinstance(shown, list) or not points or len(points) != len(shown):
        return {}
    points, shown = [str(point).strip() for point in points], [str(each) for each in shown]
    meanings = [MEANINGS.get(point, "") for point in points]
    numbered = enumerate(zip(points, meanings, shown, strict=True), start=1)
    return {
        "names": points,
        "points": "\n".join(
            f"{n}. {name}{f' ({about})' if about else ''}: {each}" for n, (name, about, each) in numbered
        ),
        "testpoint": str(points),
        "explanation": "\n".join(f"{name}: {about}" for name, about in zip(points, meanings, strict=True)),
        "test_explanation": "\n".join(f"{name}: {each}" for name, each in zip(points, shown, strict=True)),
    }


def _category(fields: Mapping[str, Any], language: str) -> str:
    """Returns the primary category. The Chinese files name this field in Chinese, and have it first."""
    values = list(fields.values())
    found = fields.get(_PRIMARY[language], values[0]) if values else None
    return found.strip() if isinstance(found, str) else UNREADABLE


def _picture(item: Item, sample: int, name: str, kind: str) -> str:
    return f"{IMAGES}/{kind}/{name}/{item.id}_{sample}.png"


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `<MODEL>_<kind>.csv` of the scorers: a row for each picture, with a 0 or 1 for each test point.

    The accuracy of a dimension is over all of its test points. A primary dimension is what precedes the dash in the
    name of a test point. The overall score is the mean of the primary dimensions; the scorers print none.
    """
    met: dict[str, list[int]] = defaultdict(list)
    by_item: dict[str, list[int]] = defaultdict(list)
    seen: Seen = {}
    failed = 0
    for file in files:
        table = csv.DictReader(io.StringIO(read_text(file), newline=""))
        for number, row in enumerate(table):
            where = f"{file}: row {number}"
            path = row.get("img_path") or ""
            match = re.search(r"(?:^|[/\\])(\d+)_(\d+)\.\w+$", path)
            index, sample = match.groups() if match else ("", "")
            check_result(index, items, seen, where, sample=sample, shown=repr(path))
            result = _fields(row.get("result_json") or "")
            points, scores = result.get("testpoint"), _whole_scores(result.get("score"))
            if not isinstance(points, list) or not points or len(points) != len(scores):
                failed += 1
                continue
            by_item[index] += scores
            for point, score in zip(points, scores, strict=True):
                met[str(point).strip()].append(score)
    if not met:
        raise BenchmarkError(f"{files[0]}: no picture has its scores; expected <MODEL>_<kind>.csv")
    primary: dict[str, list[int]] = defaultdict(list)
    for point, values in met.items():
        primary[point.split("-", 1)[0].strip()] += values
    dimensions = {name: _percent(values) for name, values in sorted(primary.items())}
    return Score(
        averages={
            "mean of primary dimensions": float(np.mean(list(dimensions.values()))),
            "mean of test points": _percent([value for values in met.values() for value in values]),
        },
        categories=dimensions | {point: _percent(values) for point, values in sorted(met.items())},
        items={index: _percent(values) for index, values in by_item.items()},
        pictures=len(seen) - failed,
        failed=failed,
    )


def _percent(values: Sequence[int]) -> float:
    return 100 * float(np.mean(values))


def _whole_scores(scores: Any) -> list[int]:
    """Returns a list of scores if all of them are 0 or 1, and an empty one otherwise."""
    whole = isinstance(scores, list) and all(isinstance(score, int) and score in (0, 1) for score in scores)
    return [int(score) for score in scores] if whole else []


def _asks(data: Path, out: Path, item: Item, picture: Path) -> list[Ask]:
    """Asks about all test points at once; not at all if they are not known."""
    return [Ask(TEMPLATE, (picture,))] if item.published else []


def _scores(item: Item, answer: str) -> list[int]:
    """Reads an answer such as `<score>[1, 0]</score>`, also in Markdown or with quotes; the last one counts."""
    found = re.findall(r"<score>(.*?)</score>", answer, re.DOTALL)
    digits = re.sub(r"[\s\[\]\"'`*]|json", "", found[-1]) if found else ""
    scores = [int(digit) for digit in re.split("[,，]", digits)] if re.fullmatch(r"[01]([,，][01])*", digits) else []
    return scores if len(scores) == len(item.published["names"]) else []


def _readable(item: Item, name: str, answer: str) -> bool:
    return bool(_scores(item, answer))


def _write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
    """Writes a row for each picture, without a result if its judgement failed."""
    rows = []
    for picture, item in pictures.items():
        answer, points = answers.get(picture, {}).get(TEMPLATE, ""), item.published.get("names", [])
        result = {"prompt": item.prompt, "testpoint": points, "score": _scores(item, answer)} if answer else None
        shown = json.dumps(result, ensure_ascii=False) if result else ""
        rows.append([item.id, item.prompt, str(points), answer, shown, str(picture.relative_to(out))])
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows([_COLUMNS, *rows])
    file = folder / "unigen.csv"
    with atomic_file(file) as temporary:
        temporary.write_text(content.getvalue(), encoding="utf-8")
    return [file]


def _benchmark(kind: str, about: str) -> Benchmark:
    return Benchmark(
        name=f"unigen_{kind}",
        about=f"UniGenBench++, {about}",
        published=600,
        samples=4,
        presets={"ours": OURS},
        read=partial(_read, kind=kind),
        picture=partial(_picture, kind=kind),
        scorer=f"bash eval/eval_vllm.sh --model {{name}} --categories {kind} --eval_data_dir {{images}} "
        "(in a checkout of CodeGoat24/UniGenBench)",
        results="*.csv",
        score=_score,
        judging=Judging(_asks, _readable, _write, TEXTS[kind.split("_")[0]]),
    )


UNIGEN = (
    _benchmark("en", "short English prompts"),
    _benchmark("en_long", "long English prompts"),
    _benchmark("zh", "short Chinese prompts"),
    _benchmark("zh_long", "long Chinese prompts"),
)

"""ImgEdit-Bench (PKU-YuanGroup/ImgEdit), the part "Basic": edits of nine kinds, judged by a language model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from uno_jax.evaluation.benchmark import (
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
    one_picture,
)
from uno_jax.evaluation.presets import EDITING, OURS_EDITING
from uno_jax.evaluation.sources import copy_source
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import read_json_object

_NAMES = ("basic_edit.json", "singleturn.json", "singleturn/singleturn.json", "Basic/basic_edit.json")
_RATINGS = 3
# A line such as "Prompt Compliance: 4", also in bold, or as 4/5.
_RATING = re.compile(r"^[\s*_#-]*[A-Z][^:：\n]{2,60}[:：][\s*_]*([1-5])(?:\s*/\s*5)?[\s*_.]*$", re.MULTILINE)


def _read(path: Path) -> Data:
    """Reads `basic_edit.json`, an object of edits by key. The pictures lie below its folder, or below `singleturn`."""
    file = find_file(path, _NAMES)
    items = []
    for key, record in read_json_object(file).items():
        where = f"{file}: {key}"
        if not isinstance(record, dict) or not re.fullmatch(r"\w[\w-]*", key):
            raise BenchmarkError(f"{where}: expected a key that names a file, and an object; download it again")
        picture, prompt = field_of(record, "id", str, where), field_of(record, "prompt", str, where)
        kind = field_of(record, "edit_type", str, where)
        source = f"{SOURCES}/{key}{PurePosixPath(picture).suffix}"
        items.append(Item(key, prompt, kind, where, {"picture": picture}, source))
    return data_of(items, [file])


def _unpack(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Copies the pictures to edit, unless they exist."""
    folder = find_file(path, _NAMES).parent
    roots = [folder, folder / "singleturn", folder.parent / "singleturn", path]
    for item in items:
        advice = f"unpack Benchmark.tar beside {folder}"
        copy_source(out / str(item.source), item.published["picture"], roots, item, advice)


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `result.json` of `basic_bench.py`: what the judge wrote of each edit, with three ratings from 1 to 5.

    The score of an edit is the mean of its ratings. The official scripts average by kind of edit and state no overall
    score; BAGEL's is the mean over edits. An answer without exactly three ratings is a failure.
    """
    scores: dict[str, float] = {}
    words: dict[str, str] = {}
    seen: Seen = {}
    failed = 0
    for file in files:
        for key, answer in read_json_object(file).items():
            check_result(key, items, seen, f"{file}: {key}")
            ratings = _ratings(answer) if isinstance(answer, str) else []
            if isinstance(answer, str):
                words[key] = answer
            if len(ratings) == _RATINGS:
                scores[key] = float(np.mean(ratings))
            else:
                failed += 1
    if not scores:
        raise BenchmarkError(f"{files[0]}: no answer has three ratings from 1 to 5; expected result.json")
    kinds: dict[str, list[float]] = defaultdict(list)
    for key, score in scores.items():
        kinds[items[key].category].append(score)
    categories = {kind: float(np.mean(values)) for kind, values in sorted(kinds.items())}
    return Score(
        averages={
            "mean of edits (BAGEL's copy)": float(np.mean(list(scores.values()))),
            "mean of kinds": float(np.mean(list(categories.values()))),
        },
        categories=categories,
        items=scores,
        pictures=len(scores),
        failed=failed,
        words=words,
    )


def _ratings(answer: str) -> list[int]:
    return [int(digit) for digit in _RATING.findall(answer)]


def _asks(data: Path, out: Path, item: Item, picture: Path) -> list[Ask]:
    """Asks with the text of the kind of edit, and shows the picture before and after."""
    return [Ask(item.category, (out / str(item.source), picture))]


def _readable(item: Item, name: str, answer: str) -> bool:
    return len(_ratings(answer)) == _RATINGS


def _write(folder: Path, out: Path, pictures: Mapping[Path, Item], answers: Mapping[Path, Answers]) -> list[Path]:
    """Writes `result.json`: the answer about each edit."""
    failed = {"error": "no readable answer"}
    results = {item.id: answers.get(file, {}).get(item.category, failed) for file, item in pictures.items()}
    write_json(folder / "result.json", results)
    return [folder / "result.json"]


IMGEDIT = Benchmark(
    name="imgedit",
    about="ImgEdit-Bench, Basic",
    published=737,
    samples=1,
    presets={
        "bagel": Preset("BAGEL's script", EDITING),
        "reca": Preset("RecA's script, with the settings of BAGEL's", EDITING),
        "ours": OURS_EDITING,
    },
    read=_read,
    picture=one_picture,
    scorer="python basic_bench.py --result_img_folder {images} --edit_json basic_edit.json --origin_img_root ROOT "
    "--prompts_json prompts.json (in Benchmark/Basic of PKU-YuanGroup/ImgEdit); it writes result.json into the folder",
    unpack=_unpack,
    score=_score,
    judging=Judging(_asks, _readable, _write),
)

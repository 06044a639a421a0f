"""GenEval (djghosh13/geneval): objects, counts, colours and positions, judged by an object detector."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uno_jax.evaluation.benchmark import (
    IMAGES,
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    Preset,
    Score,
    check_unique,
    field_of,
    find_file,
    read_json_lines,
)
from uno_jax.evaluation.presets import OURS, TEXT_TO_IMAGE
from uno_jax.process.files import atomic_file

_SHORT, _LONG = "evaluation_metadata.jsonl", "evaluation_metadata_long.jsonl"


def _read(path: Path, name: str, other: str) -> Data:
    file = find_file(path, (name, f"prompts/{name}"), not_named=other)
    items = []
    for number, (where, record) in enumerate(read_json_lines(file)):
        prompt, tag = field_of(record, "prompt", str, where), field_of(record, "tag", str, where)
        field_of(record, "include", list, where)
        items.append(Item(f"{number:05d}", prompt, tag, where, record))
    check_unique(items)
    return Data(items, [file])


def _read_short(path: Path) -> Data:
    """Reads `evaluation_metadata.jsonl`."""
    return _read(path, _SHORT, _LONG)


def _read_long(path: Path) -> Data:
    """Reads `evaluation_metadata_long.jsonl`, BAGEL's rewritten prompts."""
    return _read(path, _LONG, _SHORT)


def _picture(item: Item, sample: int, name: str) -> str:
    return f"{IMAGES}/{item.id}/samples/{sample:05d}.png"


def _finish(out: Path, item: Item, name: str, pictures: Sequence[Path]) -> None:
    """Writes `metadata.jsonl`, the published record of the item."""
    file = out / IMAGES / item.id / "metadata.jsonl"
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(item.published, ensure_ascii=False) + "\n", encoding="utf-8")


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads `results.jsonl` of `evaluate_images.py`, and averages it as `summary_scores.py` does.

    The published score is the unweighted mean over the kinds of prompt, each a mean over images.
    """
    by_tag: dict[str, list[bool]] = defaultdict(list)
    by_item: dict[str, list[bool]] = defaultdict(list)
    seen: dict[tuple[str, str], str] = {}
    for file in files:
        for where, line in read_json_lines(file):
            path, tag = field_of(line, "filename", str, where), field_of(line, "tag", str, where)
            match = re.search(r"(\d{5})/samples/(\d+)\.png$", path.replace("\\", "/"))
            if match is None or match[1] not in items:
                raise BenchmarkError(f"{where}: {path} is no picture of this folder; give the results of its pictures")
            if tag != items[match[1]].category:
                raise BenchmarkError(
                    f"{where}: tag is {tag!r}, but item {match[1]} has {items[match[1]].category!r}; "
                    "give results of the same prompt file"
                )
            picture = (match[1], match[2])
            if picture in seen:
                raise BenchmarkError(f"{where}: {path} is also at {seen[picture]}; give each result once")
            seen[picture] = where
            if not isinstance(line.get("correct"), bool):
                raise BenchmarkError(f"{where}: correct is {line.get('correct')!r}: expected true or false")
            by_tag[tag].append(line["correct"])
            by_item[match[1]].append(line["correct"])
    tags = {tag: float(np.mean(values)) for tag, values in by_tag.items()}
    return Score(
        averages={
            "mean of kinds": float(np.mean(list(tags.values()))),
            "mean of images": float(np.mean([value for values in by_tag.values() for value in values])),
            "prompts with a correct image": float(np.mean([any(values) for values in by_item.values()])),
        },
        categories=tags,
        items={item: float(np.mean(values)) for item, values in by_item.items()},
        pictures=len(seen),
    )


_PRESETS = {"bagel": Preset("BAGEL's script", TEXT_TO_IMAGE), "ours": OURS}
_SCORER = (
    "python evaluation/evaluate_images.py {images} --outfile results.jsonl --model-path DETECTOR_DIR "
    "(in a checkout of djghosh13/geneval)"
)

GENEVAL = Benchmark(
    name="geneval",
    about="GenEval, short prompts as published",
    published=553,
    samples=4,
    presets=_PRESETS,
    read=_read_short,
    picture=_picture,
    scorer=_SCORER,
    any_samples=True,
    finish=_finish,
    score=_score,
)
GENEVAL_LONG = Benchmark(
    name="geneval_long",
    about="GenEval, BAGEL's rewritten prompts",
    published=553,
    samples=4,
    presets=_PRESETS,
    read=_read_long,
    picture=_picture,
    scorer=_SCORER,
    any_samples=True,
    finish=_finish,
    score=_score,
)

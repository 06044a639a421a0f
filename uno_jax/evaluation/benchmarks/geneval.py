"""GenEval (djghosh13/geneval): objects, counts, colours and positions, judged by an object detector."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
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
    Seen,
    check_result,
    data_of,
    field_of,
    find_file,
    read_json_lines,
)
from uno_jax.evaluation.presets import OURS, TEXT_TO_IMAGE
from uno_jax.process.files import atomic_file

_SHORT, _LONG = "evaluation_metadata.jsonl", "evaluation_metadata_long.jsonl"


def _read(path: Path, name: str, other: str) -> Data:
    """Reads the file `name`; `other` is that of the other prompts."""
    file = find_file(path, (name, f"prompts/{name}"), not_named=other)
    items = []
    for number, (where, record) in enumerate(read_json_lines(file)):
        prompt, tag = field_of(record, "prompt", str, where), field_of(record, "tag", str, where)
        field_of(record, "include", list, where)
        items.append(Item(f"{number:05d}", prompt, tag, where, record))
    return data_of(items, [file])


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
    seen: Seen = {}
    for file in files:
        for where, line in read_json_lines(file):
            path, tag = field_of(line, "filename", str, where), field_of(line, "tag", str, where)
            match = re.search(r"(\d{5})/samples/(\d+)\.png$", path.replace("\\", "/"))
            item, sample = match.groups() if match else ("", "")
            check_result(item, items, seen, where, sample=sample, shown=path)
            if tag != items[item].category:
                raise BenchmarkError(
                    f"{where}: tag is {tag!r}, but item {item} has {items[item].category!r}; "
                    "give results of the same prompt file"
                )
            if not isinstance(line.get("correct"), bool):
                raise BenchmarkError(f"{where}: correct is {line.get('correct')!r}: expected true or false")
            by_tag[tag].append(line["correct"])
            by_item[item].append(line["correct"])
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


def _benchmark(name: str, about: str, file: str, other: str) -> Benchmark:
    return Benchmark(
        name=name,
        about=about,
        published=553,
        samples=4,
        presets={
            "bagel": Preset("BAGEL's script", TEXT_TO_IMAGE),
            "reca": Preset("RecA's script", TEXT_TO_IMAGE, samples=12),
            "ours": OURS,
        },
        read=partial(_read, name=file, other=other),
        picture=_picture,
        scorer="python evaluation/evaluate_images.py {images} --outfile results.jsonl --model-path DETECTOR_DIR "
        "(in a checkout of djghosh13/geneval)",
        any_samples=True,
        finish=_finish,
        score=_score,
    )


GENEVAL = _benchmark("geneval", "GenEval, short prompts as published", _SHORT, _LONG)
GENEVAL_LONG = _benchmark("geneval_long", "GenEval, BAGEL's rewritten prompts", _LONG, _SHORT)

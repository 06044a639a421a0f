"""UniGenBench++ (CodeGoat24/UniGenBench): short and long prompts in English and Chinese, judged by a language model."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path

from uno_jax.evaluation.benchmark import (
    IMAGES,
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    data_of,
    find_file,
    read_text,
)
from uno_jax.evaluation.presets import OURS
from uno_jax.process.json_reader import JsonError, parse_json

_PRIMARY = {"en": "Primary Categories", "zh": ""}
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
        items.append(Item(index, prompt, _category(row.get(f"sub_dims_{language}") or "", language), where))
    if not items:
        raise BenchmarkError(f"{file}: no prompts; download it again")
    return data_of(items, [file])


def _category(text: str, language: str) -> str:
    """Returns the primary category. The Chinese files name this field in Chinese, and have it first."""
    try:
        fields = parse_json(text)
    except JsonError:
        return UNREADABLE
    values = list(fields.values()) if isinstance(fields, dict) else []
    found = fields.get(_PRIMARY[language], values[0]) if values else None
    return found.strip() if isinstance(found, str) else UNREADABLE


def _picture(item: Item, sample: int, name: str, kind: str) -> str:
    return f"{IMAGES}/{kind}/{name}/{item.id}_{sample}.png"


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
    )


UNIGEN = (
    _benchmark("en", "short English prompts"),
    _benchmark("en_long", "long English prompts"),
    _benchmark("zh", "short Chinese prompts"),
    _benchmark("zh_long", "long Chinese prompts"),
)

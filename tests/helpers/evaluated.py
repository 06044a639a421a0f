"""Folders as `evaluate generate` writes them, with pictures of one colour and without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from uno_jax.evaluation.benchmark import Item, seed_of
from uno_jax.evaluation.record import Made, Record, write_record
from uno_jax.evaluation.registry import BENCHMARKS
from uno_jax.inference.picture_files import write_picture

HEAD: dict[str, Any] = {
    "preset": "bagel",
    "changes": {},
    "name": "base",
    "checkpoint": {"name": "base", "sha256": "0" * 64, "ema": False, "files": []},
    "dtype": "float32",
}
"""What a record says of the pictures."""


def write_evaluated(
    out: Path,
    benchmark: str,
    items: Mapping[str, str],
    *,
    name: str = "base",
    samples: int = 1,
    colour: tuple[int, int, int] = (200, 30, 30),
    prompt: str = "prompt of",
    thought: str = "",
    source: str | None = None,
    questions: Mapping[str, tuple[str, ...]] = {},
    **head: Any,
) -> Path:
    """Writes a folder of a benchmark. `items` are ids and their categories."""
    found = [
        Item(
            key,
            f"{prompt} {key}",
            category,
            "file",
            {"language": "en", "key": key.split("/")[-1]},
            source,
            (),
            questions.get(key, ()),
        )
        for key, category in items.items()
    ]
    pictures = [
        Made(item.id, sample, seed_of(benchmark, item.id, sample), BENCHMARKS[benchmark].picture(item, sample, name))
        for item in found
        for sample in range(samples)
    ]
    for file in [*(picture.file for picture in pictures), *([source] if source else [])]:
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        write_picture(out / file, Image.new("RGB", (16, 16), colour), {}, thought)
    checkpoint = {"name": name, "sha256": name.encode().hex().ljust(64, "0"), "ema": False, "files": []}
    about = {**HEAD, "name": name, "checkpoint": checkpoint}
    write_record(out, Record({"benchmark": benchmark, **about, **head}, found, pictures))
    return out

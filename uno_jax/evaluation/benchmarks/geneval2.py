"""GenEval2 (facebookresearch/GenEval2): prompts of three to ten atoms, judged by questions to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uno_jax.evaluation.benchmark import (
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    data_of,
    field_of,
    find_file,
    one_picture,
    read_json_lines,
)
from uno_jax.evaluation.presets import OURS
from uno_jax.process.files import write_json

PATHS = "image_paths.json"
"""Beside the pictures: prompt -> path of its picture."""


def _read(path: Path) -> Data:
    """Reads `geneval2_data.jsonl`."""
    file = find_file(path, ("geneval2_data.jsonl",))
    items, prompts = [], set()
    for number, (where, record) in enumerate(read_json_lines(file)):
        prompt, atoms = field_of(record, "prompt", str, where), field_of(record, "atom_count", int, where)
        if prompt in prompts:
            raise BenchmarkError(
                f"{where}: the prompt {prompt!r} occurs twice, but it names a picture; download it again"
            )
        prompts.add(prompt)
        items.append(Item(f"{number:05d}", prompt, f"{atoms} atoms", where))
    return data_of(items, [file])


def _write_paths(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Writes the object that the scorer finds pictures by."""
    paths = {item.prompt: str((out / one_picture(item, 0, name)).resolve()) for item in items}
    write_json(out / PATHS, paths)


GENEVAL2 = Benchmark(
    name="geneval2",
    about="GenEval2",
    published=800,
    samples=1,
    presets={"ours": OURS},
    read=_read,
    picture=one_picture,
    scorer="python evaluation.py --benchmark_data geneval2_data.jsonl "
    "--image_filepath_data {images}/../image_paths.json --method soft_tifa_am --output_file SCORES "
    "(in a checkout of facebookresearch/GenEval2)",
    unpack=_write_paths,
)

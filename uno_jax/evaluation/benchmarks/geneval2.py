"""GenEval2 (facebookresearch/GenEval2): prompts of three to ten atoms, judged by questions to a model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from uno_jax.evaluation.benchmark import (
    Benchmark,
    BenchmarkError,
    Data,
    Item,
    Score,
    data_of,
    field_of,
    find_file,
    one_picture,
    read_json_lines,
    read_text,
)
from uno_jax.evaluation.presets import OURS
from uno_jax.process.files import write_json
from uno_jax.process.json_reader import JsonError, parse_json

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
        skills = field_of(record, "skills", list, where)
        if len(skills) != len(field_of(record, "vqa_list", list, where)) or not all(
            isinstance(skill, str) for skill in skills
        ):
            raise BenchmarkError(f"{where}: skills: expected a name for each question of vqa_list; download it again")
        items.append(Item(f"{number:05d}", prompt, f"{atoms} atoms", where, questions=tuple(skills)))
    return data_of(items, [file])


def _write_paths(path: Path, out: Path, items: Sequence[Item], name: str) -> None:
    """Writes the object that the scorer finds pictures by."""
    paths = {item.prompt: str((out / one_picture(item, 0, name)).resolve()) for item in items}
    write_json(out / PATHS, paths)


def _score(files: Sequence[Path], items: Mapping[str, Item]) -> Score:
    """Reads what `evaluation.py` has written: for each prompt, in order, the probability of each question's answer.

    AM is the arithmetic mean over the questions of a prompt, and GM the geometric one; both are averaged over prompts.
    The official analysis by number of atoms is of GM. That by skill is the mean over all questions of a skill.
    """
    if len(files) != 1:
        raise BenchmarkError(f"{files[0].parent}: expected the file of --output_file alone, not {len(files)} files")
    try:
        lists = parse_json(read_text(files[0]))
    except JsonError as error:
        raise BenchmarkError(f"{files[0]}: {error}; run the scorer again") from error
    if not isinstance(lists, list) or len(lists) != len(items):
        found = f"a list of {len(lists):,}" if isinstance(lists, list) else "no list"
        raise BenchmarkError(f"{files[0]}: {found}, expected one of {len(items):,} prompts as in this folder")
    arithmetic: dict[str, float] = {}
    geometric: dict[str, float] = {}
    skills = defaultdict(list)
    for number, ((key, item), values) in enumerate(zip(items.items(), lists, strict=True)):
        if not isinstance(values, list) or not values or not all(map(_is_probability, values)):
            raise BenchmarkError(
                f"{files[0]}: entry {number} is not a list of probabilities; run evaluation.py with --method "
                "soft_tifa_am or soft_tifa_gm"
            )
        if item.questions and len(item.questions) != len(values):
            raise BenchmarkError(
                f"{files[0]}: entry {number} has {len(values):,} probabilities, but its prompt has "
                f"{len(item.questions):,} questions; run the scorer again with the data of this folder"
            )
        for skill, value in zip(item.questions, values, strict=False):  # folders of earlier versions do not have them
            skills[skill].append(100 * value)
        arithmetic[key] = 100 * float(np.mean(values))
        geometric[key] = 100 * math.prod(values) ** (1 / len(values))
    atoms = defaultdict(list)
    for key, item in items.items():
        atoms[item.category].append(geometric[key])
    return Score(
        averages={
            "Soft-TIFA AM": float(np.mean(list(arithmetic.values()))),
            "Soft-TIFA GM": float(np.mean(list(geometric.values()))),
        },
        categories={name: float(np.mean(values)) for name, values in [*atoms.items(), *sorted(skills.items())]},
        items=arithmetic,
        pictures=len(arithmetic),
    )


def _is_probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1.0001  # rounded sums


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
    results="*.json",
    score=_score,
)

"""A model sits an exam: answers in batches, and continues where an earlier call stopped.

A batch is always the same questions, and only whole batches are kept. So an answer does not depend on interruptions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

from uno_jax.config import to_json
from uno_jax.data.decoding import decode_rgb
from uno_jax.data.plans import Pixels, Plan, Text, VitImage
from uno_jax.evaluation.benchmark import BenchmarkError, Score
from uno_jax.evaluation.progress import Progress
from uno_jax.evaluation.record import refuse_differences
from uno_jax.evaluation.understanding.exam import Exam, Likelihood, Question, Questions
from uno_jax.evaluation.understanding.expected import expected
from uno_jax.inference.contexts import encode_texts, read_picture
from uno_jax.inference.reader import Reader
from uno_jax.process.errors import UserError
from uno_jax.process.files import AppendedFile, hash_files, write_json
from uno_jax.process.json_reader import JsonError, parse_json, read_json_object
from uno_jax.sampling.text import TextConfig
from uno_jax.training.versions import versions

RECORD, ANSWERS, SCORE = "exam.json", "answers.jsonl", "score.json"
_FIXED = ("exam", "checkpoint", "dtype", "batch", "max_length", "data", "inputs")
"""Fields that all answers of a folder share, except for those of `refuse_differences`."""


class Sitting(NamedTuple):
    """A model and an exam."""

    exam: Exam
    questions: Questions
    reader: Reader
    checkpoint: Mapping[str, Any]
    """From `about_checkpoint`, with `ema`."""
    out: Path
    batch: int
    """Questions per batch; the last batch may have fewer."""


class Sat(NamedTuple):
    """What came of it."""

    results: dict[str, Any]
    """Question -> answer, or its `Likelihood`."""
    score: Score
    inputs: dict[str, str]
    """What the model is shown, beside pictures: fingerprints of all texts and of how pictures are resized."""


def sit(sitting: Sitting, console: Console) -> Sat:
    """Answers all questions that have no answer yet, and writes answers, record and score.

    Raises:
      BenchmarkError: the folder has answers of another model or of other questions.
      UserError: the model cannot read a question or a picture. Questions are checked before any is answered.
    """
    exam, items = sitting.exam, sitting.questions.items
    head = _head(sitting)
    if (sitting.out / RECORD).is_file():
        refuse_differences(sitting.out, "answers", _FIXED, read_json_object(sitting.out / RECORD), head)
    sitting.out.mkdir(parents=True, exist_ok=True)
    write_json(sitting.out / RECORD, head)
    results = {name: result for batch in _answered(sitting, console) for name, result in batch.items()}
    score = exam.mark(items, results)
    if exam.write is not None:
        exam.write(sitting.out, items, results)
    write_json(
        sitting.out / SCORE,
        {
            "exam": exam.name,
            "averages": dict(score.averages),
            "categories": dict(score.categories),
            "items_scored": len(score.items),
            "items_expected": len(items),
            "failed": score.failed,
            "scored": datetime.now(UTC).isoformat(timespec="seconds"),
            "items": dict(score.items),
        },
    )
    return Sat(results, score, head["inputs"])


def _head(sitting: Sitting) -> dict[str, Any]:
    """Returns everything that answers depend on, as JSON, after a check that the model can read all texts."""
    exam, questions, model = sitting.exam, sitting.questions, sitting.reader.model
    texts = hashlib.sha256()
    for item in questions.items:
        try:
            answer = model.tokenizer.encode(item.answer) if exam.expected else []
            written = len(answer) + 2 if exam.expected else exam.max_length
            ids = encode_texts(
                [*[Path()] * len(item.pictures), *([item.text] if item.text else [])], model, written=written
            )
        except UserError as error:
            raise BenchmarkError(f"{item.where}: {error}") from error
        texts.update(json.dumps([item.id, ids, answer]).encode())
    device = sitting.reader.mesh.devices.flat[0]
    return {
        "exam": exam.name,
        "checkpoint": {"name": model.name, **sitting.checkpoint},
        "dtype": model.precision,
        "batch": sitting.batch,
        "max_length": exam.max_length,
        "data": {
            "files": [file.name for file in questions.files],
            "sha256": hash_files(questions.files),
            "items": len(questions.items),
        },
        "inputs": {"texts": texts.hexdigest(), "vit_transform": json.dumps(to_json(model.vit_transform))},
        "device": f"{sitting.reader.mesh.size} x {device.device_kind}",
        "versions": versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _answered(sitting: Sitting, console: Console) -> Iterator[dict[str, Any]]:
    """Yields the results of each batch: those that exist, and new ones, which are appended to the file."""
    exam, items, size = sitting.exam, sitting.questions.items, sitting.batch
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    file = sitting.out / ANSWERS
    kept = _kept(file, exam)
    missing = [batch for batch in batches if _ids(batch) not in kept]
    left = sum(len(batch) for batch in missing)
    note = f"{exam.name}: {len(items):,} questions, {left:,} to answer, {len(items) - left:,} answered"
    console.print(note, markup=False, highlight=False)
    progress, appended = Progress(console, left, "question"), AppendedFile(file)
    try:
        for batch in batches:
            ids = _ids(batch)
            if ids not in kept:
                kept[ids] = _results(sitting, batch)
                line = {"ids": ids, "results": kept[ids]}
                appended.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
                progress.add(len(batch))
            yield dict(zip(ids, kept[ids], strict=True))
    finally:
        appended.close()


def _ids(batch: Sequence[Question]) -> tuple[str, ...]:
    return tuple(item.id for item in batch)


def _kept(file: Path, exam: Exam) -> dict[tuple[str, ...], list[Any]]:
    """Reads the whole batches of a file. A last line that was cut short is removed."""
    if not file.is_file():
        return {}
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.write_bytes(whole)
    kept = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            value = parse_json(line)
            results = [Likelihood(*each) if exam.expected else str(each) for each in value["results"]]
            kept[tuple(value["ids"])] = results
        except (JsonError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{file}:{number}: no batch of answers ({error}); remove the file") from error
    return kept


def _results(sitting: Sitting, batch: Sequence[Question]) -> list[Any]:
    """Answers a batch, or measures how well its right answers are expected."""
    exam, reader = sitting.exam, sitting.reader
    tokenizer = reader.model.tokenizer
    contexts = [_plan(item, exam, reader) for item in batch]
    if exam.expected:
        found = expected(reader, contexts, [tokenizer.encode(item.answer) for item in batch])
        if not np.isfinite([each.nats for each in found]).all():
            raise FloatingPointError(f"{batch[0].where}: a cross-entropy of this batch is not finite")
        return list(found)
    seeds = [0] * len(batch)
    [*_, written] = reader.write(reader.read(contexts, seeds), TextConfig(exam.max_length), seeds)
    return [tokenizer.decode(ids).strip() for ids in written]


def _plan(item: Question, exam: Exam, reader: Reader) -> Plan:
    """Returns the context of an answer: the pictures as ViT tokens, directly resized, and the text."""
    model = reader.model
    pictures = [_pixels(picture, f"{item.where}, picture {number}") for number, picture in enumerate(item.pictures)]
    if exam.doubled and pictures:
        pictures[0] = _doubled(pictures[0])
    shown = [VitImage(pixels=model.vit_transform.resize(pixels)) for pixels in pictures]
    text = [Text(ids=tuple(model.tokenizer.encode(item.text)))] if item.text else []
    return (*shown, *text)


def _pixels(picture: Path | bytes, what: str) -> Pixels:
    return decode_rgb(picture, what) if isinstance(picture, bytes) else read_picture(picture, what)


def _doubled(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    doubled: np.ndarray = np.asarray(Image.fromarray(pixels).resize((2 * width, 2 * height), Image.Resampling.BILINEAR))
    return doubled

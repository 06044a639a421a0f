"""Measures a checkpoint: generates for fixed records with fixed noise, judges exactly, keeps a line per record."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from uno_jax.inference.generate import Generator
from uno_jax.inference.reader import Reader, load_reader
from uno_jax.process.files import AppendedFile, atomic_file
from uno_jax.process.signals import stop_event
from uno_jax.study.config import Evaluation, SamplingPlan
from uno_jax.study.drawing import draw_jobs, drawn_lines, edit_jobs, edited_lines
from uno_jax.study.job import Job, Line, Scored, line_texts, read_lines
from uno_jax.study.reading import read_jobs, read_lines_of
from uno_jax.training.checkpoint_folders import has_ema
from uno_jax.training.initialise import abstract_params

LINES = "lines.jsonl"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of evaluation."""

    jobs: Callable[[Path, Evaluation, SamplingPlan], Sequence[Job]]
    """Returns its jobs. Consecutive ones of one group share a batch."""
    lines: Callable[[Scored, Sequence[Job]], Sequence[Line]]
    """Does a batch of jobs, and returns a line for each."""


KINDS: Mapping[str, Kind] = {
    "draw": Kind(draw_jobs, drawn_lines),
    "edit": Kind(edit_jobs, edited_lines),
    "read": Kind(read_jobs, read_lines_of),
}


def score(
    checkpoint: Path, dataset: Path, evaluation: Evaluation, sampling: SamplingPlan, folder: Path
) -> dict[str, Any] | None:
    """Measures a checkpoint and writes `lines.jsonl` into the folder, continuing an interrupted measurement.

    Returns:
      Number of lines, and of those that are right; None if a signal interrupted it.
    """
    kind, file = KINDS[evaluation.kind], folder / LINES
    lines = read_lines(file)
    with atomic_file(file) as temporary:  # without a last line that was cut off
        temporary.write_bytes(line_texts(lines))
    done = {line["job"] for line in lines}
    left = [job for job in kind.jobs(dataset, evaluation, sampling) if job.name not in done]
    scored = Scored(_generator(checkpoint, sampling.ema and has_ema(checkpoint)), evaluation, sampling, folder)
    with stop_event() as stop, contextlib.closing(AppendedFile(file)) as out:
        for batch in _batches(left, sampling.batch):
            if stop.is_set():
                return None
            new = kind.lines(scored, batch)
            out.write(line_texts(new))
            lines += new
    return {"lines": len(lines), "right": sum(bool(line["right"]) for line in lines)}


def _batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    for _, group in groupby(jobs, key=lambda job: job.group):
        alike = list(group)
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


@functools.lru_cache(maxsize=1)
def _generator(checkpoint: Path, ema: bool) -> Generator:
    """Loads a model without the parts that only losses use, so that all arms run the same programs."""
    reader = load_reader(checkpoint, ema=ema)
    model = reader.model
    config = dataclasses.replace(model.config, num_metaqueries=0, align_layer=0)
    params = {name: model.params[name] for name in abstract_params(config)}
    return Generator(Reader(dataclasses.replace(model, config=config, params=params), reader.mesh))

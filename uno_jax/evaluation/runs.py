"""The folders that a report compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.evaluation.record import Record, read_record
from uno_jax.evaluation.score import read_scores


class Run(NamedTuple):
    """The pictures of one benchmark and one checkpoint."""

    out: Path
    record: Record
    scores: list[dict[str, Any]]
    """Scores of its judge, if it has been judged, and of scorers from PyPI."""
    model: str
    """Name of the model, unique for its parameters."""

    @property
    def benchmark(self) -> str:
        return str(self.record.head["benchmark"])

    @property
    def settings(self) -> str:
        """Name of the preset and the changes of it."""
        changes = self.record.head["changes"]
        return ", ".join([self.record.head["preset"], *(f"{name}={value}" for name, value in changes.items())])


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads folders that `generate` has written.

    Models of the same name are told apart by the hash of their checkpoints, and by EMA.

    Raises:
      BenchmarkError: a folder has no record, two have the same benchmark, checkpoint and settings, or prompts of a
        benchmark differ.
    """
    records = [read_record(folder) for folder in folders]
    keys = {_key(record): record.head["name"] for record in records}
    names = Counter(keys.values())
    runs = [
        Run(folder, record, read_scores(folder), _model_name(record, names[record.head["name"]] > 1))
        for folder, record in zip(folders, records, strict=True)
    ]
    seen: dict[tuple[str, str, str], Path] = {}
    prompts: dict[tuple[str, str], str] = {}
    for run in runs:
        place = (run.benchmark, run.model, run.settings)
        if place in seen:
            raise BenchmarkError(f"{run.out} and {seen[place]} are the same benchmark, checkpoint and settings")
        seen[place] = run.out
        for item in run.record.items:
            other = prompts.setdefault((run.benchmark, item.id), item.prompt)
            if other != item.prompt:
                raise BenchmarkError(
                    f"{run.out}: item {item.id} of {run.benchmark} is {item.prompt!r}, but {other!r} in another "
                    "folder; generate both from the same prompt file"
                )
    return runs


def _key(record: Record) -> tuple[str, bool, str]:
    checkpoint = record.head["checkpoint"]
    return checkpoint["sha256"], checkpoint["ema"], record.head["dtype"]


def _model_name(record: Record, ambiguous: bool) -> str:
    sha256, ema, dtype = _key(record)
    more = [*(["EMA"] if ema else []), *([sha256[:8], dtype] if ambiguous else [])]
    name = str(record.head["name"])
    return name + (f" ({', '.join(more)})" if more else "")

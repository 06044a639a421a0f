"""Jobs of an evaluation: one record, to be generated for and judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uno_jax.data.record import Record
from uno_jax.inference.generate import Generator
from uno_jax.process.json_reader import JsonError, parse_json
from uno_jax.study.config import Evaluation, SamplingPlan

Line = dict[str, Any]
"""JSON: `job` is the name of the job, `right` whether everything about it is right, and further facts about it."""


@dataclass(frozen=True)
class Job:
    """One record, and what is done with it."""

    record: Record
    group: Any = None
    """Jobs of one group are done together."""
    name: str = ""
    keep: bool = False
    """Whether the picture is kept."""
    other: Record | None = None
    """A second record, if the job needs one."""


class Scored(NamedTuple):
    """What is measured, and how."""

    generator: Generator
    evaluation: Evaluation
    sampling: SamplingPlan
    folder: Path


def read_lines(file: Path) -> list[Line]:
    """Returns the lines of a file, without a last one that was cut off; no lines if there is no file."""
    *texts, rest = file.read_bytes().split(b"\n") if file.is_file() else [b""]
    lines = [parse_json(text) for text in texts]
    try:
        return [*lines, parse_json(rest)] if rest else lines
    except JsonError:
        return lines


def line_texts(lines: Iterable[Line]) -> bytes:
    """Returns the lines as the content of a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def seed_of(record: Record) -> int:
    """Returns the seed of everything random about a record. It depends on the record's id only."""
    return int.from_bytes(hashlib.sha256(record.id.encode()).digest()[:4], "big") >> 1


def spread_evenly(count: int, total: int) -> set[int]:
    """Returns `count` numbers below `total`, evenly spaced."""
    return {i * total // count for i in range(min(count, total))} if count else set()

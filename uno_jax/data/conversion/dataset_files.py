"""The files of a dataset next to its shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from uno_jax.batch import TASKS
from uno_jax.config import to_json
from uno_jax.data.conversion.parts import Facts
from uno_jax.data.conversion.shards import Shard
from uno_jax.data.ids import write_ids
from uno_jax.data.records import write_tasks
from uno_jax.data.sources.source import Opened, Rejection
from uno_jax.data.storage import StoredShard, write_info
from uno_jax.process.files import hash_files
from uno_jax.process.pool import map_in_processes

MANIFEST = "dataset.json"
REJECTED = "rejected.jsonl"


def write_split_files(directory: Path, name: str, shards: Mapping[str, Sequence[Shard]], opened: Opened) -> None:
    """Writes tasks and ids of each split, and the files with which TFDS opens the dataset."""
    for split, some in shards.items():
        records = [record for shard in some for record in shard.records]
        write_tasks(directory, split, [record.task for record in records])
        write_ids(directory, split, (record.id for record in records))
    write_info(
        directory,
        name,
        {split: [StoredShard(len(shard.records), shard.bytes) for shard in some] for split, some in shards.items()},
        description=opened.description,
        license_text=opened.license,
        homepage=opened.homepage,
    )


def write_rejections(file: Path, rejections: Sequence[Rejection]) -> None:
    """Writes rejections, one JSON object a line, if there are any."""
    if rejections:
        lines = (json.dumps(to_json(rejection)) + "\n" for rejection in rejections)
        file.write_text("".join(lines), encoding="utf-8")


def texts_of(records: Iterable[Facts]) -> list[str]:
    """Returns the texts that a tokenizer is trained on: each text of each record."""
    texts: list[str] = []
    for record in records:
        texts.extend(dict.fromkeys(text for text in (record.prompt, *record.captions, record.answer) if text))
    return texts


def task_counts(shards: Mapping[str, Sequence[Shard]]) -> dict[str, dict[str, int]]:
    """Returns the number of records of each task that a split has."""
    counts = {}
    for split, some in shards.items():
        tasks = Counter(TASKS[record.task] for shard in some for record in shard.records)
        counts[split] = {task: tasks[task] for task in TASKS if tasks[task]}
    return counts


def file_table(directory: Path, processes: int) -> dict[str, Any]:
    """Returns size and SHA-256 of each file of a dataset, by its path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    hashes = map_in_processes(_hash, files, processes)
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": hash_}
        for path, hash_ in zip(files, hashes, strict=True)
    }


def _hash(file: Path) -> str:
    return hash_files([file])

"""The files of a dataset next to its shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uno_jax.batch import TASKS
from uno_jax.config import to_json
from uno_jax.data.conversion.before import MANIFEST, Before
from uno_jax.data.conversion.ledger import Ledger, by_cause, by_field
from uno_jax.data.conversion.parts import Facts
from uno_jax.data.conversion.shards import Shard
from uno_jax.data.conversion.statistics import histograms
from uno_jax.data.ids import write_ids
from uno_jax.data.records import record_tasks, write_tasks
from uno_jax.data.sources.source import Rejection
from uno_jax.data.storage import DatasetInfo, StoredSplit, write_info
from uno_jax.process.files import hash_files
from uno_jax.process.pool import map_in_processes

REJECTED, LEFT_OUT = "rejected.jsonl", "left_out.jsonl"


def write_split_files(
    directory: Path, info: DatasetInfo, shards: Mapping[str, Sequence[Shard]], before: Before
) -> None:
    """Writes tasks and ids of each split, and the files with which TFDS opens the dataset.

    Args:
      directory: the folder of the dataset.
      info: its name, description and license.
      shards: the new shards of each split.
      before: what the dataset had before them.
    """
    splits = dict(before.info.splits) if before.info else {}
    for split, some in shards.items():
        records = [record for shard in some for record in shard.records]
        write_tasks(directory, split, [*before.tasks(split), *(record.task for record in records)])
        write_ids(directory, split, [*before.ids(split), *(record.id for record in records)])
        earlier = splits.get(split, StoredSplit((), 0))
        lengths = tuple(len(shard.records) for shard in some)
        total = sum(shard.bytes for shard in some)
        splits[split] = StoredSplit(earlier.lengths + lengths, earlier.bytes + total)
    write_info(directory, replace(info, splits=splits))


def write_list(file: Path, before: Path, entries: Sequence[Rejection]) -> None:
    """Writes rejections, one JSON object a line, after those that a file has, if there are any."""
    earlier = before.read_text(encoding="utf-8") if before.is_file() else ""
    if earlier or entries:
        lines = (json.dumps(to_json(entry)) + "\n" for entry in entries)
        file.write_text(earlier + "".join(lines), encoding="utf-8")


def rewritten(splits: Iterable[str]) -> list[str]:
    """Returns the names of the files that are written anew when records are appended to splits."""
    own = [name for split in splits for name in (f"tasks-{split}.npy", f"ids-{split}.txt")]
    others = ["dataset_info.json", "features.json", "LICENSE", "contact_sheet.png", MANIFEST, REJECTED, LEFT_OUT]
    return [*own, *others]


def manifest_of(ledger: Ledger, length: Callable[[str], int]) -> dict[str, Any]:
    """Returns what the manifest says of records: what was left out and why, and what the others are like.

    Args:
      ledger: the records.
      length: returns the number of tokens of a text.
    """
    return {
        "rejected": {"records": ledger.rejected, "by_field": by_field(ledger.rejections)},
        "left_out": {"records": len(ledger.left_out), "by_cause": by_cause(ledger.left_out)},
        "rewritten_pictures": dict(ledger.rewritten),
        "histograms": histograms((facts for some in ledger.facts.values() for facts in some), length),
    }


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Adds two results of `manifest_of`: numbers, lists of counts, and what has the same name."""
    return {name: _added(one[name], other[name]) for name in other}


def _added(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        names = dict.fromkeys((*one, *other))
        return {
            name: one.get(name, other.get(name))
            if name == "up_to" or name not in one or name not in other
            else _added(one[name], other[name])
            for name in names
        }
    return [_added(*pair) for pair in zip(one, other, strict=True)] if isinstance(one, list) else one + other


def texts_of(records: Iterable[Facts]) -> list[str]:
    """Returns the texts that a tokenizer is trained on: each text of each record."""
    texts: list[str] = []
    for record in records:
        texts.extend(dict.fromkeys(text for text in (record.prompt, *record.captions, record.answer) if text))
    return texts


def task_counts(directory: Path, splits: Iterable[str]) -> dict[str, dict[str, int]]:
    """Returns the number of records of each task that a split has."""
    counts = {}
    for split in splits:
        tasks = Counter(TASKS[task] for task in record_tasks(directory, split))
        counts[split] = {task: tasks[task] for task in TASKS if tasks[task]}
    return counts


def file_table(directory: Path, known: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Returns size and SHA-256 of each file of a dataset, by its path.

    Args:
      directory: the folder of the dataset.
      known: the entries of files that are known.
      processes: number of processes that read the others.
    """
    files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    new = [path for name, path in files.items() if name not in known]
    hashes = dict(zip(new, map_in_processes(_hash, new, processes), strict=True))
    return {
        name: known[name] if name in known else {"bytes": path.stat().st_size, "sha256": hashes[path]}
        for name, path in files.items()
    }


def damaged_file(directory: Path, files: Mapping[str, Any]) -> str | None:
    """Returns the name of a file of a dataset that is missing or has another size than its manifest says, if any.

    People may edit the license.
    """
    for name, entry in files.items():
        file = directory / name
        if not file.is_file() or (name != "LICENSE" and file.stat().st_size != entry["bytes"]):
            return name
    return None


def _hash(file: Path) -> str:
    return hash_files([file])

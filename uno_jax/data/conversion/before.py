"""What a dataset has before records are appended to it. Its shards stay as they are."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uno_jax.data.ids import read_ids
from uno_jax.data.records import record_tasks
from uno_jax.data.storage import DatasetInfo, read_info, shard_file
from uno_jax.process.json_reader import read_json_object

MANIFEST = "dataset.json"
"""File with everything that is known of a dataset, which `prepare_data` writes last."""


@dataclass(frozen=True)
class Before:
    """A dataset that gets more records; nothing for a new dataset."""

    directory: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    info: DatasetInfo | None = None

    @property
    def splits(self) -> list[str]:
        """The names of its splits."""
        return list(self.info.splits) if self.info else []

    def shards(self, split: str) -> int:
        """Returns the number of its shards."""
        return len(self.info.splits[split].lengths) if self.info and split in self.info.splits else 0

    def tasks(self, split: str) -> Sequence[int]:
        """Returns the tasks of its records, as indices into `TASKS`."""
        if self.directory is None or split not in self.splits:
            return []
        tasks: list[int] = record_tasks(self.directory, split).tolist()
        return tasks

    def ids(self, split: str) -> list[str]:
        """Returns the ids of its records."""
        return read_ids(self.directory, split) if self.directory is not None and split in self.splits else []

    def file(self, name: str) -> Path:
        """Returns one of its files, which need not exist."""
        return (self.directory or Path(os.devnull)) / name

    def identity(self) -> str | None:
        """Returns a hash of its manifest, which has hashes of all its files; None for nothing."""
        if self.directory is None:
            return None
        return hashlib.sha256((self.directory / MANIFEST).read_bytes()).hexdigest()

    def known_files(self) -> dict[str, Any]:
        """Returns the entries of its shards in its manifest."""
        if self.info is None:
            return {}
        files = {
            shard_file(Path(), self.info.name, split, number).name
            for split in self.splits
            for number in range(self.shards(split))
        }
        return {name: entry for name, entry in self.manifest["files"].items() if name in files}

    def keep(self, directory: Path, rewritten: Sequence[str]) -> None:
        """Puts into a folder what stays of the dataset: links to the same files, or copies where there are no links.

        Args:
          directory: the folder.
          rewritten: the names of files that will be written anew.
        """
        if self.directory is None:
            return
        for entry in self.directory.iterdir():
            kept = directory / entry.name
            if entry.name in rewritten or entry.name.startswith(".") or kept.exists():
                continue
            if entry.is_dir():
                shutil.rmtree(partial := directory / f".{entry.name}.tmp", ignore_errors=True)
                shutil.copytree(entry, partial, copy_function=_link)
                partial.rename(kept)
            else:
                _link(entry, kept)


def read_before(directory: Path) -> Before:
    """Reads what a dataset has."""
    return Before(directory, read_json_object(directory / MANIFEST), read_info(directory))


def _link(file: Path | str, target: Path | str) -> None:
    try:
        os.link(file, target)
    except OSError:
        shutil.copy2(file, target)

"""Annexes of a prepared dataset: what a model computed of its records, in a folder of its own, an entry per record.

A folder holds `annex.json` and, for every split, ArrayRecord shards of consecutive records. `annex.json` is written
first and states everything that determines the entries. A shard appears only when it is complete. A process that was
killed therefore leaves nothing but whole shards, and the same command makes the missing ones.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from uno_jax.data.fingerprint import split_fingerprint
from uno_jax.data.record import Record, RecordError
from uno_jax.data.records import ChangedRecords, RecordSource, record_tasks
from uno_jax.process.errors import UserError, reason_of
from uno_jax.process.files import atomic_file, check_folder, write_json
from uno_jax.process.json_reader import read_json_object

ABOUT = "annex.json"
FORMAT = 1  # version of the folder's format
# Entries are read one by one, in any order.
_WRITER_OPTIONS = "group_size:1"

AddEntry = Callable[[bytes, Record], Record]
"""Makes the changed record of an entry and a record."""


class AnnexError(UserError):
    """An annex that cannot be used. The message says why and what to do."""


@dataclass(frozen=True)
class Shard:
    """Consecutive records of a split, whose entries are in one file."""

    split: str
    records: range
    file: Path

    @property
    def is_written(self) -> bool:
        return self.file.is_file()


@dataclass(frozen=True)
class Annex:
    """A folder of entries, and what `annex.json` says of it."""

    folder: Path
    about: Mapping[str, Any]

    def shards(self, split: str) -> list[Shard]:
        """Returns the shards of a split, written or not.

        Raises:
          AnnexError: the annex has no entries of the split.
        """
        if split not in self.about["splits"]:
            known = ", ".join(self.about["splits"])
            raise AnnexError(f"{self.folder} covers the splits {known}, not {split!r}: make it for this split, too")
        records, each = self.about["splits"][split]["records"], self.about["records_per_shard"]
        starts = range(0, records, each)
        return [
            Shard(
                split,
                range(start, min(start + each, records)),
                self.folder / f"{self.about['kind']}-{split}.array_record-{number:05d}-of-{len(starts):05d}",
            )
            for number, start in enumerate(starts)
        ]

    def check_complete(self, split: str) -> None:
        """Requires all shards of a split.

        Raises:
          AnnexError: some are missing.
        """
        shards = self.shards(split)
        missing = sum(not shard.is_written for shard in shards)
        if missing:
            raise AnnexError(
                f"{self.folder}: {missing} of {len(shards)} shards of split {split!r} are missing. Run the command "
                "that makes it again; it goes on where it stopped"
            )

    def check_dataset(self, directory: str | Path, split: str, fingerprint: str) -> None:
        """Requires a split of a dataset, with its fingerprint, to be the one that the entries were made of.

        Raises:
          AnnexError: the split is missing in the annex, not complete, or of other records.
        """
        self.check_complete(split)
        if self.about["splits"][split]["fingerprint"] != fingerprint:
            raise AnnexError(
                f"{self.folder} was made of other records than those of split {split!r} of {directory}. Give the "
                "dataset that it was made of, or make it again"
            )

    def added_to(
        self, records: RecordSource, add: AddEntry, directory: str | Path, split: str, fingerprint: str
    ) -> RecordSource:
        """Returns the records of a split of a dataset, each changed by its entry as it is read.

        Args:
          records: the records.
          add: makes the changed record of an entry and a record. It must be picklable.
          directory: the dataset.
          split: the split.
          fingerprint: `split_fingerprint` of the split.

        Raises:
          AnnexError: as for `check_dataset`.
        """
        self.check_dataset(directory, split, fingerprint)
        return ChangedRecords(records, functools.partial(_with_entry, add, Entries(self, split)))

    def fingerprint(self, split: str) -> str:
        """Returns a hash of the shards of a split, as `split_fingerprint` of records."""
        return split_fingerprint(self.folder, split)


class Entries:
    """The entries of a split by record number, all of whose shards are there (`Annex.check_complete`).

    Picklable; files are opened at the first access in each process.
    """

    def __init__(self, annex: Annex, split: str):
        self._shards = annex.shards(split)
        self._source: ArrayRecordDataSource | None = None

    def __getitem__(self, number: int) -> bytes:
        """Returns an entry.

        Raises:
          RecordError: it cannot be read.
        """
        try:
            if self._source is None:
                self._source = ArrayRecordDataSource([str(shard.file) for shard in self._shards])
            entry: bytes = self._source[number]
        except Exception as error:  # of the file format
            each = len(self._shards[0].records)
            file = self._shards[number // each].file
            raise RecordError(
                f"{file}: entry {number % each} cannot be read ({reason_of(error)}). Remove the file and run the "
                "command that makes it again",
                "annex_damaged",
            ) from error
        return entry

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}


def _with_entry(add: AddEntry, entries: Entries, number: int, record: Record) -> Record:
    return add(entries[number], record)


def open_annex(folder: str | Path, kind: str) -> Annex:
    """Opens an annex of a kind.

    Raises:
      AnnexError: there is none, or it is of another kind or version.
    """
    folder = Path(folder)
    file = folder / ABOUT
    if not file.is_file():
        raise AnnexError(f"{folder}: {ABOUT} is missing. Give a folder that `prepare_data {COMMANDS[kind]}` wrote")
    about = read_json_object(file)
    if (about.get("format"), about.get("kind")) != (FORMAT, kind):
        raise AnnexError(
            f"{file}: format {about.get('format')} of {about.get('kind')}, expected format {FORMAT} of {kind}. Give a "
            f"folder that `prepare_data {COMMANDS[kind]}` of this version wrote"
        )
    return Annex(folder, about)


COMMANDS = {"moments": "encode", "features": "encode --features", "captions": "recaption"}
"""The kinds of annexes, and the command that makes each."""


def begin_annex(
    folder: Path, kind: str, directory: str | Path, splits: Sequence[str], each: int, facts: Mapping[str, Any]
) -> Annex:
    """Makes the folder of an annex, or goes on with the one that the same command began.

    Args:
      folder: the folder.
      kind: a key of `COMMANDS`.
      directory: the dataset.
      splits: the splits to make entries of.
      each: number of records of a shard.
      facts: everything else that determines the entries, as JSON values.

    Raises:
      AnnexError: the folder holds something else, or an annex that was made otherwise.
    """
    about = {
        "format": FORMAT,
        "kind": kind,
        "records_per_shard": each,
        "splits": {
            split: {
                "records": len(record_tasks(directory, split)),
                "fingerprint": split_fingerprint(directory, split),
            }
            for split in splits
        },
        **facts,
    }
    check_folder(folder)
    file = folder / ABOUT
    if file.is_file():
        found = read_json_object(file)
        changed = sorted(name for name in {*found, *about} if found.get(name) != about.get(name))
        if changed:
            raise AnnexError(
                f"{folder} was begun with another value of {', '.join(changed)} (see {ABOUT} in it). Give another "
                "--out, or remove the folder"
            )
        return Annex(folder, about)
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise AnnexError(f"{folder} is not empty and has no {ABOUT}. Give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, about)
    return Annex(folder, about)


def write_shard(shard: Shard, entries: Sequence[bytes]) -> None:
    """Writes the entries of a shard, which appears when it is complete and on the disk."""
    assert len(entries) == len(shard.records)
    with atomic_file(shard.file) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        for entry in entries:
            writer.write(entry)
        writer.close()
        with temporary.open("rb") as written:
            os.fsync(written.fileno())


def remove_leftovers(folder: Path) -> None:
    """Removes the unfinished files of processes that were killed, when no process writes into the folder any more."""
    for file in folder.glob(".*.tmp"):
        file.unlink(missing_ok=True)

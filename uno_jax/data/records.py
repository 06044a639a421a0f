"""Storage of datasets of records.

A dataset is one directory: a TFDS dataset of ArrayRecord files (the split `train` and others, mostly `test`), one
`tasks-<split>.npy` per split, and the files that `prepare_data` adds (tokenizer, contact sheet). `open_records` reads
it, without TensorFlow. `write_records` writes one of few records.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds

from uno_jax.batch import TASKS
from uno_jax.config import ConfigError
from uno_jax.data.record import Record, RecordError
from uno_jax.data.storage import DatasetInfo, StoredSplit, hash_of, serialize, shard_file, write_info, write_shard_file
from uno_jax.process.errors import UserError, reason_of
from uno_jax.process.json_reader import read_json_object

_FEATURES = "tensorflow_datasets.core.features."
_AGAIN = "Copy the dataset again, or prepare it again"


@runtime_checkable
class RecordSource(Protocol):
    """Random access to the records of one split. Picklable, so that another process can open it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


@dataclass(frozen=True)
class ChangedRecords:
    """Records that a function changes as they are read."""

    records: RecordSource
    change: Callable[[int, Record], Record]
    """Gets the number of a record and the record. It must be picklable."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.change(index, self.records[index])


class StoredRecords:
    """`RecordSource` for one split of a dataset directory.

    Files are opened at the first access in each process, so creating, copying and pickling it is cheap.
    """

    def __init__(self, directory: str | Path, split: str):
        self._directory = Path(directory)
        self._split = split
        self._length = len(record_tasks(directory, split))
        self._source: _ArrayRecords | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._length:
            raise IndexError(
                f"{self._directory}: record {index} is out of range, split {self._split!r} has {self._length} records"
            )
        if self._source is None:
            self._source = _open_array_records(self._directory, self._split)
        return self._source[int(index)]

    def check(self) -> None:
        """Opens every file, so that one that is missing or cut is found before a run begins.

        Raises:
          UserError: a file cannot be used. The message names it.
        """
        _open_array_records(self._directory, self._split).check(self._length)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def __repr__(self) -> str:
        return f"StoredRecords({str(self._directory)!r}, {self._split!r})"


def open_records(directory: str | Path, split: str) -> StoredRecords:
    """Opens one split, such as `train`, of a dataset directory that `prepare_data` wrote.

    Raises:
      UserError: the dataset or the split does not exist.
    """
    return StoredRecords(directory, split)


def record_tasks(directory: str | Path, split: str) -> np.ndarray:
    """Returns the task of each record of a split as an index into `TASKS`, int32 `[records]`.

    Reads one small file and no records.

    Raises:
      UserError: the dataset or the split does not exist, or the file is damaged.
    """
    path = _tasks_path(Path(directory), split)
    if not str(directory):
        raise UserError("no dataset is given. Give the folder that `python -m uno_jax.prepare_data --out=DIR` wrote")
    if not Path(directory).is_dir():
        several = ". Several datasets are given as config.data.mixture" if "," in str(directory) else ""
        raise UserError(f"{str(directory)!r}: there is no such folder. Give a dataset of prepare_data{several}")
    if not path.exists():
        found = ", ".join(splits_of(directory))
        advice = f"It has {found}" if found else "Give the folder that `python -m uno_jax.prepare_data --out=DIR` wrote"
        raise UserError(f"{directory}: split {split!r} of a prepared dataset is missing ({path.name}). {advice}")
    try:
        tasks: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged. {_AGAIN}") from error
    if tasks.dtype != np.int32 or tasks.ndim != 1 or not np.all((tasks >= 0) & (tasks < len(TASKS))):
        raise UserError(f"{path}: expected numbers of tasks from 0 to {len(TASKS) - 1}. {_AGAIN}")
    return tasks


def first_records(directory: Path, split: str, task: str, count: int) -> list[Record]:
    """Returns the first `count` records of a task in a split; fewer if there are fewer.

    Raises:
      ConfigError: there is none.
    """
    numbers = np.flatnonzero(record_tasks(directory, split) == TASKS.index(task))
    if not len(numbers):
        raise ConfigError(f"split {split!r} of {directory} has no record of {task}: choose another split, or more data")
    source = open_records(directory, split)
    return [source[int(number)] for number in numbers[:count]]


def has_split(directory: str | Path, split: str) -> bool:
    """Whether a dataset directory has records in a split."""
    return _tasks_path(Path(directory), split).exists()


def splits_of(directory: str | Path) -> list[str]:
    """Returns the names of the splits of a dataset directory, in alphabetical order."""
    return sorted(path.stem.removeprefix("tasks-") for path in Path(directory).glob("tasks-*.npy"))


def write_records(
    directory: str | Path,
    name: str,
    splits: Mapping[str, Callable[[], Iterable[Record]]],
    *,
    description: str,
    license_text: str,
    homepage: str = "",
) -> None:
    """Writes a dataset of records that fit into memory into `directory`, which must not exist or be empty.

    Args:
      directory: the dataset directory. Files of all splits go directly into it.
      name: name of the dataset in snake case, the prefix of its file names.
      splits: for each split, a function that returns its records. Ids must be unique within a split.
      description: description of the dataset, kept in its metadata.
      license_text: license of the pictures and texts, kept in the metadata.
      homepage: web page of the data, kept in the metadata.

    Raises:
      FileExistsError: `directory` is not empty.
      ValueError: a record has an unknown task.
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory}: the directory is not empty. Give a new one, or remove this one first.")
    directory.mkdir(parents=True, exist_ok=True)
    stored = {}
    for split, make in splits.items():
        records = sorted(make(), key=lambda record: hash_of(split, record.id))
        encoded = [serialize(record) for record in records]
        write_shard_file(shard_file(directory, name, split, 0), encoded)
        write_tasks(directory, split, [TASKS.index(record.task) for record in records])
        stored[split] = StoredSplit((len(records),), sum(map(len, encoded)))
    write_info(directory, DatasetInfo(name, description, license_text, homepage, stored))


def write_tasks(directory: Path, split: str, tasks: Sequence[int]) -> None:
    """Writes the task of each record of a split, as an index into `TASKS`."""
    np.save(_tasks_path(directory, split), np.asarray(tasks, np.int32))


def _tasks_path(directory: Path, split: str) -> Path:
    return directory / f"tasks-{split}.npy"


class _ArrayRecords:
    """The records of a split in ArrayRecord files, with errors that name file and record."""

    def __init__(self, source: Any, files: Sequence[Path], lengths: Sequence[int]):
        self._source = source
        self._files = files
        self._ends = list(accumulate(lengths))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        try:
            return _to_record(self._source[index])
        except Exception as error:  # of the file format, of the encoding of an example, or of its texts
            file = bisect_right(self._ends, index)
            position = index - (self._ends[file - 1] if file else 0)
            where = f"{self._files[file]}: record {position}"
            raise RecordError(
                f"{where} cannot be read ({self._reason(index, error)}). {_AGAIN}", "record_damaged"
            ) from error

    def _reason(self, index: int, error: Exception) -> str:
        with contextlib.suppress(Exception):  # which is `error` again
            if not self._source.data_source[index]:
                return "the file is cut"
        return reason_of(error)

    def check(self, length: int) -> None:
        """Reads the first record of every file."""
        if len(self) != length:
            raise UserError(f"{self._files[0].parent}: {len(self)} records, but {length} tasks. {_AGAIN}")
        for file, end in zip(self._files, (0, *self._ends), strict=False):
            if not file.is_file():
                raise UserError(f"{file}: missing. {_AGAIN}")
            if end < len(self):
                self[end]


def _open_array_records(directory: Path, split: str) -> _ArrayRecords:
    """Opens the files of a split; UserError if that is not possible."""
    for name in ("dataset_info.json", "features.json"):
        if not (directory / name).is_file():
            raise UserError(f"{directory}: {name} is missing. {_AGAIN}")
    features = directory / "features.json"
    check_features(read_json_object(features), str(features))
    try:
        builder = tfds.builder_from_directory(directory)
        keep = KeepEncoded()
        source = builder.as_data_source(split=split, decoders={"image": keep, "sources": keep})
        info = builder.info.splits[split]
        return _ArrayRecords(source, [Path(file) for file in info.filepaths], info.shard_lengths)
    except Exception as error:  # TFDS raises errors of any kind for damaged JSON files
        raise UserError(f"{directory}: the dataset cannot be opened ({reason_of(error)}). {_AGAIN}") from error


def check_features(features: dict[str, Any], file: str) -> None:
    """Refuses features of other packages: TFDS would import, and so run, any module that the file names.

    Raises:
      UserError: the file names a feature that is none of TFDS itself.
    """
    nodes: list[Any] = [features]
    while nodes:
        node = nodes.pop()
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        for key in ("pythonClassName", "python_class_name"):
            name = node.get(key, _FEATURES) if isinstance(node, dict) else _FEATURES
            if not isinstance(name, str) or not name.startswith(_FEATURES):
                raise UserError(f"{file}: {name!r} is no feature of TFDS itself. {_AGAIN}")


class KeepEncoded(tfds.decode.SkipDecoding):
    """Keeps pictures encoded. TFDS's `SkipDecoding` supports a single picture, but not a sequence."""

    def decode_batch_example_np(self, example: Any) -> Any:
        return example


def _to_record(example: Mapping[str, Any]) -> Record:
    return Record(
        id=example["id"].decode(),
        task=example["task"].decode(),
        image=bytes(example["image"]),
        prompt=example["prompt"].decode(),
        captions=tuple(text.decode() for text in example["captions"]),
        sources=tuple(bytes(source) for source in example["sources"]),
        answer=example["answer"].decode(),
    )

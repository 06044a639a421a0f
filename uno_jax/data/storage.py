"""How records are stored: their encoding, their order, the files of their shards, and the files that describe them.

Records of a split are in the order of a hash of their ids, so they depend neither on the order of the source nor on who
made them. The shard of a record is the part of all hashes that its own falls into. The conventions are those of TFDS,
which can read the folder; but the names of shards do not say how many there are, so that there may be more later.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath
from tensorflow_datasets.core import dataset_info, example_serializer
from tensorflow_datasets.core.proto import dataset_info_pb2

from uno_jax.batch import TASKS
from uno_jax.data.record import Record
from uno_jax.data.sources.locations import is_remote
from uno_jax.process.files import atomic_file

SHARD_BYTES = 2**28
"""Bytes of the records of a shard, on average at most."""

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
_VERSION = "1.0.0"
_WRITER_OPTIONS = "group_size:1"  # records are read one by one, in any order
_HASH_BITS = 128


@dataclass(frozen=True)
class StoredSplit:
    """What the metadata say of a split."""

    lengths: tuple[int, ...]
    """Number of records of each shard."""
    bytes: int
    """Bytes of its records before compression."""


@dataclass(frozen=True)
class DatasetInfo:
    """What the metadata say of a dataset."""

    name: str
    """The prefix of the files of its shards."""
    description: str
    license: str
    homepage: str
    splits: Mapping[str, StoredSplit]


@functools.cache
def features() -> Any:
    """Returns the features of a record. Encoded pictures are stored unchanged."""
    picture = tfds.features.Image(shape=(None, None, 3))
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "task": tfds.features.Text(),
            "image": picture,
            "prompt": tfds.features.Text(),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "sources": tfds.features.Sequence(picture),
            "answer": tfds.features.Text(),
        }
    )


@functools.cache
def _serializer() -> Any:
    return example_serializer.ExampleSerializer(features().get_serialized_info())


def serialize(record: Record) -> bytes:
    """Encodes a record.

    Raises:
      ValueError: the record has an unknown task.
    """
    if record.task not in TASKS:
        raise ValueError(f"record {record.id!r}: task {record.task!r} is not one of {', '.join(TASKS)}")
    example = {
        "id": record.id,
        "task": record.task,
        "image": record.image,
        "prompt": record.prompt,
        "captions": list(record.captions),
        "sources": list(record.sources),
        "answer": record.answer,
    }
    encoded: bytes = (
        _serializer()
        .get_tf_example(features().encode_example(example))
        .SerializeToString(deterministic=True)  # else the order of features differs between processes
    )
    return encoded


def hash_of(split: str, id_: str) -> int:
    """Returns a number of 128 bits, by which the records of a split are ordered. It is that of TFDS."""
    return int.from_bytes(hashlib.md5((split + id_).replace("\\", "/").encode()).digest(), "big")


def shard_count(total: int) -> int:
    """Returns the number of shards for records of `total` bytes."""
    return max(math.ceil(total / SHARD_BYTES), 1)


def shard_of(hash_: int, count: int) -> int:
    """Returns the shard, of `count`, of a record with a hash."""
    return hash_ * count >> _HASH_BITS


def shard_file(directory: Path | epath.Path, name: str, split: str, number: int) -> Path | epath.Path:
    """Returns the file of a shard."""
    return directory / f"{name}-{split}.array_record-{number:05d}"


def write_shard_file(file: Path | epath.Path, records: Iterable[bytes]) -> None:
    """Writes encoded records, in order, to a file that appears when it is complete and on the disk."""
    if is_remote(file):
        with tempfile.TemporaryDirectory() as folder:  # the library writes to disks only
            write_shard_file(local := Path(folder) / "shard", records)
            file.write_bytes(local.read_bytes())
        return
    with atomic_file(Path(file)) as temporary:
        writer = ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
        for record in records:
            writer.write(record)
        writer.close()
        with temporary.open("rb") as written:
            os.fsync(written.fileno())


def holds_records(file: Path | epath.Path, records: Sequence[bytes]) -> bool:
    """Whether a file of `write_shard_file` holds encoded records, and nothing in it is damaged."""
    if is_remote(file):
        with tempfile.TemporaryDirectory() as folder:  # the library reads disks only
            (local := Path(folder) / "shard").write_bytes(file.read_bytes())
            return holds_records(local, records)
    try:
        reader = ArrayRecordReader(str(file))
        try:
            return reader.num_records() == len(records) and all(reader.read() == record for record in records)
        finally:
            reader.close()
    except Exception:  # of the file format
        return False


def store(file: Path | epath.Path, content: bytes) -> None:
    """Writes a file, which appears when it is complete and on the disk."""
    if is_remote(file):
        file.write_bytes(content)
        return
    with atomic_file(Path(file)) as temporary, temporary.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def write_info(directory: Path, info: DatasetInfo) -> None:
    """Writes the files with which TFDS opens a dataset, and the license."""
    features().save_config(directory)
    (directory / "LICENSE").write_text(info.license, encoding="utf-8")
    message = dataset_info_pb2.DatasetInfo(
        name=info.name,
        description=info.description,
        version=_VERSION,
        file_format="array_record",
        redistribution_info=dataset_info_pb2.RedistributionInfo(license=info.license),
        splits=[
            dataset_info_pb2.SplitInfo(
                name=split, shard_lengths=stored.lengths, num_bytes=stored.bytes, filepath_template=_TEMPLATE
            )
            for split, stored in info.splits.items()
        ],
    )
    message.location.urls.extend([info.homepage] if info.homepage else [])
    (directory / "dataset_info.json").write_text(dataset_info.get_dataset_info_json(message), encoding="utf-8")


def read_info(directory: Path) -> DatasetInfo:
    """Returns what `write_info` wrote."""
    message = dataset_info.read_from_json(directory / "dataset_info.json")
    splits = {split.name: StoredSplit(tuple(split.shard_lengths), split.num_bytes) for split in message.splits}
    homepage = next(iter(message.location.urls), "")
    return DatasetInfo(message.name, message.description, message.redistribution_info.license, homepage, splits)

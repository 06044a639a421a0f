"""The datasets that a config samples from: one, or several with a weight and a method each."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from uno_jax.batch import TASKS
from uno_jax.config import ConfigError
from uno_jax.data.captions import with_captions
from uno_jax.data.config import DataConfig
from uno_jax.data.encoded import with_moments
from uno_jax.data.features import with_features
from uno_jax.data.fingerprint import split_fingerprint
from uno_jax.data.record import Record
from uno_jax.data.records import ChangedRecords, RecordSource, open_records, record_tasks
from uno_jax.process.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture."""

    name: str
    """Its name in `data.mixture`; "" if `data.directory` is the only dataset."""
    config: DataConfig
    """The data config with the fields of this dataset."""
    weight: float
    records: RecordSource
    tasks: Int[np.ndarray, " records"]
    """Index into `TASKS` of each record."""
    fingerprint: str = ""
    """Hash of the stored records (`split_fingerprint`); "" if they are not stored."""

    def numbers(self, names: Sequence[str]) -> Int[np.ndarray, " records"]:
        """Returns the numbers of the records of some tasks."""
        return np.flatnonzero(np.isin(self.tasks, [TASKS.index(name) for name in names]))

    def drawn(self) -> list[str]:
        """Returns the tasks that it has records of and that its config samples."""
        return [name for name in trained_tasks(self.config) if len(self.numbers([name]))]

    def groups(self) -> list[Group]:
        """Returns its records as one group, or a group for each task that has a weight.

        Raises:
          ValueError: it has no record that is sampled. The message names the field.
        """
        weights, drawn = self.config.task_weights, self.drawn()
        absent = [name for name, weight in weights.items() if weight > 0 and name not in drawn]
        if absent or not drawn:
            present = [name for name in TASKS if len(self.numbers([name]))]
            raise ValueError(
                f"{field_of(self.name, 'task_weights')} samples {', '.join(absent) or 'no task'}, but split "
                f"{self.config.split!r} of {self.config.directory or 'the records'} contains "
                f"{', '.join(present) or 'no records'}"
            )
        where = f" of {self.name}" if self.name else ""
        if not weights:
            return [Group(self.weight, self.numbers(drawn), ", ".join(drawn) + where)]
        total = sum(weights[name] for name in drawn)
        return [Group(self.weight * weights[name] / total, self.numbers([name]), name + where) for name in drawn]


class Group(NamedTuple):
    """Records that are sampled alike, which takes turns with other groups in proportion to their weights."""

    weight: float
    numbers: Int[np.ndarray, " records"]
    name: str
    """What they are, for messages."""


@dataclass(frozen=True)
class Mixture:
    """Random access to the records of all parts, which are numbered consecutively."""

    parts: tuple[Part, ...]

    @property
    def ends(self) -> list[int]:
        """The number behind the last record of each part."""
        return list(accumulate(len(part.tasks) for part in self.parts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, number: int) -> Record:
        index, within = self.locate(number)
        return self.parts[index].records[within]

    def locate(self, number: int) -> tuple[int, int]:
        """Returns the index of a record's part, and the number of the record there."""
        starts = [0, *self.ends]
        index = bisect_right(starts, number, hi=len(self.parts)) - 1
        return index, number - starts[index]

    def read_with(self, config: DataConfig) -> Mixture:
        """Returns the same records, read with another config that names the same datasets."""
        configs = part_configs(config)
        return Mixture(
            tuple(replace(part, config=replace(configs[part.name], split=part.config.split)) for part in self.parts)
        )

    def trained(self, names: Sequence[str] = TASKS) -> list[Int[np.ndarray, " _"]]:
        """Returns the numbers of the sampled records of each part and each task of `names`."""
        return [
            start + part.numbers([task])
            for start, part in self._starts()
            for task in trained_tasks(part.config)
            if task in names
        ]

    def groups(self) -> list[Group]:
        """Returns the records with their weights: a group for each part, or for each of its tasks that has a weight.

        Raises:
          ValueError: a part has no record that is sampled. The message names the field.
        """
        return [
            Group(group.weight, start + group.numbers, group.name)
            for start, part in self._starts()
            for group in part.groups()
        ]

    def _starts(self) -> Iterator[tuple[int, Part]]:
        """Yields each part with the number of its first record."""
        return zip((0, *self.ends), self.parts, strict=False)


def one_dataset(records: RecordSource, tasks: Int[np.ndarray, " records"], config: DataConfig) -> Mixture:
    """Returns the mixture of a single dataset."""
    return Mixture((Part("", config, 1.0, records, tasks),))


def open_mixture(config: DataConfig, split: str) -> Mixture:
    """Opens a split of the dataset of a config, or of each dataset of its mixture.

    It reads pieces of every file for the fingerprints, so a run opens a split once and passes it on.

    Raises:
      ConfigError: a dataset or the split does not exist. The message names the field.
    """
    parts = []
    for name, own in part_configs(config).items():
        try:
            source: RecordSource = open_records(own.directory, split)
            tasks, fingerprint = record_tasks(own.directory, split), split_fingerprint(own.directory, split)
        except UserError as error:
            raise ConfigError(f"config.{field_of(name, 'directory')}: {error}") from error
        for field, add in (("captions", with_captions), ("encoded", with_moments), ("features", with_features)):
            try:
                source = add(source, own, split, fingerprint)
            except UserError as error:
                raise ConfigError(f"config.{field_of(name, field)}: {error}") from error
        weight = config.mixture[name].weight if name else 1.0
        source = ChangedRecords(source, partial(_name, name)) if name else source
        parts.append(Part(name, replace(own, split=split), weight, source, tasks, fingerprint))
    return Mixture(tuple(parts))


def check_files(config: DataConfig) -> None:
    """Opens every file of the datasets of a config, so that one that is missing or cut is found before a run begins.

    Raises:
      UserError: a file cannot be used. The message names it.
    """
    for part in part_configs(config).values():
        open_records(part.directory, part.split).check()


def part_configs(config: DataConfig) -> dict[str, DataConfig]:
    """Returns the data config of each dataset with a weight above 0, by name; without a mixture, the config as "".

    Raises:
      ValueError: a name or weight of the mixture is invalid.
    """
    if not config.mixture:
        return {"": config}
    for name in ("captions", "encoded", "features"):
        if getattr(config, name):
            raise ValueError(f"data.{name} is of one dataset: give data.mixture.NAME.{name} for those of a mixture")
    for name, part in config.mixture.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"data.mixture names a dataset {name!r}: use letters, digits, '_' and '-' only")
        if not 0 <= part.weight < math.inf:
            raise ValueError(f"data.mixture.{name}.weight is {part.weight}, expected a finite number, 0 or more")
    found = {
        name: replace(
            config,
            mixture={},
            directory=part.directory,
            method=part.method or config.method,
            task_weights=part.task_weights,
            vae_transform=part.vae_transform or config.vae_transform,
            captions=part.captions,
            encoded=part.encoded,
            features=part.features,
        )
        for name, part in config.mixture.items()
        if part.weight > 0
    }
    if not found:
        raise ValueError("data.mixture gives every dataset the weight 0: give one of them a weight")
    return found


def tokenizer_of(config: DataConfig) -> Path:
    """Returns the folder of the config's own tokenizer, or else of its first dataset."""
    first = next(iter(part_configs(config).values()))
    return Path(config.tokenizer) if config.tokenizer else Path(first.directory) / "tokenizer"


def trained_tasks(config: DataConfig) -> list[str]:
    """Returns the tasks whose records the config samples, as far as the split has any."""
    return [name for name in TASKS if not config.task_weights or config.task_weights.get(name, 0) > 0]


def field_of(part: str, name: str) -> str:
    """Returns the dotted name of a field of a part, without `config.`."""
    return f"data.mixture.{part}.{name}" if part else f"data.{name}"


def _name(part: str, index: int, record: Record) -> Record:
    """Begins the id of a record with the name of its part, so that it differs from those of other parts."""
    return replace(record, id=f"{part}:{record.id}")

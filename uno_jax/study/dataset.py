"""The dataset of a study."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from uno_jax import prepare_data
from uno_jax.batch import TASKS
from uno_jax.config import ConfigError
from uno_jax.data.record import Record
from uno_jax.data.records import open_records, record_tasks
from uno_jax.process.json_reader import read_json_object
from uno_jax.study.config import DatasetPlan


def prepare_dataset(plan: DatasetPlan, directory: Path) -> dict[str, Any]:
    """Writes the dataset unless it exists, and returns its number of records by split and task."""
    if not plan.directory:
        prepare_data.main([*(f"--{option}" for option in plan.options), f"--out={directory}"])
    return {"records": _manifest(directory)["records"]}


def dataset_identity(plan: DatasetPlan) -> dict[str, Any]:
    """Returns what determines the dataset."""
    if plan.directory:
        return {"parameters": _manifest(Path(plan.directory))["parameters"]}
    return {"options": sorted(plan.options)}


def first_records(directory: Path, split: str, task: str, count: int) -> list[Record]:
    """Returns the first `count` records of a task in a split; fewer if there are fewer.

    Raises:
      ConfigError: there is none.
    """
    numbers = np.flatnonzero(record_tasks(directory, split) == TASKS.index(task))
    if not len(numbers):
        raise ConfigError(f"split {split!r} of {directory} has no record of {task}: choose another split, or more data")
    source = open_records(directory, split)
    return [source[int(number)] for number in itertools.islice(numbers, count)]


def _manifest(directory: Path) -> dict[str, Any]:
    file = directory / prepare_data.MANIFEST
    if not file.is_file():
        raise ConfigError(f"config.data.directory: {directory} is not a prepared dataset ({file.name} not found)")
    return read_json_object(file)

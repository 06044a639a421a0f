"""The records to look at."""

from __future__ import annotations

import numpy as np

from uno_jax.batch import TASKS
from uno_jax.data.held_out import spread
from uno_jax.data.record import Record
from uno_jax.data.records import open_records, record_tasks
from uno_jax.process.errors import UserError


def choose_records(directory: str, split: str, task: str, count: int) -> list[Record]:
    """Returns at most `count` evenly spaced records of a task.

    Raises:
      UserError: the split has no record of the task.
      FileNotFoundError: the dataset or the split does not exist.
    """
    tasks = record_tasks(directory, split)
    numbers = spread([np.flatnonzero(tasks == TASKS.index(task))], count)
    if not numbers:
        present = [f"{int((tasks == i).sum())} of {name}" for i, name in enumerate(TASKS) if (tasks == i).any()]
        raise UserError(
            f"split {split!r} of {directory} has no record of {task}, but {' and '.join(present) or 'no record'}: give "
            "another --task, --split or --data"
        )
    source = open_records(directory, split)
    return [source[number] for number in numbers]


def evenly_spaced(total: int, count: int) -> list[int]:
    """Returns at most `count` evenly spaced indices of `total` items, with the first and the last."""
    return sorted({int(at) for at in np.linspace(0, total - 1, min(count, total)).round()})

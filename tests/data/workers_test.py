"""Processes that make batches together make those of one process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.helpers.made_up_records import LAYOUT, make_records, mixture_of, small_config, small_tokenizer
from tests.helpers.paths import ROOT
from uno_jax.data.config import DataConfig
from uno_jax.data.pipeline import Batches, PackedBatch, TooManySkipped, batches_of_mixture
from uno_jax.data.samples import Skipped
from uno_jax.data.workers import WorkerBatches, WorkerError, open_batches
from uno_jax.process.watchdog import EXIT_STATUS

COUNT = 2


def one_process(part: int = 0, of: int = 1, epochs: int = 0) -> Batches:
    config, hosts = small_config(epochs=epochs), {"host_index": part, "host_count": of}
    return batches_of_mixture(mixture_of(make_records(30), config), config, LAYOUT, small_tokenizer(), **hosts)


def one_epoch(part: int, of: int) -> Batches:
    return one_process(part, of, epochs=1)


def broken(part: int, of: int) -> Batches:
    raise ValueError(f"part {part} of {of} cannot be opened")


@pytest.fixture(scope="module")
def workers() -> Iterator[WorkerBatches]:
    batches = WorkerBatches(one_process, range(COUNT), COUNT)
    yield batches
    batches.close()


def take(batches: Iterator[PackedBatch], count: int) -> list[PackedBatch]:
    return list(itertools.islice(batches, count))


def assert_same(actual: list[PackedBatch], expected: list[PackedBatch]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.sample_ids == other.sample_ids
        assert one.stats == pytest.approx(other.stats)
        for left, right in zip(jax.tree.leaves(one.batch), jax.tree.leaves(other.batch), strict=True):
            np.testing.assert_array_equal(left, right)


def test_workers_make_the_batches_of_one_process_and_continue_from_its_state(workers):
    alone = one_process()
    start = alone.get_state()
    assert workers.get_state() == start
    assert_same(take(workers, 3), take(alone, 3))
    assert workers.get_state() == alone.get_state()
    workers.set_state(start)  # what was made ahead is discarded
    assert_same(take(workers, 2), take(one_process(), 2))


def test_workers_end_with_the_last_epoch():
    batches = WorkerBatches(one_epoch, range(COUNT), COUNT)
    assert_same(list(batches), list(one_epoch(0, 1)))
    batches.close()


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(ValueError, match="part 0 of 2 cannot be opened"):
        WorkerBatches(broken, range(COUNT), COUNT)


class Unusable:
    """Batches of which all samples are skipped."""

    def __next__(self) -> PackedBatch:
        raise TooManySkipped("9 of 9 samples were skipped", [Skipped("r9", "record_damaged", "file: record 9")])

    def get_state(self) -> dict[str, Any]:
        return {}


def unusable(part: int, of: int) -> Unusable:
    return Unusable()


def test_skipped_samples_that_end_a_worker_are_known_here():
    batches = WorkerBatches(unusable, range(1), 1)
    with pytest.raises(TooManySkipped, match=r"9 of 9 samples were skipped\. The last one: file: record 9") as error:
        next(batches)
    assert [skipped.id for skipped in error.value.skipped] == ["r9"]
    batches.close()


def test_a_worker_that_was_killed_is_an_error(workers):
    os.kill(workers._processes[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"has ended.*Lower data\.workers"):
        take(workers, 3)


def test_a_worker_that_hangs_is_named_with_its_stack_and_ends_with_the_process():
    command = [sys.executable, "-m", "tests.helpers.hanging_worker", "2"]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert ended.returncode == EXIT_STATUS, ended.stderr
    hanging = ended.stdout.split()[2]
    expected = f"waiting for the batch of step 7 (of data worker 1, process {hanging}). Ending the process"
    assert expected in ended.stderr
    assert "in wait_for_ever" in ended.stderr  # the worker's own stack
    assert "in _answers" in ended.stderr
    assert not Path(f"/proc/{hanging}/exe").exists()


def test_shards_that_cannot_be_shared_equally_are_refused():
    with pytest.raises(ValueError, match=r"data\.virtual_shards is 8, not a multiple of data\.workers = 3"):
        open_batches(mixture_of([], DataConfig()), DataConfig(workers=3), LAYOUT, small_tokenizer())

"""What a run does if something that it waits for never happens."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Train
from uno_jax.process.watchdog import EXIT_STATUS
from uno_jax.training.checkpoints import saved_steps

pytestmark = pytest.mark.faults

SECONDS = 20


def children(process: int) -> list[int]:
    """Processes that a process started, and those that these started."""
    found = [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if stat.is_file() and int(stat.read_text().rpartition(")")[2].split()[1]) == process
    ]
    return found + [descendant for child in found for descendant in children(child)]


def is_data_worker(process: int) -> bool:
    """Whether a process has the pipeline loaded: the server that forks it has not."""
    return "array_record" in Path(f"/proc/{process}/maps").read_text()


def test_a_data_worker_that_hangs_is_named_and_ends_the_run(train: Train, tmp_path):
    changes = {"watchdog_minutes": SECONDS / 60, "data.workers": 2}
    with train(tmp_path / "run", **changes, steps=100_000) as training:
        training.wait_until(lambda: len(saved_steps(tmp_path / "run" / "checkpoints")) > 2)
        workers = [process for process in children(training.process.pid) if is_data_worker(process)]
        os.kill(workers[-1], signal.SIGSTOP)
        began = time.monotonic()
        assert training.finish() == EXIT_STATUS, training.printed
        took = time.monotonic() - began
        assert f"nothing happened for {SECONDS} s while waiting for the batch of step " in training.printed
        assert f"(of data worker 1, process {workers[-1]})" in training.printed
        assert "in _answers" in training.printed
        assert "in _answers" in (tmp_path / "run" / "watchdog.txt").read_text()
        assert not Path(f"/proc/{workers[-1]}/exe").exists()
    print(f"ended {took:.1f} s after the worker hung, with a limit of {SECONDS} s")

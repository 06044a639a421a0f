"""When a state is saved, and what happens if it cannot be.

Folders that cannot be written are made by a file in their place, and failures in the background by a limit on the size
of files: both also stop the superuser.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import optax
import pytest

from uno_jax.process.errors import CheckpointError
from uno_jax.training.checkpoints import CheckpointConfig, Checkpoints
from uno_jax.training.saving import Saver
from uno_jax.training.state import create_state

STATE = create_state({"weight": jax.random.normal(jax.random.key(0), (100, 100))}, ("",), optax.sgd(1.0), ema=False)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Saving:
    """A saver with a clock that the test sets, and the lines that it says."""

    def __init__(self, folder: Path, **config) -> None:
        self.clock, self.said = Clock(), list[str]()
        self.checkpoints = Checkpoints(folder, keep=config.pop("keep", 9), assets={})
        self.saver = Saver(self.checkpoints, CheckpointConfig(**config), self.said.append, self.clock)

    def save(self, step: int) -> None:
        self.saver.save(step, STATE, {"shard": step})

    def settle(self, step: int) -> None:
        """Waits until the checkpoint is on disk."""
        while self.checkpoints.saved != step:
            assert self.checkpoints.failure() is None
            time.sleep(0.01)


@pytest.fixture
def saving(tmp_path) -> Iterator[Saving]:
    saving = Saving(tmp_path / "checkpoints")
    yield saving
    with contextlib.suppress(CheckpointError):
        saving.checkpoints.close()


@contextlib.contextmanager
def small_files_only() -> Iterator[None]:
    """Lets no file of this process grow beyond 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Puts a file where the folder is."""
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("")
    try:
        yield
    finally:
        folder.unlink()
        folder.with_name("elsewhere").rename(folder)


def test_checkpoints_are_due_by_steps_and_those_to_be_kept_as_well(tmp_path):
    saving = Saving(tmp_path, every=4, keep_every=6)
    assert [step for step in range(1, 13) if saving.saver.due(step)] == [4, 6, 8, 12]
    never = Saving(tmp_path, every=0)
    assert not any(never.saver.due(step) for step in range(1, 13))


def test_a_checkpoint_is_due_by_time_since_the_last_one(tmp_path):
    saving = Saving(tmp_path, every_minutes=10)
    wanted = []
    for minute in (9, 10, 11, 19, 21, 22, 40):
        saving.clock.now = 60 * minute
        wanted.append(saving.saver.wants())
        if wanted[-1] or minute == 11:
            saving.save(minute)
    saving.checkpoints.close()
    assert wanted == [False, True, False, False, True, False, True]


def test_without_an_interval_no_checkpoint_is_due_by_time(tmp_path):
    saving = Saving(tmp_path)
    saving.clock.now = 1e9
    assert not saving.saver.wants()


def test_checkpoints_to_be_kept_survive(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, assets={}, keep_every=10)
    for step in (5, 10, 15, 20, 25, 30):
        checkpoints.save(step, STATE, {})
    checkpoints.close()
    assert checkpoints.steps() == [10, 20, 25, 30]


def test_a_folder_that_cannot_be_written_is_reported_and_tried_again_at_the_next_step(saving, tmp_path):
    saving.save(1)
    saving.checkpoints.wait()
    with unwritable(tmp_path / "checkpoints"):
        saving.save(2)
        assert saving.saver.wants()
        saving.save(3)
        assert not saving.saver.wants()  # now it waits
        saving.clock.now += 10
        assert saving.saver.wants()
    saving.save(4)
    saving.settle(4)
    assert not saving.saver.wants()
    assert len(saving.said) == 3
    for line, when in zip(saving.said, ("at once", "in 10 s"), strict=False):
        assert "checkpoints: a checkpoint cannot be written (File exists). Training goes on" in line
        assert line.endswith(f"trying again {when}.")
    assert saving.said[2] == "The checkpoint of step 4 is saved, after 2 failed attempts."
    assert saving.checkpoints.steps() == [1, 4]


def test_success_after_a_failure_is_reported_although_the_next_save_is_what_waits_for_it(saving, tmp_path):
    with unwritable(tmp_path / "checkpoints"):
        saving.save(1)
    saving.save(2)
    saving.save(3)
    assert saving.said[1:] == ["The checkpoint of step 2 is saved, after a failed attempt."]


def test_a_failure_in_the_background_is_noticed_without_waiting_and_tried_again(saving):
    saving.save(1)
    saving.checkpoints.wait()
    with small_files_only():
        saving.save(2)
        while not saving.saver.wants():
            time.sleep(0.01)
    saving.save(3)
    saving.checkpoints.wait()
    saving.saver.wants()
    assert len(saving.said) == 2
    assert "a checkpoint cannot be written (File too large). Training goes on" in saving.said[0]
    assert saving.checkpoints.steps() == [1, 3]


def test_what_an_interrupted_or_failed_attempt_left_is_removed(tmp_path):
    for name in ("2.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp.failed"):
        (tmp_path / name / "params").mkdir(parents=True)
        (tmp_path / name / "params" / "part").write_text("x")
    Checkpoints(tmp_path, keep=1, assets={}).close()
    assert list(tmp_path.iterdir()) == []


def test_earlier_checkpoints_are_kept_while_no_new_one_can_be_saved(tmp_path):
    saving = Saving(tmp_path, keep=1)
    saving.save(1)
    saving.checkpoints.wait()
    with small_files_only():
        for step in (2, 3):
            saving.save(step)
            with pytest.raises(CheckpointError):
                saving.checkpoints.wait()
    assert saving.said == []
    assert saving.checkpoints.steps() == [1]
    saving.clock.now += 1000
    saving.save(4)
    saving.checkpoints.wait()
    saving.checkpoints.close()
    assert saving.checkpoints.steps() == [4]


def test_the_last_state_is_tried_for_a_while_and_then_given_up_with_what_is_left(saving, tmp_path):
    saving.save(1)
    saving.checkpoints.wait()
    waits = []
    with unwritable(tmp_path / "checkpoints"), pytest.raises(CheckpointError) as error:
        saving.saver.save_last(2, STATE, {}, patience=10, sleep=waits.append)
    assert waits == [1, 2, 4, 8]
    assert "The state of step 2 is lost; there is no checkpoint" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_last_state_is_saved_as_soon_as_it_can_be(saving, tmp_path):
    with contextlib.ExitStack() as blocked:
        blocked.enter_context(unwritable(tmp_path / "checkpoints"))
        saving.saver.save_last(2, STATE, {}, patience=10, sleep=lambda wait: blocked.close())
    assert saving.checkpoints.steps() == [2]


def test_a_folder_that_was_deleted_is_made_again(saving, tmp_path):
    saving.save(1)
    saving.checkpoints.wait()
    shutil.rmtree(tmp_path / "checkpoints")
    saving.save(2)
    saving.checkpoints.wait()
    assert saving.checkpoints.steps() == [2]


def test_a_run_does_not_start_if_its_checkpoints_cannot_be_written(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="checkpoints: a checkpoint cannot be written"):
        Checkpoints(tmp_path / "checkpoints", keep=1, assets={})

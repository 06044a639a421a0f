"""Workdirs that do not belong to a run are rejected."""

from __future__ import annotations

import shutil

import pytest

from tests.helpers.tiny_run import (
    quiet,
    tiny_uno,
)
from uno_jax.config import ConfigError
from uno_jax.process.lock import LockError, locked
from uno_jax.run.run import run
from uno_jax.training.checkpoint_folders import find_checkpoint, saved_steps


@pytest.mark.parametrize("place", ["", "7", "checkpoints", "checkpoints/7"])
def test_a_workdir_that_is_or_holds_a_model_without_a_run_is_rejected(dataset, unbroken, tmp_path, place):
    shutil.copytree(find_checkpoint(unbroken), tmp_path / "mine" / place)
    for item in ("training", "data"):
        shutil.rmtree(tmp_path / "mine" / place / item)
    with pytest.raises(
        ConfigError, match=f"the workdir is .*mine, but .*/mine/?{place} is not a checkpoint that a run"
    ):
        run(tiny_uno(dataset), tmp_path / "mine", console=quiet())


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/6"])
def test_a_folder_inside_a_run_is_not_a_workdir(dataset, unbroken, place):
    with pytest.raises(ConfigError, match="Give a run's own workdir"):
        run(tiny_uno(dataset), unbroken / place, console=quiet())
    assert not (unbroken / place / "checkpoints").exists()


@pytest.mark.parametrize("workdir", ["file", "file/run", "/proc/run"])
def test_a_workdir_that_cannot_be_written_is_refused_at_the_start(dataset, tmp_path, workdir):
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match=r"cannot be written \(.*\)\. Give a folder that can be"):
        run(tiny_uno(dataset), tmp_path / workdir, console=quiet())


def test_a_workdir_in_use_is_refused_and_nothing_in_it_is_changed(dataset, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with locked(tmp_path), pytest.raises(LockError, match="in use by process"):
        run(tiny_uno(dataset, steps=8), tmp_path, console=quiet())
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert saved_steps(tmp_path / "checkpoints") == [2, 4, 6]

"""What happens to checkpoints, and what a run does about it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.faults.conftest import STEPS, Train
from tests.helpers.damage import cut, files_of, flip_bit
from tests.helpers.tiny_run import assert_same_run, tiny_uno
from uno_jax.interop.load import load_model
from uno_jax.parallel.mesh import make_mesh
from uno_jax.process.errors import CheckpointError
from uno_jax.run.programs import abstract_state
from uno_jax.training.checkpoint_folders import check_files, saved_steps
from uno_jax.training.checkpoints import restore_state
from uno_jax.training.metrics import read_metrics

pytestmark = pytest.mark.faults


def assert_no_traceback(printed: str) -> None:
    assert "Traceback" not in printed, printed


def assert_events_stand_once(workdir: Path) -> None:
    """Every step is in the event files and in metrics.jsonl exactly once."""
    every = {"tensors": 0}  # and not a sample of ten
    events = EventAccumulator(str(workdir / "tensorboard"), every, purge_orphaned_data=False).Reload()
    assert [event.step for event in events.Tensors("loss")] == list(range(1, STEPS + 1))
    assert [line["step"] for line in read_metrics(workdir / "metrics.jsonl")] == list(range(1, STEPS + 1))


def test_twenty_kills_at_random_moments_change_nothing(train: Train, unbroken, tmp_path):
    moments = random.Random(0)
    for _ in range(20):
        with train(tmp_path / "run") as training:
            newest = max(saved_steps(tmp_path / "run" / "checkpoints"), default=0)
            if newest < STEPS - 4:
                step = newest + moments.randrange(1, 4)
                training.wait_until(lambda step=step: any(m["step"] >= step for m in _logged(tmp_path / "run")))
            time.sleep(0.2 * moments.random())  # in the middle of a step, a save or a deletion
            training.process.send_signal(signal.SIGKILL)
    with train(tmp_path / "run") as training:
        assert training.finish() == 0, training.printed
        assert_no_traceback(training.printed)
    assert_same_run(tmp_path / "run", unbroken, STEPS)
    assert_events_stand_once(tmp_path / "run")


def _logged(workdir: Path) -> list[dict]:
    return read_metrics(workdir / "metrics.jsonl")


def test_a_kill_during_every_stage_of_a_save_leaves_a_whole_checkpoint(train: Train, unbroken, tmp_path):
    """The process is killed as soon as an unfinished checkpoint exists, later and later."""
    folder = tmp_path / "run" / "checkpoints"
    for attempt in range(8):
        with train(tmp_path / "run") as training:
            training.wait_until(lambda: any(folder.glob("*.orbax-checkpoint-tmp")))
            time.sleep(0.01 * attempt)
            training.process.send_signal(signal.SIGKILL)
        for step in saved_steps(folder):
            assert check_files(folder / str(step))
    with train(tmp_path / "run") as training:
        assert training.finish() == 0, training.printed
    assert not any(folder.glob("*.orbax-checkpoint-tmp"))
    assert_same_run(tmp_path / "run", unbroken, STEPS)


class Stored:
    """A copy of the unbroken run's last checkpoint, its true state, and what is said about it after it was damaged."""

    def __init__(self, dataset: Path, unbroken: Path, folder: Path):
        config = tiny_uno(dataset, **{"evaluation.records": 0})
        self.checkpoint = Path(shutil.copytree(unbroken / "checkpoints" / str(STEPS), folder / str(STEPS)))
        self.whole = Path(shutil.copytree(self.checkpoint, folder / "whole"))
        self._target = abstract_state(config, make_mesh(config.mesh))
        self._truth = self._read()

    def _read(self) -> list[np.ndarray]:
        check_files(self.checkpoint, resumable=True)
        state, data = restore_state(self.checkpoint, self._target)
        return [*map(np.asarray, jax.tree.leaves(state)), np.asarray(json.dumps(data))]

    def problem(self) -> str | None:
        """Returns what is said about the checkpoint, or None if its state is read, which must then be the true one."""
        try:
            leaves = self._read()
        except CheckpointError as error:
            return str(error)
        for leaf, expected in zip(leaves, self._truth, strict=True):
            np.testing.assert_array_equal(leaf, expected)
        return None

    def repair(self, file: Path) -> None:
        file.parent.mkdir(exist_ok=True)
        shutil.copy(self.whole / file.relative_to(self.checkpoint), file)


@pytest.fixture
def stored(dataset, unbroken, tmp_path) -> Stored:
    return Stored(dataset, unbroken, tmp_path)


def test_no_flipped_bit_is_used(stored):
    """Of 200 single bits of a checkpoint's files, each is noticed, or in something that is not read."""
    choose, files, noticed = random.Random(1), files_of(stored.checkpoint), 0
    for _ in range(200):
        (file,) = choose.choices(files, [file.stat().st_size for file in files])
        flip_bit(file, choose.randrange(8 * file.stat().st_size))
        problem = stored.problem()
        assert problem is None or "\n" not in problem
        noticed += problem is not None
        stored.repair(file)
    print(f"{noticed} of 200 flipped bits were noticed, the others were in nothing that is read")
    assert noticed > 100


@pytest.mark.parametrize("damage", [Path.unlink, cut, lambda file: file.write_bytes(b"")])
def test_no_file_of_a_checkpoint_can_be_missing_or_cut_and_give_another_state(stored, damage, capfd):
    files, noticed = files_of(stored.checkpoint), 0
    for file in files:
        damage(file)
        problem = stored.problem()
        assert problem is None or "\n" not in problem, file
        noticed += problem is not None
        stored.repair(file)
    assert "Traceback" not in capfd.readouterr().err
    print(f"{noticed} of {len(files)} files were missed, the others are not read")


def test_the_command_names_a_damaged_checkpoint_in_one_line_and_goes_on(train: Train, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    flip_bit(files_of(tmp_path / "run" / "checkpoints" / str(STEPS) / "training")[0], 99_999)
    with train(tmp_path / "run") as training:
        assert training.finish() == 0, training.printed
        assert_no_traceback(training.printed)
        assert training.printed.count(f"renamed to {STEPS}.damaged") == 1
    assert_same_run(tmp_path / "run", unbroken, STEPS)


def test_sampling_from_a_damaged_checkpoint_is_one_line(unbroken, tmp_path, dataset):
    shutil.copytree(unbroken, tmp_path / "run")
    files_of(tmp_path / "run" / "checkpoints" / str(STEPS) / "params")[1].unlink()
    with pytest.raises(CheckpointError, match=f"checkpoints/{STEPS}/params: files are missing or damaged"):
        load_model(tmp_path / "run")


def test_a_full_disk_stops_nothing_and_is_tried_again(train: Train, unbroken, small_disk):
    with train(small_disk / "run", **{"checkpoint.keep": 50}) as training:
        training.wait_for("a checkpoint cannot be written (No space left on device)")
        kept = saved_steps(small_disk / "run" / "checkpoints")
        assert kept
        subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
        assert training.finish() == 0, training.printed
        assert_no_traceback(training.printed)
        assert "is saved, after" in training.printed
    for step in kept:
        assert check_files(small_disk / "run" / "checkpoints" / str(step))
    assert_same_run(small_disk / "run", unbroken, STEPS)


def test_a_disk_that_stays_full_ends_the_run_with_a_message_and_whole_checkpoints(train: Train, unbroken, small_disk):
    with train(small_disk / "run", **{"checkpoint.keep": 50}) as training:
        began = time.monotonic()
        assert training.finish() == 1
        assert_no_traceback(training.printed)
        assert f"The state of step {STEPS} is lost; the newest checkpoint is of step " in training.printed
        print(f"ended {time.monotonic() - began:.0f} s after its start")
    for step in saved_steps(small_disk / "run" / "checkpoints"):
        assert check_files(small_disk / "run" / "checkpoints" / str(step))
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    with train(small_disk / "run", **{"checkpoint.keep": 50}) as training:
        assert training.finish() == 0, training.printed
    assert_same_run(small_disk / "run", unbroken, STEPS)


@pytest.fixture
def immutable(tmp_path) -> Iterator[Path]:
    """A folder that cannot be changed once `chattr +i` is applied, also not by the superuser."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    if subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("this user or file system has no immutable folders")
    subprocess.run(["chattr", "-i", folder], check=True)
    yield folder
    subprocess.run(["chattr", "-i", folder], check=True)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_twice_saves_a_checkpoint_and_gives_its_exit_status(train: Train, tmp_path, signum):
    with train(tmp_path / "run", steps=10_000) as training:
        training.wait_until(lambda: bool(_logged(tmp_path / "run")))
        began = time.monotonic()
        for _ in range(2):
            training.process.send_signal(signum)
            time.sleep(0.05)
        assert training.finish(60) == 128 + signum, training.printed
        stopped = time.monotonic() - began
        assert_no_traceback(training.printed)
        assert "and saved a checkpoint. Run the same command to resume." in training.printed
    print(f"stopped {stopped:.1f} s after {signal.Signals(signum).name}")
    newest = max(saved_steps(tmp_path / "run" / "checkpoints"))
    assert newest == _logged(tmp_path / "run")[-1]["step"]


def test_a_folder_that_becomes_immutable_is_reported_at_once_and_a_signal_is_obeyed(train: Train, immutable, tmp_path):
    with train(tmp_path / "run", steps=10_000) as training:
        training.wait_until(lambda: bool(saved_steps(immutable)))
        subprocess.run(["chattr", "+i", immutable], check=True)
        began = time.monotonic()
        training.wait_for("a checkpoint cannot be written (Operation not permitted)", 20)
        noticed = time.monotonic() - began
        began = time.monotonic()
        assert training.terminate(40) == 1
        stopped = time.monotonic() - began
        assert_no_traceback(training.printed)
        assert "is lost; the newest checkpoint is of step" in training.printed
    print(f"noticed after {noticed:.1f} s, stopped {stopped:.1f} s after SIGTERM")
    assert all(check_files(immutable / str(step)) for step in saved_steps(immutable))


def test_an_immutable_folder_stops_a_run_before_it_starts(train: Train, immutable, tmp_path):
    subprocess.run(["chattr", "+i", immutable], check=True)
    with train(tmp_path / "run") as training:
        assert training.finish() == 1
        assert training.printed.splitlines()[-1].endswith("a checkpoint cannot be written (Operation not permitted)")
        assert_no_traceback(training.printed)


def test_the_second_of_two_runs_in_a_workdir_is_refused_and_the_first_loses_nothing(train: Train, unbroken, tmp_path):
    with train(tmp_path / "run") as first:
        first.wait_until(lambda: len(_logged(tmp_path / "run")) > 2)
        with train(tmp_path / "run") as second:
            assert second.finish() == 1
            assert f"run: in use by process {first.process.pid} on " in second.printed
            assert_no_traceback(second.printed)
        assert first.finish() == 0, first.printed
    assert_same_run(tmp_path / "run", unbroken, STEPS)
    assert_events_stand_once(tmp_path / "run")


def test_logs_that_cannot_be_written_are_reported_and_the_checkpoints_are_whole(train: Train, unbroken, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        (tmp_path / "checkpoints").mkdir()
        (disk / "checkpoints").symlink_to(tmp_path / "checkpoints")  # only the logs are on the small disk
        with train(disk) as training:
            assert training.finish() == 0, training.printed
            assert_no_traceback(training.printed)
            for name in ("metrics.jsonl", "TensorBoard events"):
                assert training.printed.count(f"{name} cannot be written (No space left on device)") == 1
        assert saved_steps(tmp_path / "checkpoints")[-1] == STEPS
        assert check_files(tmp_path / "checkpoints" / str(STEPS))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_read_only_workdir_is_one_message(train: Train, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with train(small_disk / "run") as training:
        assert training.finish() == 1
        assert "run: cannot be written (Read-only file system)" in training.printed
        assert_no_traceback(training.printed)


def test_a_workdir_that_vanishes_is_made_again(train: Train, unbroken, tmp_path):
    with train(tmp_path / "run") as training:
        training.wait_until(lambda: bool(saved_steps(tmp_path / "run" / "checkpoints")))
        os.rename(tmp_path / "run", tmp_path / "gone")
        assert training.finish() == 0, training.printed
        assert_no_traceback(training.printed)
    assert saved_steps(tmp_path / "run" / "checkpoints")[-1] == STEPS


def test_time_between_checkpoints_is_bounded_by_minutes(train: Train, unbroken, tmp_path):
    with train(tmp_path / "run", **{"checkpoint.every": 0, "checkpoint.every_minutes": 0.005}) as training:
        training.wait_until(lambda: len(saved_steps(tmp_path / "run" / "checkpoints")) > 2)
        training.process.send_signal(signal.SIGKILL)
    saved = saved_steps(tmp_path / "run" / "checkpoints")
    with train(tmp_path / "run", **{"checkpoint.every": 0}) as training:
        assert training.finish() == 0, training.printed
    print(f"saved steps {saved}")
    assert saved[-1] < STEPS
    assert_same_run(tmp_path / "run", unbroken, STEPS)

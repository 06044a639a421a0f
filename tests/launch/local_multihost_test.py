"""A small `openmoji_uno` run in two processes of `launch/local_multihost.sh`: killed or told to stop, then resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.tiny_run import write_config, write_dataset
from uno_jax.training.metrics import read_metrics

pytestmark = pytest.mark.slow

LOSSES = ("loss", "flow", "caption", "visual")
STEPS = 6


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    """Config file of a tiny model on a tiny dataset."""
    directory = tmp_path_factory.mktemp("local")
    write_dataset(directory / "data")
    changes = {"steps": STEPS, "checkpoint.every": 1}
    file = directory / "config.py"
    write_config(file, directory / "data", changes)
    return file


def start(config_file: Path, workdir: Path) -> subprocess.Popen:
    """Starts two processes in a new process group."""
    command = [ROOT / "launch" / "local_multihost.sh", "2", f"--python={sys.executable}", "--"]
    arguments = [f"--config={config_file}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen, status: int = 0) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output


def wait_for_checkpoint(process: subprocess.Popen, workdir: Path, step: int) -> None:
    while not (workdir / "checkpoints" / str(step)).is_dir():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def losses(workdir: Path) -> dict[int, list[float]]:
    """Losses of every step."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return {int(line["step"]): [line[name] for name in LOSSES] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def unbroken(config_file, tmp_path_factory) -> dict[int, list[float]]:
    workdir = tmp_path_factory.mktemp("unbroken")
    finish(start(config_file, workdir))
    return losses(workdir)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped by a signal"])
def test_a_run_that_ended_early_resumes_to_the_same_losses(config_file, unbroken, tmp_path, ending):
    process = start(config_file, tmp_path)
    wait_for_checkpoint(process, tmp_path, 2)
    if ending == signal.SIGKILL:
        os.killpg(process.pid, ending)  # all processes, as if the machine failed
        process.communicate()
    else:
        process.send_signal(ending)
        finish(process, 128 + ending)
    assert max(losses(tmp_path), default=0) < STEPS
    finish(start(config_file, tmp_path))
    assert losses(tmp_path).keys() == unbroken.keys() == set(range(1, STEPS + 1))
    for step, expected in unbroken.items():
        np.testing.assert_array_equal(losses(tmp_path)[step], expected)

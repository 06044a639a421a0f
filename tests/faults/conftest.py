"""A dataset, a config file and an unbroken run, for faults that befall runs of the command `train`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny_command import Training
from tests.helpers.tiny_run import write_config, write_dataset

STEPS = 40


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


Train = Callable[..., Training]


@pytest.fixture(scope="session")
def train(dataset: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Starts a run of 40 steps in a workdir: `train(workdir, *arguments, **changes of the config)`."""

    def start(workdir: Path, *arguments: str, **changes: Any) -> Training:
        file = tmp_path_factory.mktemp("config") / "config.py"
        write_config(file, dataset, {"steps": STEPS, "tensorboard": True, "evaluation.records": 0, **changes})
        return Training(file, workdir, *arguments, compiled=compiled)

    return start


@pytest.fixture(scope="session")
def unbroken(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("unbroken")
    with train(workdir) as training:
        assert training.finish() == 0, training.printed
    return workdir


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 3 MB. Skips if this user may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)

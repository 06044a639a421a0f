"""Commands that were killed: the same command again gives the same folder as one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.small_loaded import save_small_checkpoint
from tests.helpers.tiny_autoencoder import AUTOENCODER, encoding_uno, write_autoencoder
from tests.helpers.tiny_run import tiny_uno, write_config
from uno_jax.run.start import model_assets
from uno_jax.training.checkpoints import save_model
from uno_jax.training.initialise import init_params

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Starts `prepare_data ARGUMENTS` in a process of its own: programs that other tests compiled round differently."""
    command = [sys.executable, "-m", "uno_jax.prepare_data", *arguments, f"--out={out}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def kill_with_files(arguments: list[str], out: Path, files: int) -> None:
    """Starts the command and kills it when its folder has so many files."""
    process = start(arguments, out)
    while not out.is_dir() or len([path for path in out.iterdir() if not path.name.startswith(".")]) < files:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()


@pytest.mark.parametrize("command", ["encode", "encode --features", "recaption"])
def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_bytes(command, dataset, tmp_path):
    if command == "encode":
        write_config(tmp_path / "config.py", dataset, AUTOENCODER)
        model = write_autoencoder(encoding_uno(dataset), tmp_path / "model")
        arguments = [f"--config={tmp_path / 'config.py'}", f"--checkpoint={model}"]
    elif command == "encode --features":
        config = tiny_uno(dataset)
        write_config(tmp_path / "config.py", dataset, {})
        save_model(tmp_path / "model", init_params(config.model, 0), {}, model_assets(config, dataset / "tokenizer"))
        arguments = [f"--config={tmp_path / 'config.py'}", f"--checkpoint={tmp_path / 'model'}"]
    else:
        model = save_small_checkpoint(tmp_path / "model")
        arguments = [f"--data={dataset}", f"--checkpoint={model}", "--temperature=1", "--max_length=8"]
    arguments = [*command.split(), *arguments, "--records_per_shard=3"]
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    kill_with_files(arguments, broken, files=3)
    assert start(arguments, unbroken).wait() == 0
    assert 3 <= len(contents(broken)) < len(contents(unbroken))
    assert start(arguments, broken).wait() == 0
    assert contents(broken) == contents(unbroken)
